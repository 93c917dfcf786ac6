"""What a hostile review of the fast paths found, held by tests."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from cast import Person, World
from rowhouse.app import create_app
from rowhouse.core.db import open_database
from rowhouse.core.resource import Registry
from rowhouse.migrate import Addresses
from rowhouse.pipeline import Pipeline, Read, conninfo_of
from rowhouse.settings import Settings


@pytest.mark.parametrize(
    "params",
    [
        {"sort": ",".join(["name", "-name"] * 150)},
        {"sort": "name,name"},
        {"fields": ",".join(["id"] * 1000)},
        {"filter": json.dumps({"field": "name", "op": "contains", "value": "\0zzz"})},
        {"filter": json.dumps({"field": "name", "op": "starts_with", "value": "\0"})},
        {"filter": '{"field": "name", "op": "contains", "value": "\\ud800"}'},
        {"filter": '{"field": "\\ud800", "value": 1}'},
        {"filter": json.dumps({"field": "name", "op": [], "value": 1})},
        {"filter": json.dumps({"field": [], "value": 1})},
        {"filter": json.dumps({"field": {}, "value": 1})},
        {"created_at.lte": "9999-12-31"},
        {"created_at.gt": "9999-12-31"},
    ],
)
async def test_an_odd_question_is_refused(owner_a: Person, params: dict[str, str]) -> None:
    answer = await owner_a.client.get("/api/v1/accounts", params=params)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]


async def test_half_a_character_is_refused_with_a_key_for_repetition_too(owner_a: Person) -> None:
    headers = {"content-type": "application/json", "idempotency-key": "half-a-character"}
    answer = await owner_a.client.post("/api/v1/accounts", content=b'{"name": "\\ud800"}', headers=headers)
    assert answer.status_code == 400
    whole = await owner_a.client.post(
        "/api/v1/accounts", content=b'{"name": "\\ud83d\\ude00 Smile Ltd"}', headers={"content-type": "application/json"}
    )
    assert (whole.status_code, whole.json()["name"]) == (201, "\N{GRINNING FACE} Smile Ltd")


async def test_slow_reads_of_one_tenant_leave_connections_to_another(
    settings: Settings, registry: Registry, addresses: Addresses, owner_a: Person, owner_b: Person
) -> None:
    database = open_database(addresses.urls, addresses.roles, pool_size=settings.pool_size)
    app = create_app(settings, database, registry)
    url = make_url(addresses.admin).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        async with (
            await psycopg.AsyncConnection.connect(url) as holder,
            client_of(app, owner_a) as a,
            client_of(app, owner_b) as b,
        ):
            await holder.execute("LOCK TABLE exchange_rate IN ACCESS EXCLUSIVE MODE")
            held = [asyncio.create_task(a.get("/api/v1/exchange-rates")) for _ in range(2 * settings.pool_size)]
            # Let them reach the database.
            for _ in range(20):
                await asyncio.sleep(0.01)
            async with asyncio.timeout(5):
                answer = await b.get("/api/v1/contacts", params={"limit": 1})
            await holder.rollback()
            assert answer.status_code == 200
            assert {one.status_code for one in await asyncio.gather(*held)} <= {200, 409, 429}
    finally:
        await database.close()


def client_of(app: Any, person: Person) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {person.key}"}
    return httpx.AsyncClient(transport=transport, base_url=f"http://{person.tenant.slug}.localhost", headers=headers)


async def test_a_failed_statement_keeps_its_connection(addresses: Addresses, world: World) -> None:
    pipeline = Pipeline(conninfo_of(addresses.urls["app"]), role=addresses.roles.app, size=1)
    pid = Read(b"SELECT pg_backend_pid()", b"pid", ())
    broken = Read(b"SELECT 1 / $1::int", b"broken", (b"0",))
    fine = Read(b"SELECT 1 / $1::int", b"broken", (b"1",))
    try:
        (first,) = await pipeline.run(world.tenant_a.id, [pid])
        await pipeline.run(world.tenant_a.id, [fine])
        (before,) = await pipeline.run(world.tenant_a.id, [pid])
        for _ in range(3):
            with pytest.raises(Exception, match="division by zero"):
                await pipeline.run(world.tenant_a.id, [broken])
        (after,) = await pipeline.run(world.tenant_b.id, [pid])
        assert first.get_value(0, 0) == before.get_value(0, 0) == after.get_value(0, 0)
        (result,) = await pipeline.run(world.tenant_b.id, [Read(b"SELECT current_setting('app.tenant_id')", b"", ())])
        assert result.get_value(0, 0) == str(world.tenant_b.id).encode()
    finally:
        await pipeline.close()


async def test_one_who_leaves_while_connecting_leaves_the_place_to_the_next(addresses: Addresses, world: World) -> None:
    pipeline = Pipeline(conninfo_of(addresses.urls["app"]), role=addresses.roles.app, size=1, wait_s=5)
    try:
        read = Read(b"SELECT 1", b"", ())
        opening = asyncio.create_task(pipeline.run(world.tenant_a.id, [read]))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(pipeline.run(world.tenant_b.id, [read]))
        await asyncio.sleep(0)
        opening.cancel()
        async with asyncio.timeout(4):
            (result,) = await waiting
        assert result.get_value(0, 0) == b"1"
    finally:
        await pipeline.close()

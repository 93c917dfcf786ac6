"""Reads whose caller accepts an older answer go to the replica; nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from cast import Person
from rowhouse.app import create_app
from rowhouse.core.db import open_database
from rowhouse.core.resource import Registry
from rowhouse.migrate import Addresses
from rowhouse.settings import Settings

EVENTUAL = {"prefer": "respond-async, Eventual"}


@dataclass
class Copied:
    """A program with a replica, and what was sent to the primary and to the replica."""

    client: httpx.AsyncClient
    primary: list[str] = field(default_factory=list)
    replica: list[str] = field(default_factory=list)


@pytest.fixture
async def copied(settings: Settings, addresses: Addresses, registry: Registry, owner_a: Person) -> AsyncIterator[Copied]:
    # The same server stands for its own copy: what counts is which connections a read goes to.
    database = open_database(addresses.urls, addresses.roles, pool_size=1, replica=addresses.urls["app"])
    transport = httpx.ASGITransport(create_app(settings, database, registry), raise_app_exceptions=False)
    place, headers = f"http://{owner_a.tenant.slug}.localhost", {"authorization": f"Bearer {owner_a.key}"}
    async with httpx.AsyncClient(transport=transport, base_url=place, headers=headers) as client:
        found = Copied(client)
        assert database.replica is not None
        database.reads.watchers.append(found.primary.append)
        database.replica.watchers.append(found.replica.append)
        yield found
    await database.close()


@pytest.mark.parametrize("path", ["accounts", "accounts?q=acme&total=true", "opportunities/reports/totals", "search?q=acme"])
async def test_a_read_that_accepts_an_older_answer_goes_to_the_replica(copied: Copied, path: str) -> None:
    assert (await copied.client.get(f"/api/v1/{path}", headers=EVENTUAL)).status_code == 200
    assert copied.replica
    assert copied.primary == []


@pytest.mark.parametrize("preference", [{}, {"prefer": "return=minimal"}, {"prefer": "not-eventual"}])
async def test_any_other_read_goes_to_the_primary(copied: Copied, preference: dict[str, str]) -> None:
    assert (await copied.client.get("/api/v1/accounts", headers=preference)).status_code == 200
    assert copied.primary
    assert copied.replica == []


async def test_a_change_goes_to_the_primary_whatever_it_prefers(copied: Copied) -> None:
    made = await copied.client.post("/api/v1/accounts", json={"name": "Not of the copy"}, headers=EVENTUAL)
    assert made.status_code == 201
    assert copied.replica == []


async def test_the_replica_is_bound_to_the_tenant_too(copied: Copied, owner_b: Person) -> None:
    await copied.client.get("/api/v1/accounts", headers=EVENTUAL)
    assert copied.replica[0].startswith("SET LOCAL app.tenant_id")
    foreign = await copied.client.get("/api/v1/accounts", headers={**EVENTUAL, "authorization": f"Bearer {owner_b.key}"})
    assert foreign.status_code == 404

"""Bad input: a clear answer, and nothing is lost."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from cast import CallMaker, Person, TenantMaker
from partywall import system_scope
from rowhouse import clock
from rowhouse.core.db import Database
from rowhouse.core.resource import Registry
from rowhouse.identity import tenants
from rowhouse.identity.models import ApiKey
from rows import Rows

ACCOUNTS = "/api/v1/accounts"


async def code_of(person: Person, method: str, path: str, **sent: Any) -> tuple[int, str]:
    answer = await person.client.request(method, path, **sent)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert answer.json()["status"] == answer.status_code
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "name", "required"),
        ({"name": "x", "colour": "red"}, "colour", "unknown_field"),
        ({"name": "x", "employee_count": "many"}, "employee_count", "invalid_value"),
        ({"name": "x", "employee_count": 2**40}, "employee_count", "invalid_value"),
        ({"name": "x", "type": "FRIEND"}, "type", "invalid_value"),
        ({"name": "x", "parent_account_id": "17"}, "parent_account_id", "invalid_value"),
        ({"name": "nul\0"}, "name", "invalid_value"),
        ({"name": "a\u202ecod.exe"}, "name", "invalid_value"),
        ({"name": "x" * 201}, "name", "invalid_value"),
        ({"name": "x", "annual_revenue_minor": -1}, "annual_revenue_minor", "invalid_value"),
        ({"name": "x", "tags": ["t"] * 51}, "tags", "invalid_value"),
        ({"name": "x", "billing_address": {"a": {"b": {"c": {"d": {"e": {"f": {}}}}}}}}, "billing_address", "invalid_value"),
    ],
)
async def test_a_wrong_field_is_named_with_a_code(owner_a: Person, body: dict[str, Any], field: str, code: str) -> None:
    answer = await owner_a.client.post(ACCOUNTS, json=body)
    assert answer.status_code == 422, answer.text
    assert {"field": field, "code": code}.items() <= answer.json()["errors"][0].items()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", (400, "broken_json")),
        (b'{"name": NaN}', (400, "broken_json")),
        (b'{"name": "a", "name": "b"}', (400, "broken_json")),
        (b'{"name": "\xff"}', (400, "broken_json")),
        (b"[" * 100_000, (400, "broken_json")),
        (b"[1]", (400, "not_an_object")),
        (b"x" * (10 * 1024 * 1024), (413, "body_too_large")),
    ],
    ids=["cut", "nan", "twice", "not-utf8", "deep", "list", "10-megabytes"],
)
async def test_a_body_that_cannot_be_read_is_refused(owner_a: Person, content: bytes, expected: tuple[int, str]) -> None:
    headers = {"content-type": "application/json"}
    assert await code_of(owner_a, "POST", ACCOUNTS, content=content, headers=headers) == expected


async def test_a_body_that_grows_beyond_the_limit_is_refused(owner_a: Person) -> None:
    async def drip() -> Any:
        for _ in range(100):
            yield b" " * 100_000

    headers = {"content-type": "application/json"}
    assert await code_of(owner_a, "POST", ACCOUNTS, content=drip(), headers=headers) == (413, "body_too_large")


async def test_text_that_is_not_declared_json_is_refused(owner_a: Person) -> None:
    assert await code_of(owner_a, "POST", ACCOUNTS, content=b"name=x") == (400, "not_json")


@pytest.mark.parametrize("path", ["/not-a-uuid", "/123", "/0f8fad5bd9cb469fa16570867728950e"])
async def test_a_malformed_id_is_named(owner_a: Person, path: str) -> None:
    assert await code_of(owner_a, "GET", ACCOUNTS + path) == (422, "invalid_value")


@pytest.mark.parametrize("value", ["abc", '"-1"', '"1.5"', '"99999999999999"'])
async def test_a_malformed_version_is_named(owner_a: Person, rows_a: Rows, value: str) -> None:
    path = f"{ACCOUNTS}/{rows_a.id_of('accounts')}"
    assert await code_of(owner_a, "PATCH", path, json={}, headers={"if-match": value}) == (422, "invalid_value")


async def test_a_stale_version_changes_nothing(owner_a: Person) -> None:
    made = (await owner_a.client.post(ACCOUNTS, json={"name": "First"})).json()
    path = f"{ACCOUNTS}/{made['id']}"
    assert (await owner_a.client.patch(path, json={"name": "Second"}, headers={"if-match": '"1"'})).status_code == 200
    assert await code_of(owner_a, "PATCH", path, json={"name": "Third"}, headers={"if-match": '"1"'}) == (409, "stale_version")
    assert (await owner_a.client.get(path)).json()["name"] == "Second"


async def test_a_duplicate_names_its_field_and_no_value(owner_a: Person) -> None:
    body = {"name": "One", "external_id": f"dup-{uuid.uuid4()}"}
    assert (await owner_a.client.post(ACCOUNTS, json=body)).status_code == 201
    answer = await owner_a.client.post(ACCOUNTS, json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "duplicate")
    assert answer.json()["errors"][0]["field"] == "external_id"
    assert body["external_id"] not in answer.text


async def test_the_same_unique_value_may_be_used_in_another_tenant(owner_a: Person, owner_b: Person) -> None:
    body = {"name": "One", "external_id": f"both-{uuid.uuid4()}"}
    assert (await owner_a.client.post(ACCOUNTS, json=body)).status_code == 201
    assert (await owner_b.client.post(ACCOUNTS, json=body)).status_code == 201


async def raw(app: Any, headers: list[tuple[bytes, bytes]], path: str = ACCOUNTS) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "client": ("192.0.2.7", 1234),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


async def test_two_hosts_are_refused(app: Any, owner_a: Person) -> None:
    host = f"{owner_a.tenant.slug}.localhost".encode()
    status, body = await raw(app, [(b"host", host), (b"host", host)])
    assert (status, b"bad_host" in body) == (400, True)


async def test_an_unknown_host_serves_nothing(app: Any) -> None:
    for host in (b"nobody.localhost", b"example.org", b"203.0.113.9", b"a.b.localhost"):
        status, body = await raw(app, [(b"host", host)])
        assert (status, b"unknown_host" in body) == (404, True), host


async def test_a_forwarded_host_from_a_stranger_changes_nothing(app: Any, owner_a: Person, owner_b: Person) -> None:
    key = f"Bearer {owner_a.key}".encode()
    plain = [(b"host", f"{owner_a.tenant.slug}.localhost".encode()), (b"authorization", key)]
    forged = [*plain, (b"x-forwarded-host", f"{owner_b.tenant.slug}.localhost".encode())]
    assert await raw(app, forged) == await raw(app, plain)
    assert (await raw(app, plain))[0] == 200


async def test_a_key_at_another_tenants_host_finds_nothing(owner_a: Person, owner_b: Person) -> None:
    answer = await owner_a.client.get(f"http://{owner_b.tenant.slug}.localhost{ACCOUNTS}")
    assert (answer.status_code, answer.json()["code"]) == (404, "tenant_not_found")


async def test_a_tenant_header_only_selects_among_own_memberships(owner_a: Person, owner_b: Person) -> None:
    base = "http://localhost"
    own = await owner_a.client.get(base + ACCOUNTS, headers={"x-tenant-id": str(owner_a.tenant.id)})
    foreign = await owner_a.client.get(base + ACCOUNTS, headers={"x-tenant-id": str(owner_b.tenant.id)})
    unknown = await owner_a.client.get(base + ACCOUNTS, headers={"x-tenant-id": str(uuid.uuid4())})
    assert own.status_code == 200
    assert foreign.status_code == 404
    assert foreign.content == unknown.content


async def test_an_unknown_key_is_401(owner_a: Person) -> None:
    for key in (f"rh_pk_{'a' * 16}_{'b' * 43}", owner_a.key[:-1], "nonsense", ""):
        answer = await owner_a.client.get(ACCOUNTS, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 401, key


async def test_an_expired_key_is_401(owner_a: Person, call_as: CallMaker, registry: Registry) -> None:
    path = "/api/v1/api-keys/actions/create-key"
    opened = await log_in(owner_a)
    made = await opened.post(path, json={"name": "short", "scopes": ["crm:read"]})
    assert made.status_code == 200, made.text
    key = {"authorization": f"Bearer {made.json()['key']}"}
    async with httpx.AsyncClient(transport=owner_a.client._transport, base_url=str(owner_a.client.base_url)) as client:
        assert (await client.get(ACCOUNTS, headers=key)).status_code == 200
        async with call_as(owner_a) as call:
            ended = update(ApiKey).where(ApiKey.id == uuid.UUID(made.json()["id"])).values(expires_at=call.now)
            await call.session.execute(ended)
        assert await until_refused(client, key) == 401


async def log_in(person: Person) -> httpx.AsyncClient:
    client = httpx.AsyncClient(transport=person.client._transport, base_url=str(person.client.base_url))
    sent = {"email": person.email, "password": "correct horse battery staple"}
    answer = await client.post("/api/v1/session", json=sent)
    assert answer.status_code == 200, answer.text
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-rowhouse=")
    assert all(word in cookie for word in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"))
    assert "Domain" not in cookie
    client.headers["cookie"] = cookie.split(";")[0]
    client.headers["x-csrf-token"] = answer.json()["csrf_token"]
    return client


async def until_refused(client: httpx.AsyncClient, headers: dict[str, str]) -> int:
    """Return the first refusal; a second is what revocation may take."""
    deadline = asyncio.get_running_loop().time() + 1.0
    while True:
        status = (await client.get(ACCOUNTS, headers=headers)).status_code
        if status != 200 or asyncio.get_running_loop().time() > deadline:
            return status
        await asyncio.sleep(0.05)


async def test_a_page_needs_its_csrf_token_to_change_anything(owner_a: Person) -> None:
    client = await log_in(owner_a)
    assert (await client.post(ACCOUNTS, json={"name": "With token"})).status_code == 201
    client.headers["x-csrf-token"] = "0" * 64
    answer = await client.post(ACCOUNTS, json={"name": "Without"})
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")
    assert (await client.get(ACCOUNTS)).status_code == 200


async def test_a_session_ends_within_a_second(owner_a: Person) -> None:
    client = await log_in(owner_a)
    assert (await client.delete("/api/v1/session")).status_code == 204
    assert await until_refused(client, {}) == 401


async def test_a_suspended_tenant_is_locked_within_a_second(
    app: Any, database: Database, registry: Registry, make_tenant: TenantMaker
) -> None:
    tenant, _ = await make_tenant("suspended")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{tenant.slug}.localhost") as client:
        sent = {"email": f"owner@{tenant.slug}.example", "password": "correct horse battery staple"}
        opened = await client.post("/api/v1/session", json=sent)
        headers = {"cookie": opened.headers["set-cookie"].split(";")[0]}
        assert (await client.get(ACCOUNTS, headers=headers)).status_code == 200
        with system_scope(reason="a test of suspension"):
            await tenants.suspend(database, tenant.slug, now=clock.utc_now())
        assert await until_refused(client, headers) == 423


async def test_two_moves_at_once_leave_one_history(owner_a: Person, rows_a: Rows) -> None:
    made = (await owner_a.client.post("/api/v1/opportunities", json={"name": "Raced"})).json()
    stages = (await owner_a.client.get(f"/api/v1/pipelines/{made['pipeline_id']}/stages")).json()["items"]
    targets = [stage["id"] for stage in stages if stage["type"] == "OPEN" and stage["id"] != made["stage_id"]][:2]
    path = f"/api/v1/opportunities/{made['id']}/move"
    answers = await asyncio.gather(
        *(owner_a.client.post(path, json={"to_stage_id": target}, headers={"if-match": '"1"'}) for target in targets)
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    history = await owner_a.client.get("/api/v1/opportunity-stage-history", params={"opportunity_id": made["id"]})
    assert len(history.json()["items"]) == 2


async def test_the_same_idempotency_key_works_once(owner_a: Person, owner_b: Person) -> None:
    headers = {"idempotency-key": f"key-{uuid.uuid4()}"}
    first = await owner_a.client.post(ACCOUNTS, json={"name": "Once"}, headers=headers)
    again = await owner_a.client.post(ACCOUNTS, json={"name": "Once"}, headers=headers)
    other = await owner_b.client.post(ACCOUNTS, json={"name": "Once"}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert other.json()["id"] != first.json()["id"]
    assert await code_of(owner_a, "POST", ACCOUNTS, json={"name": "Other"}, headers=headers) == (422, "idempotency_mismatch")


async def test_a_bulk_call_tells_each_items_fate(owner_a: Person) -> None:
    items = [{"name": "good"}, {"nam": "bad"}, {"name": "also good"}]
    answer = await owner_a.client.post(f"{ACCOUNTS}/bulk", json={"verb": "create", "items": items})
    assert [item["ok"] for item in answer.json()["items"]] == [True, False, True]
    assert await code_of(owner_a, "POST", f"{ACCOUNTS}/bulk", json={"verb": "create", "items": items * 200}) == (422, "bulk_size")


async def test_a_formula_is_escaped_in_the_export(owner_a: Person) -> None:
    name = f"=cmd|calc-{uuid.uuid4()}"
    await owner_a.client.post(ACCOUNTS, json={"name": name})
    text = (await owner_a.client.get(f"{ACCOUNTS}/export", params={"fields": "name"})).text
    assert f"'{name}" in text
    assert not any(line.startswith("=") for line in text.splitlines())


async def test_metrics_are_not_open_to_strangers(app: Any, owner_a: Person) -> None:
    status, body = await raw(app, [(b"host", b"localhost")], "/metrics")
    assert (status, body) == (404, b"")

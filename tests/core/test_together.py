"""New rows that are sent with the commit: the same rows, entries, words and refusals as an ordinary flush gives."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from cast import CallMaker, Person, World
from partywall import TenantMismatch
from rowhouse.core import operations
from rowhouse.core.audit import AuditEntry
from rowhouse.core.call import open_call
from rowhouse.core.db import Database
from rowhouse.core.errors import Conflict, Invalid, ReferenceNotFound
from rowhouse.core.events import OutboxEvent
from rowhouse.core.resource import Registry
from rowhouse.core.search.index import SearchPosting
from rowhouse.exchange import as_text
from rowhouse.modules.crm.models import Account
from rows import Rows

NAME = 'Together \\ "quoted" {braces}, 100 % Ähre'
BODY = {
    "name": NAME,
    "website": "https://together.example/path",
    "phone": "+49 30 1234567",
    "tags": ["a b", 'c"d', "e\\f", "g,h", "NULL", "{}"],
    "billing_address": {"street": "One 'Way' \\ 2", "lines": [1, 2.5, None, True]},
    "annual_revenue_minor": 2**53 - 1,
    "founded_year": 1999,
}


def single(database: Database, registry: Registry, person: Person) -> Any:
    return open_call(database, registry, person.tenant, person.principal, is_single=True)


async def traces(call: Any, row_id: UUID) -> dict[str, Any]:
    """Return what a create leaves in the database, without what differs from one create to the next."""
    own = {c.key for c in Account.__mapper__.column_attrs} - {"id", "created_at", "updated_at"}
    (account,) = (await call.session.scalars(select(Account).where(Account.id == row_id))).all()
    entries = (await call.session.scalars(select(AuditEntry).where(AuditEntry.entity_id == row_id))).all()
    counted = select(func.count(OutboxEvent.id)).where(OutboxEvent.payload["id"].astext == str(row_id))
    postings = select(SearchPosting.token, SearchPosting.entity, SearchPosting.weight).where(SearchPosting.id == row_id)
    return {
        "account": {name: getattr(account, name) for name in own},
        "entries": [(e.verb, e.operation, e.entity, e.changes, e.actor_kind, e.actor_id, e.request_id, e.ip) for e in entries],
        "events": await call.session.scalar(counted),
        "postings": sorted(map(tuple, (await call.session.execute(postings)).all())),
    }


async def test_what_is_sent_together_is_what_a_flush_writes(
    database: Database, registry: Registry, owner_a: Person, call_as: CallMaker
) -> None:
    async with call_as(owner_a) as call:
        flushed = await operations.create(call, registry["accounts"], BODY)
    sent: list[str] = []
    database.reads.watchers.append(sent.append)
    try:
        async with single(database, registry, owner_a) as call:
            together = await operations.create(call, registry["accounts"], BODY)
    finally:
        database.reads.watchers.remove(sent.append)
    # The words were learnt by the first, so nothing had to be looked up: one exchange.
    assert [text.split()[0] for text in sent][:2] == ["SET", "INSERT"]
    assert sum(text.startswith("INSERT INTO account ") for text in sent) == 1
    async with call_as(owner_a) as call:
        first, second = await traces(call, flushed.id), await traces(call, together.id)
    assert first == second
    assert second["account"]["name"] == NAME
    assert second["account"]["tags"] == flushed.tags
    assert len(second["entries"]) == 1
    assert second["events"] == 1
    assert second["postings"]


async def test_the_answer_holds_the_defaults(owner_a: Person) -> None:
    made = await owner_a.client.post("/api/v1/accounts", json={"name": NAME})
    again = await owner_a.client.post("/api/v1/accounts", json={"name": NAME})
    found = await owner_a.client.get(f"/api/v1/accounts/{again.json()['id']}")
    assert again.json() == found.json()
    assert {k: made.json()[k] for k in ("version", "type", "tags")} == {k: again.json()[k] for k in ("version", "type", "tags")}
    assert again.headers["etag"] == '"1"'


async def test_a_duplicate_is_a_conflict_and_leaves_nothing(
    database: Database, registry: Registry, owner_a: Person, call_as: CallMaker
) -> None:
    body = {"name": "Only one of these", "external_id": "together-1"}
    for _ in range(2):
        async with call_as(owner_a) as call:
            if not (await call.rows(select(Account.id).where(Account.external_id == "together-1"))):
                await operations.create(call, registry["accounts"], body)
    with pytest.raises(Conflict) as caught:
        async with single(database, registry, owner_a) as call:
            row = await operations.create(call, registry["accounts"], body)
    assert caught.value.code == "duplicate"
    async with call_as(owner_a) as call:
        assert await call.rows(select(AuditEntry.id).where(AuditEntry.entity_id == row.id)) == []
        assert await call.rows(select(SearchPosting.id).where(SearchPosting.id == row.id)) == []


@pytest.mark.parametrize("foreign", [True, False])
async def test_a_foreign_reference_is_not_found(
    foreign: bool, database: Database, registry: Registry, owner_a: Person, rows_b: Rows
) -> None:
    target = rows_b.id_of("accounts") if foreign else "01a2075a-1a34-7f47-8c91-ea0153ab037c"
    with pytest.raises(ReferenceNotFound):
        async with single(database, registry, owner_a) as call:
            await operations.create(call, registry["accounts"], {"name": "Child", "parent_account_id": target})


async def test_an_own_reference_is_accepted(database: Database, registry: Registry, owner_a: Person, rows_a: Rows) -> None:
    async with single(database, registry, owner_a) as call:
        body = {"name": "Owned", "owner_user_id": owner_a.id, "parent_account_id": rows_a.id_of("accounts")}
        row = await operations.create(call, registry["accounts"], body)
    assert str(row.parent_account_id) == rows_a.id_of("accounts")


async def test_a_value_out_of_range_is_invalid(database: Database, registry: Registry, owner_a: Person) -> None:
    with pytest.raises(Invalid):
        async with single(database, registry, owner_a) as call:
            await operations.create(call, registry["accounts"], {"name": "Too rich", "annual_revenue_minor": -1})


async def test_a_row_of_another_tenant_is_not_sent(database: Database, registry: Registry, owner_a: Person, world: World) -> None:
    async def smuggle() -> None:
        async with single(database, registry, owner_a) as call:
            row = Account(name="Smuggled", name_norm="smuggled", created_at=call.now, updated_at=call.now)
            row.tenant_id = world.tenant_b.id
            call.session.add(row)

    with pytest.raises(TenantMismatch):
        await smuggle()


async def test_a_call_that_fails_after_adding_leaves_nothing(
    database: Database, registry: Registry, owner_a: Person, call_as: CallMaker
) -> None:
    made: list[UUID] = []

    async def fail() -> None:
        async with single(database, registry, owner_a) as call:
            made.append((await operations.create(call, registry["accounts"], BODY)).id)
            raise RuntimeError("after the create")

    with pytest.raises(RuntimeError):
        await fail()
    async with call_as(owner_a) as call:
        assert await call.rows(select(Account.id).where(Account.id == made[0])) == []


async def test_two_creates_in_one_call_are_both_there(
    database: Database, registry: Registry, owner_a: Person, call_as: CallMaker
) -> None:
    async with single(database, registry, owner_a) as call:
        rows = [await operations.create(call, registry["accounts"], {**BODY, "name": f"{NAME} {n}"}) for n in range(2)]
    async with call_as(owner_a) as call:
        found = await call.rows(select(Account.name).where(Account.id == rows[0].id))
        found = [*found, *await call.rows(select(Account.name).where(Account.id == rows[1].id))]
    assert [name for (name,) in found] == [f"{NAME} 0", f"{NAME} 1"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("Ä", "Ä".encode()),
        (True, b"True"),
        (2.5, b"2.5"),
        (b"\x00\xff", b"\\x00ff"),
        (["a", 'b"', "c\\", None, ""], b'{"a","b\\"","c\\\\",NULL,""}'),
        ([], b"{}"),
        (json.loads("1"), b"1"),
    ],
)
def test_values_are_written_as_postgresql_reads_them(value: Any, text: bytes | None) -> None:
    assert as_text(value) == text

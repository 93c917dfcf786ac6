"""Writes that are collected and sent together leave the same rows as writes sent one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from cast import TenantMaker
from partywall import Tenant
from rowhouse.core import operations
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database
from rowhouse.core.events import OutboxEvent
from rowhouse.core.permissions import Principal
from rowhouse.core.reads import Query
from rowhouse.core.resource import Registry

NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
SEEN = ("accounts", "contacts", "opportunities", "opportunity-contacts", "opportunity-line-items", "activities")
TABLES = (*SEEN, "opportunity-stage-history", "exchange-rates", "pipelines", "pipeline-stages")
# What tells one writing of a row from another, and not one row from another.
UNEQUAL = {"id", "version", "created_at", "updated_at"}


class Desk:
    """The operations of one open call, by name."""

    def __init__(self, call: Call, registry: Registry) -> None:
        self.call, self.registry = call, registry

    async def create(self, name: str, parent: Any = None, /, **data: Any) -> Any:
        return await operations.create(self.call, self.registry[name], data, parent_id=parent.id if parent else None)

    async def update(self, name: str, row: Any, /, **data: Any) -> Any:
        return await operations.update(self.call, self.registry[name], row.id, data)

    async def act(self, name: str, action: str, row: Any = None, /, **data: Any) -> Any:
        resource = self.registry[name]
        declared = next(found for found in resource.actions if found.name == action)
        return await operations.act(self.call, resource, declared, data, row_id=row.id if row else None)


async def company_and_its_people(desk: Desk, number: int, group: Any) -> tuple[Any, list[Any]]:
    company = await desk.create("accounts", name=f"Company {number}", parent_account_id=group.id, employee_count=number)
    people = [
        await desk.create("contacts", first_name=f"Person {number}.{n}", account_id=company.id, is_primary=True) for n in range(2)
    ]
    return company, people


async def deal_with_all_its_parts(desk: Desk, number: int, company: Any, people: list[Any]) -> Any:
    deal = await desk.create(
        "opportunities",
        name=f"Deal {number}",
        account_id=company.id,
        currency="EUR" if number % 3 else "USD",
        contacts=[{"contact_id": people[0].id, "role": "CHAMPION"}],
        lines=[{"name": "Seats", "unit_price_minor": number, "quantity": "2.5"}],
        opened_at=NOW - timedelta(days=30),
    )
    await desk.create("opportunity-line-items", deal, name="Care", unit_price_minor=7, recurrence="MONTHLY", term_months=3)
    await desk.create("opportunity-contacts", deal, contact_id=people[1].id, is_primary=True)
    return deal


async def what_was_done(desk: Desk, number: int, deal: Any) -> None:
    await desk.act("activities", "log", type="CALL", opportunity_id=deal.id, subject=f"Call {number}")
    plans = [
        await desk.act(
            "activities",
            "schedule",
            type="MEETING",
            subject=f"Meeting {number}.{days}",
            opportunity_id=deal.id,
            scheduled_at=NOW + timedelta(days=days),
        )
        for days in (2, 5)
    ]
    await desk.act("activities", "complete", plans[0], outcome="agreed")
    if number % 2:
        await desk.act("activities", "reschedule", plans[1], scheduled_at=NOW + timedelta(days=9))


async def the_way_of(desk: Desk, number: int, deal: Any, stages: dict[str, UUID]) -> None:
    if number % 4:
        await desk.act("opportunities", "move", deal, to_stage_id=stages["Proposal"])
    if number % 4 == 2:
        await desk.act("opportunities", "win", deal)
    if number % 4 == 3:
        await desk.act("opportunities", "lose", deal, reason="price")
        await desk.act("opportunities", "reopen", deal)
        await desk.update("opportunities", deal, name=f"Deal {number}", tags=["Again"], next_step="call")


async def write_deals(desk: Desk, numbers: range) -> None:
    stages = {row["name"]: UUID(row["id"]) for row in await listed(desk.call, desk.registry, "pipeline-stages")}
    if numbers.start == 0:
        await desk.create("exchange-rates", currency="EUR", as_of="2026-01-01", rate="1.1")
    group = await desk.create("accounts", name=f"Group {numbers.start}")
    for number in numbers:
        if number % 4 == 0:
            company, people = await company_and_its_people(desk, number, group)
        deal = await deal_with_all_its_parts(desk, number, company, people)
        await what_was_done(desk, number, deal)
        await the_way_of(desk, number, deal, stages)


@asynccontextmanager
async def desk_of(
    database: Database, registry: Registry, owner: tuple[Tenant, Principal], *, is_deferred: bool
) -> AsyncIterator[Desk]:
    async with open_call(database, registry, *owner, now=NOW) as call:
        if is_deferred:
            async with call.deferred():
                yield Desk(call, registry)
        else:
            yield Desk(call, registry)


async def listed(call: Call, registry: Registry, name: str) -> list[dict[str, Any]]:
    return [row async for row in operations.export(call, registry[name], Query(archived="all"))]


def label_of(table: str, row: dict[str, Any], labels: dict[Any, str]) -> str:
    own = row.get("name") or row.get("subject") or row.get("kind") or row.get("as_of") or labels.get(row.get("contact_id"), "")
    return f"{table} {labels.get(row.get('opportunity_id'), '')} {own}"


async def picture(database: Database, registry: Registry, owner: tuple[Tenant, Principal]) -> dict[str, dict[str, Any]]:
    """Return every row of a tenant by a label, ids replaced by the labels of what they name."""
    labels: dict[Any, str] = {str(owner[1].member_id): "the owner"}
    found: dict[str, dict[str, Any]] = {}
    async with open_call(database, registry, *owner) as call:
        tables = {name: await listed(call, registry, name) for name in TABLES}
    for place, row in enumerate(sorted(tables["opportunities"], key=lambda row: (row["probability"], row["board_rank"]))):
        # Two ranks may differ where the order of the cards does not.
        row["board_rank"] = place
    for name in ("pipelines", "pipeline-stages", *TABLES):
        for row in tables[name]:
            labels[row["id"]] = label_of(name, row, labels)
    for rows in tables.values():
        for row in rows:
            values = {key: value for key, value in row.items() if key not in UNEQUAL}
            known = {key: labels.get(v, v) if isinstance(v, str) else v for key, v in values.items()}
            assert found.setdefault(labels[row["id"]], known) is known, labels[row["id"]]
    return found


async def events(database: Database, registry: Registry, owner: tuple[Tenant, Principal]) -> Counter[str]:
    async with open_call(database, registry, *owner) as call:
        names = await call.session.scalars(select(OutboxEvent.name))
        # An update that is flushed before it is told of is told of twice or not at all; that is the core's matter.
        return Counter(name for name in names if not name.endswith("_updated"))


@pytest.fixture(scope="module")
async def both(make_tenant: TenantMaker, database: Database, registry: Registry) -> list[tuple[Tenant, Principal]]:
    """Two tenants with the same forty deals, one by one in the first and together in the second."""
    owners = [await make_tenant(prefix) for prefix in ("one-by-one", "together")]
    for owner, is_deferred in zip(owners, (False, True), strict=True):
        async with desk_of(database, registry, owner, is_deferred=is_deferred) as desk:
            for start in (0, 20):
                await write_deals(desk, range(start, start + 20))
    return owners


async def test_deals_written_together_are_what_they_are_one_by_one(
    both: list[tuple[Tenant, Principal]], database: Database, registry: Registry
) -> None:
    one, other = [await picture(database, registry, owner) for owner in both]
    assert set(one) == set(other)
    assert Counter(label.split(" ")[0] for label in one)["opportunities"] == 40
    differing = {
        f"{label}, {name}": (one[label][name], other[label][name])
        for label in one
        for name in one[label]
        if one[label][name] != other[label][name]
    }
    assert not differing


async def test_the_same_events_are_told(both: list[tuple[Tenant, Principal]], database: Database, registry: Registry) -> None:
    one, other = [await events(database, registry, owner) for owner in both]
    assert one == other
    assert one["crm.opportunity_won"] == 10


async def test_two_hundred_deals_are_written_in_one_flush(
    make_tenant: TenantMaker, database: Database, registry: Registry
) -> None:
    owner = await make_tenant("two-hundred")
    async with desk_of(database, registry, owner, is_deferred=True) as desk:
        await write_deals(desk, range(200))
    async with open_call(database, registry, *owner) as call:
        rows = {name: await listed(call, registry, name) for name in TABLES}
    deals, lines = rows["opportunities"], rows["opportunity-line-items"]
    sums = Counter[str]()
    for line in lines:
        sums[line["opportunity_id"]] += line["total_minor"]
    assert sorted(deal["number"] for deal in deals) == list(range(1, 201))
    assert {deal["id"]: deal["amount_minor"] for deal in deals} == sums
    assert Counter(deal["status"] for deal in deals) == {"OPEN": 150, "WON": 50}
    assert {name: len(rows[name]) for name in SEEN[:2]} == {"accounts": 51, "contacts": 100}
    assert [len(rows[name]) for name in SEEN[3:]] == [400, 400, 600]


@pytest.mark.parametrize("is_deferred", [False, True])
async def test_planned_and_then_moved_to_another_account(
    make_tenant: TenantMaker, database: Database, registry: Registry, is_deferred: bool
) -> None:
    owner = await make_tenant("plans")
    async with desk_of(database, registry, owner, is_deferred=False) as desk:
        before, after = [await desk.create("accounts", name=name) for name in ("Before", "After")]
        for days in (4, 8):
            await desk.act("activities", "schedule", type="CALL", account_id=before.id, due_at=NOW + timedelta(days=days))
    async with desk_of(database, registry, owner, is_deferred=is_deferred) as desk:
        rows = await listed(desk.call, registry, "activities")
        first = min(rows, key=lambda row: row["due_at"])
        await operations.update(desk.call, registry["activities"], UUID(first["id"]), {"account_id": after.id})
    async with desk_of(database, registry, owner, is_deferred=False) as desk:
        found = {row["name"]: row["next_activity_at"] for row in await listed(desk.call, registry, "accounts")}
    assert found == {"Before": (NOW + timedelta(days=8)).isoformat(), "After": (NOW + timedelta(days=4)).isoformat()}

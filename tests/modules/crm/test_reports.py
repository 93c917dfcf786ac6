"""Reports: each is computed a second time, in Python, from the rows the workspace lists, and compared."""

from __future__ import annotations

import random
from collections import defaultdict
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from statistics import mean, median
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from pydantic import TypeAdapter

from cast import Person, TenantMaker
from partywall import Tenant
from rowhouse.core import operations
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database
from rowhouse.core.permissions import Principal
from rowhouse.core.reads import Query
from rowhouse.core.resource import Registry

ZONE = "Pacific/Auckland"
# A fixed moment: noon on the 20th in Auckland, so that "this month" has days before and after it.
NOW = datetime(2026, 5, 20, 0, tzinfo=ZoneInfo("UTC"))
DEALS = "opportunities"
REPORTS = ("board", "forecast", "funnel", "win-rate", "totals", "closing-soon", "overdue", "stale")


@dataclass(frozen=True)
class Books:
    """A workspace of its own, read as of one moment."""

    tenant: Tenant
    owner: Principal
    database: Database
    registry: Registry

    def call(self) -> AbstractAsyncContextManager[Call]:
        return open_call(self.database, self.registry, self.tenant, self.owner, now=NOW)

    async def report(self, name: str, **params: Any) -> Any:
        declared = next(report for report in self.registry[DEALS].reports if report.name == name)
        async with self.call() as call:
            found = await operations.report(call, self.registry[DEALS], declared, params)
        kind = list[declared.output] if declared.many else declared.output  # type: ignore[name-defined]
        return TypeAdapter(kind).dump_python(found, mode="json")

    async def rows(self, name: str, archived: Any = "exclude") -> list[dict[str, Any]]:
        async with self.call() as call:
            found = operations.export(call, self.registry[name], Query(archived=archived))
            return [{key: _typed(key, value) for key, value in row.items()} async for row in found]

    async def stages(self) -> list[dict[str, Any]]:
        return sorted(await self.rows("pipeline-stages"), key=lambda stage: stage["position"])


def _typed(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name.endswith("_at"):
        return datetime.fromisoformat(value) if isinstance(value, str) else value
    return date.fromisoformat(value) if name == "expected_close_date" else value


@pytest.fixture(scope="module")
async def books(make_tenant: TenantMaker, database: Database, registry: Registry) -> Books:
    tenant, owner = await make_tenant("books")
    found = Books(replace(tenant, timezone=ZONE), owner, database, registry)
    await fill(found, seed=7)
    return found


async def fill(books: Books, *, seed: int, count: int = 40) -> None:
    """Add deals of every sort: dated, moved, won, lost, reopened, archived, foreign, undated."""
    dice, resources = random.Random(seed), books.registry
    stages = await books.stages()
    async with books.call() as call:
        await operations.create(call, resources["exchange-rates"], {"currency": "EUR", "as_of": date(2025, 1, 1), "rate": "1.1"})
        company = (await operations.create(call, resources["accounts"], {"name": "Acme"})).id
    for number in range(count):
        opened = NOW - timedelta(days=dice.randint(20, 150), hours=dice.randint(0, 23))
        due = NOW.date() + timedelta(days=dice.randint(-60, 250))
        body = {
            "name": f"Deal {number}",
            "account_id": company,
            "amount_minor": dice.choice([None, 0, 99, 1_000, 123_457]),
            "currency": dice.choice(["USD", "USD", "EUR"]),
            "expected_close_date": dice.choice([None, due, due, due]),
            "owner_user_id": dice.choice([books.owner.member_id, None]),
            "opened_at": opened,
        }
        await play(books, body, dice.choices(stages, weights=(1, 1, 1, 1, 3, 3), k=dice.randint(0, 3)), dice)


async def play(books: Books, body: dict[str, Any], way: list[dict[str, Any]], dice: random.Random) -> None:
    """Create a deal in the past and take it through some stages, each some days after the one before."""
    deals = books.registry[DEALS]
    move = next(action for action in deals.actions if action.name == "move")
    async with books.call() as call:
        with call.at(body["opened_at"]):
            row = await operations.create(call, deals, body)
        moment = body["opened_at"]
        for stage in way:
            moment += timedelta(days=dice.randint(0, 6), hours=dice.randint(0, 23))
            if row.status != "OPEN" and stage["type"] != "OPEN":
                continue
            with call.at(moment):
                sent = {"to_stage_id": stage["id"], "lost_reason": "price"}
                await operations.act(call, deals, move, sent, row_id=row.id)
        if dice.random() < 0.15:
            await operations.archive(call, deals, row.id)


def total(rows: list[dict[str, Any]], name: str = "amount_base_minor") -> int:
    return sum(row[name] or 0 for row in rows)


def of_status(rows: list[dict[str, Any]], status: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["status"] == status]


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


async def test_the_books_hold_every_sort_of_deal(books: Books) -> None:
    rows = await books.rows(DEALS, archived="all")
    assert {row["status"] for row in rows} == {"OPEN", "WON", "LOST"}
    assert {row["archived_at"] is None for row in rows} == {True, False}
    assert {row["expected_close_date"] is None for row in rows} == {True, False}
    kinds = {row["kind"] for row in await books.rows("opportunity-stage-history")}
    assert kinds == {"CREATED", "MOVED", "WON", "LOST", "REOPENED"}


async def test_totals(books: Books) -> None:
    rows = await books.rows(DEALS)
    opened, won, lost = (of_status(rows, status) for status in ("OPEN", "WON", "LOST"))
    assert await books.report("totals") == {
        "currency": "USD",
        "count": len(rows),
        "open_count": len(opened),
        "open_minor": total(opened),
        "weighted_minor": sum((row["amount_base_minor"] or 0) * row["probability"] // 100 for row in opened),
        "won_count": len(won),
        "won_minor": total(won),
        "lost_count": len(lost),
        "lost_minor": total(lost),
        "win_rate": share(len(won), len(won) + len(lost)),
    }


async def test_totals_of_one_owner_and_one_status(books: Books) -> None:
    rows = [row for row in await books.rows(DEALS) if row["owner_user_id"] == str(books.owner.member_id)]
    found = await books.report("totals", owner_user_id=books.owner.member_id, status="WON")
    won = of_status(rows, "WON")
    assert (found["count"], found["won_minor"], found["open_count"]) == (len(won), total(won), 0)


async def test_the_board(books: Books) -> None:
    rows = await books.rows(DEALS)
    columns = await books.report("board", cards=3)
    assert [column["stage_id"] for column in columns] == [stage["id"] for stage in await books.stages()]
    for column in columns:
        here = sorted((row for row in rows if row["stage_id"] == column["stage_id"]), key=lambda row: row["board_rank"])
        assert column["count"] == len(here)
        assert column["amount_minor"] == total(here)
        assert column["weighted_minor"] == total(here, "weighted_minor")
        assert [card["id"] for card in column["cards"]] == [row["id"] for row in here[:3]]
    assert sum(column["count"] for column in columns) == len(rows)


def month_of(row: dict[str, Any]) -> str | None:
    day = row["closed_at"].astimezone(ZoneInfo(ZONE)).date() if row["status"] == "WON" else row["expected_close_date"]
    return day.replace(day=1).isoformat() if day else None


async def test_the_forecast(books: Books) -> None:
    rows = await books.rows(DEALS)
    found = await books.report("forecast", months=5)
    today, months = NOW.astimezone(ZoneInfo(ZONE)).date(), [f"2026-{month:02}-01" for month in range(5, 10)]
    assert [line["month"] for line in found["months"]] == months
    opened = [row for row in of_status(rows, "OPEN") if row["forecast_category"] != "OMITTED"]
    undated = [row for row in opened if row["expected_close_date"] is None]
    slipped = [row for row in opened if row["expected_close_date"] and row["expected_close_date"] < today]
    due = [row for row in opened if row["expected_close_date"] and row["expected_close_date"] >= today]
    later = [row for row in due if month_of(row) not in months]
    for name, part in (("undated", undated), ("slipped", slipped), ("later", later)):
        assert part, name
        sums = {"count": len(part), "amount_minor": total(part), "weighted_minor": total(part, "weighted_minor")}
        assert found[name] == sums, name
    for line in found["months"]:
        closed = total([row for row in of_status(rows, "WON") if month_of(row) == line["month"]])
        by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in due:
            if month_of(row) == line["month"]:
                by_kind[row["forecast_category"]].append(row)
        weighted = total(by_kind["BEST_CASE"] + by_kind["PIPELINE"], "weighted_minor")
        assert line == {
            "month": line["month"],
            "closed_minor": closed,
            "commit_minor": total(by_kind["COMMIT"]),
            "best_case_minor": total(by_kind["BEST_CASE"]),
            "pipeline_minor": total(by_kind["PIPELINE"]),
            "weighted_minor": weighted,
            "total_minor": closed + total(by_kind["COMMIT"]) + weighted,
        }


async def test_a_forecast_of_nothing_still_has_its_months(books: Books) -> None:
    found = await books.report("forecast", months=24, owner_user_id=uuid4())
    assert (found["months"][0]["month"], found["months"][-1]["month"], len(found["months"])) == ("2026-05-01", "2028-04-01", 24)
    assert {line["total_minor"] for line in found["months"]} == {0}


PERIOD = {"period_start": "2026-02-01", "period_end": "2026-05-01"}


def in_period(moment: datetime | None) -> bool:
    return moment is not None and date(2026, 2, 1) <= moment.astimezone(ZoneInfo(ZONE)).date() < date(2026, 5, 1)


async def test_the_win_rate(books: Books) -> None:
    rows = [row for row in await books.rows(DEALS) if in_period(row["closed_at"])]
    found = {line["owner_user_id"]: line for line in await books.report("win-rate", **PERIOD)}
    assert set(found) == {row["owner_user_id"] for row in rows}
    for owner, line in found.items():
        of_owner = [row for row in rows if row["owner_user_id"] == owner]
        won, lost = of_status(of_owner, "WON"), of_status(of_owner, "LOST")
        days = [(row["closed_at"] - row["opened_at"]).total_seconds() / 86_400 for row in won]
        assert (line["won_count"], line["lost_count"]) == (len(won), len(lost))
        assert (line["won_minor"], line["lost_minor"]) == (total(won), total(lost))
        assert line["rate_by_count"] == share(len(won), len(won) + len(lost))
        assert line["rate_by_value"] == share(total(won), total(won) + total(lost))
        assert line["mean_cycle_days"] == (pytest.approx(mean(days), abs=0.051) if days else None)


async def test_the_funnel(books: Books) -> None:
    live = {row["id"] for row in await books.rows(DEALS)}
    lines = [line for line in await books.rows("opportunity-stage-history") if line["opportunity_id"] in live]
    stages = {stage["id"]: stage for stage in await books.stages()}
    for found in await books.report("funnel", **PERIOD):
        stage = stages[found["stage_id"]]
        into = [line for line in lines if line["to_stage_id"] == stage["id"] and in_period(line["changed_at"])]
        further = {
            here["opportunity_id"]
            for here in into
            for line in lines
            if line["opportunity_id"] == here["opportunity_id"] and line["changed_at"] >= here["changed_at"]
            if stages[line["to_stage_id"]]["type"] != "LOST"
            if stages[line["to_stage_id"]]["position"] > stage["position"]
        }
        entered = {line["opportunity_id"] for line in into}
        assert (found["entered"], found["reached_next"]) == (len(entered), len(further)), stage["name"]
        assert found["conversion"] == (share(len(further), len(entered)) if stage["type"] == "OPEN" else None)
        left = [line for line in lines if line["from_stage_id"] == stage["id"] and in_period(line["changed_at"])]
        stays = [line["seconds_in_previous"] for line in left]
        expected = (int(mean(stays)), int(median(stays))) if stays else (None, None)
        assert (found["mean_seconds"], found["median_seconds"]) == expected, stage["name"]


async def test_the_lists_that_ask_for_attention(books: Books) -> None:
    rows, today = of_status(await books.rows(DEALS), "OPEN"), NOW.astimezone(ZoneInfo(ZONE)).date()
    rotten = {stage["id"]: stage["rotten_days"] for stage in await books.stages()}
    dated = [row for row in rows if row["expected_close_date"]]
    soon = [row for row in dated if today <= row["expected_close_date"] <= today + timedelta(days=90)]
    expected = {
        "closing-soon": {row["id"] for row in soon},
        "overdue": {row["id"] for row in dated if row["expected_close_date"] < today},
        "stale": {row["id"] for row in rows if row["stage_entered_at"] < NOW - timedelta(days=rotten[row["stage_id"]])},
    }
    for name, ids in expected.items():
        found = await books.report(name, **({"days": 90} if name == "closing-soon" else {}))
        assert {line["id"] for line in found} == ids, name
        assert ids, name
        assert name != "stale" or all(line["is_stale"] for line in found)


async def test_another_tenants_deals_change_no_report(
    books: Books, make_tenant: TenantMaker, database: Database, registry: Registry
) -> None:
    before = {name: await books.report(name) for name in REPORTS}
    tenant, owner = await make_tenant("other-books")
    other = Books(replace(tenant, timezone=ZONE), owner, database, registry)
    await fill(other, seed=8, count=15)
    assert (await other.report("totals"))["count"] > 0
    assert {name: await books.report(name) for name in REPORTS} == before


@pytest.mark.parametrize("name", REPORTS)
async def test_foreign_ids_are_answered_like_unknown_ones(owner_a: Person, owner_b: Person, name: str) -> None:
    pipeline = (await owner_b.client.get("/api/v1/pipelines")).json()["items"][0]["id"]
    base = f"/api/v1/opportunities/reports/{name}"
    asked = [("owner_user_id", owner_b.id), ("pipeline_id", pipeline)]
    for field, foreign in asked:
        answers = [await owner_a.client.get(base, params={field: value}) for value in (foreign, str(uuid4()))]
        assert answers[0].content == answers[1].content, field
        assert answers[0].status_code in (200, 422)
    assert (await owner_a.client.get(base)).status_code == 200


async def test_a_period_that_ends_before_it_starts_is_refused(owner_a: Person) -> None:
    for name in ("funnel", "win-rate"):
        params = {"period_start": "2026-02-01", "period_end": "2026-02-01"}
        answer = await owner_a.client.get(f"/api/v1/opportunities/reports/{name}", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "period_range")

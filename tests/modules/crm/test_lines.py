"""What a deal is worth: its lines, its amount, and the tenant's currency."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from cast import CallMaker, Person, TenantMaker
from rowhouse.core import operations
from rowhouse.core.call import open_call
from rowhouse.core.db import Database
from rowhouse.core.errors import Invalid
from rowhouse.core.resource import Input, Registry, Resource
from rowhouse.modules.crm.jobs import refresh_amounts
from rowhouse.modules.crm.models import Opportunity

DEALS = "/api/v1/opportunities"
SEATS = {"name": "Seats", "unit_price_minor": 1_000, "quantity": "2.5"}
CARE = {"name": "Care", "unit_price_minor": 100, "recurrence": "MONTHLY", "term_months": 12}
LARGEST = 2**63 - 1


async def made(person: Person, path: str = DEALS, **body: Any) -> dict[str, Any]:
    answer = await person.client.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def deal(person: Person, **body: Any) -> dict[str, Any]:
    company = await made(person, "/api/v1/accounts", name="Acme")
    return await made(person, name="Deal", account_id=company["id"], **body)


async def read(person: Person, row: dict[str, Any]) -> dict[str, Any]:
    return (await person.client.get(f"{DEALS}/{row['id']}")).json()


def lines_of(row: dict[str, Any]) -> str:
    return f"{DEALS}/{row['id']}/line-items"


async def read_lines(person: Person, row: dict[str, Any]) -> list[dict[str, Any]]:
    return (await person.client.get(lines_of(row))).json()["items"]


async def refusal(person: Person, method: str, path: str, body: Any = None) -> tuple[int, str]:
    answer = await person.client.request(method, path, json=body)
    return answer.status_code, answer.json().get("code", "")


async def test_lines_given_with_a_deal_make_its_amount(member_a: Person) -> None:
    row = await deal(member_a, lines=[SEATS, CARE])
    assert (row["amount_minor"], row["amount_source"], row["weighted_minor"]) == (3_700, "LINE_ITEMS", 370)
    found = [(line["position"], line["name"], line["net_minor"], line["total_minor"]) for line in await read_lines(member_a, row)]
    assert found == [(1, "Seats", 2_500, 2_500), (2, "Care", 100, 1_200)]


async def test_each_change_of_a_line_is_carried_to_the_deal(member_a: Person) -> None:
    row = await deal(member_a, amount_minor=5)
    amounts = []
    line = await made(member_a, lines_of(row), **SEATS)
    amounts.append((await read(member_a, row))["amount_minor"])
    await member_a.client.patch(f"{lines_of(row)}/{line['id']}", json={"quantity": "3", "discount_percent": "10"})
    amounts.append((await read(member_a, row))["amount_minor"])
    await made(member_a, lines_of(row), **CARE)
    amounts.append((await read(member_a, row))["amount_minor"])
    assert amounts == [2_500, 2_700, 3_900]


async def test_the_amount_stays_when_the_last_line_goes(member_a: Person) -> None:
    row = await deal(member_a, lines=[SEATS, CARE])
    found = []
    for line in await read_lines(member_a, row):
        assert (await member_a.client.delete(f"{lines_of(row)}/{line['id']}")).status_code == 204
        now = await read(member_a, row)
        found.append((now["amount_minor"], now["amount_source"]))
    assert found == [(1_200, "LINE_ITEMS"), (1_200, "MANUAL")]
    assert (await member_a.client.patch(f"{DEALS}/{row['id']}", json={"amount_minor": 7})).json()["amount_minor"] == 7


async def test_an_amount_that_lines_make_is_not_typed(member_a: Person) -> None:
    row = await deal(member_a, lines=[SEATS])
    path = f"{DEALS}/{row['id']}"
    assert await refusal(member_a, "PATCH", path, {"amount_minor": 1}) == (409, "amount_from_lines")
    assert (await member_a.client.patch(path, json={"amount_minor": 2_500})).json() == row
    assert await refusal(member_a, "POST", DEALS, {"name": "D", "amount_minor": 1, "lines": [SEATS]}) == (
        409,
        "amount_from_lines",
    )


async def test_lines_given_anew_replace_the_old_by_their_order(member_a: Person) -> None:
    row = await deal(member_a, lines=[SEATS, CARE])
    before = await read_lines(member_a, row)
    changed = (await member_a.client.patch(f"{DEALS}/{row['id']}", json={"lines": [SEATS, SEATS, CARE]})).json()
    after = await read_lines(member_a, row)
    assert changed["amount_minor"] == 6_200
    assert [(line["name"], line["position"]) for line in after] == [("Seats", 1), ("Seats", 2), ("Care", 3)]
    assert after[0] == before[0]
    shorter = (await member_a.client.patch(f"{DEALS}/{row['id']}", json={"lines": []})).json()
    assert (shorter["amount_minor"], shorter["amount_source"]) == (6_200, "MANUAL")


@pytest.mark.parametrize(("action", "body"), [("win", {}), ("lose", {"reason": "price"})])
async def test_the_lines_of_a_closed_deal_are_frozen(member_a: Person, action: str, body: dict[str, str]) -> None:
    row = await deal(member_a, lines=[SEATS])
    line = (await read_lines(member_a, row))[0]
    await made(member_a, f"{DEALS}/{row['id']}/{action}", **body)
    for method, path, sent in (
        ("POST", lines_of(row), CARE),
        ("PATCH", f"{lines_of(row)}/{line['id']}", {"quantity": "9"}),
        ("DELETE", f"{lines_of(row)}/{line['id']}", None),
        ("PATCH", f"{DEALS}/{row['id']}", {"lines": [CARE]}),
    ):
        assert await refusal(member_a, method, path, sent) == (409, "deal_closed")
    assert await read_lines(member_a, row) == [line]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"discount_minor": 1_001}, "discount_too_large"),
        ({"recurrence": "YEARLY"}, "term_required"),
    ],
)
async def test_a_line_that_makes_no_sense_is_refused(member_a: Person, line: dict[str, Any], code: str) -> None:
    body = {"name": "Line", "unit_price_minor": 1_000, **line}
    row = await deal(member_a)
    assert await refusal(member_a, "POST", lines_of(row), body) == (422, code)
    assert await refusal(member_a, "POST", DEALS, {"name": "Deal", "lines": [body]}) == (422, code)


@pytest.mark.parametrize(
    "line",
    [
        {"unit_price_minor": 10**40},
        {"unit_price_minor": LARGEST, "quantity": "999999999.999"},
        {"unit_price_minor": LARGEST, "recurrence": "MONTHLY", "term_months": 1200},
        {"unit_price_minor": 1, "quantity": "1e-3000"},
        {"unit_price_minor": 1, "quantity": "0.0001"},
        {"unit_price_minor": 1, "discount_minor": 10**40},
    ],
)
async def test_numbers_beyond_every_price_are_refused(member_a: Person, line: dict[str, Any]) -> None:
    row = await deal(member_a)
    body = {"name": "Line", **line}
    for path, sent in ((lines_of(row), body), (DEALS, {"name": "Deal", "lines": [body]})):
        answer = await member_a.client.post(path, json=sent)
        assert answer.status_code == 422, (path, answer.text)
    assert await read_lines(member_a, row) == []


async def test_two_lines_added_at_once_both_count(member_a: Person) -> None:
    row = await deal(member_a)
    await asyncio.gather(*(made(member_a, lines_of(row), **line) for line in (SEATS, CARE)))
    assert (await read(member_a, row))["amount_minor"] == 3_700
    assert len(await read_lines(member_a, row)) == 2


async def test_a_missing_rate_is_named_by_its_currency(member_a: Person) -> None:
    answer = await member_a.client.post(DEALS, json={"name": "Deal", "currency": "CHF", "amount_minor": 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "no_exchange_rate")
    assert "CHF" in answer.json()["detail"]
    assert answer.json()["errors"][0]["field"] == "currency"


async def test_only_an_administrator_keeps_rates_and_none_of_the_own_currency(owner_a: Person, member_a: Person) -> None:
    rate = {"currency": "USD", "as_of": "2026-01-01", "rate": "2"}
    assert await refusal(member_a, "POST", "/api/v1/exchange-rates", {**rate, "currency": "NOK"}) == (403, "permission_denied")
    assert await refusal(owner_a, "POST", "/api/v1/exchange-rates", rate) == (422, "own_currency")


async def rates(person: Person, currency: str, *rates_by_age: tuple[int, str]) -> None:
    for days, rate in rates_by_age:
        as_of = (datetime.now(UTC) - timedelta(days=days)).date().isoformat()
        await made(person, "/api/v1/exchange-rates", currency=currency, as_of=as_of, rate=rate)


async def test_an_open_deal_counts_at_todays_rate_and_a_closed_one_at_its_days(owner_a: Person) -> None:
    await rates(owner_a, "SEK", (30, "0.5"), (10, "0.25"))
    closed_at = (datetime.now(UTC) - timedelta(days=20)).isoformat()
    row = await deal(owner_a, currency="SEK", amount_minor=1_001, opened_at=closed_at)
    won = await made(owner_a, f"{DEALS}/{row['id']}/win", closed_at=closed_at)
    # 500.5 is rounded to the even neighbour.
    assert (row["amount_base_minor"], row["weighted_minor"], won["amount_base_minor"]) == (250, 25, 500)


async def test_the_tenants_currency_and_another_differ_in_their_digits(owner_a: Person) -> None:
    await rates(owner_a, "JPY", (0, "0.0067"))
    assert (await deal(owner_a, currency="JPY", amount_minor=10_000))["amount_base_minor"] == 6_700


async def test_a_value_beyond_the_column_is_refused(owner_a: Person) -> None:
    await rates(owner_a, "KRW", (0, "9999999999"))
    answer = await owner_a.client.post(DEALS, json={"name": "Deal", "currency": "KRW", "amount_minor": LARGEST})
    assert answer.status_code == 422, answer.text


def action_of(resource: Resource, name: str) -> Any:
    return next(action for action in resource.actions if action.name == name)


async def test_revaluing_brings_open_deals_to_todays_rate(
    make_tenant: TenantMaker, database: Database, registry: Registry
) -> None:
    tenant, owner = await make_tenant("rates")
    deals, found = registry["opportunities"], {}
    async with open_call(database, registry, tenant, owner) as call:
        old = {"currency": "EUR", "as_of": call.today - timedelta(days=9), "rate": "2"}
        await operations.create(call, registry["exchange-rates"], old)
        company = await operations.create(call, registry["accounts"], {"name": "Acme"})
        for name, stage in (("open", "move"), ("won", "win")):
            body = {"name": name, "currency": "EUR", "amount_minor": 100, "account_id": company.id}
            found[name] = (await operations.create(call, deals, body)).id
            if stage == "win":
                await operations.act(call, deals, action_of(deals, "win"), {}, row_id=found[name])
        await operations.create(call, registry["exchange-rates"], {"currency": "EUR", "as_of": call.today, "rate": "3"})
    async with open_call(database, registry, tenant, owner) as call:
        revalued = await operations.act(call, deals, action_of(deals, "revalue"), {})
    async with open_call(database, registry, tenant, owner) as call:
        values = {name: (await call.load(Opportunity, row_id)).amount_base_minor for name, row_id in found.items()}
    assert (revalued.changed, values) == (1, {"open": 300, "won": 200})


async def test_the_nightly_refresh_skips_what_has_no_rate(
    make_tenant: TenantMaker, database: Database, registry: Registry
) -> None:
    tenant, owner = await make_tenant("nightly")
    rate_table, deals = registry["exchange-rates"], registry["opportunities"]
    async with open_call(database, registry, tenant, owner) as call:
        for currency in ("EUR", "SEK"):
            row = await operations.create(call, rate_table, {"currency": currency, "as_of": call.today, "rate": "2"})
            await operations.create(call, deals, {"name": currency, "currency": currency, "amount_minor": 100})
        await operations.archive(call, rate_table, row.id)
        eur = {"currency": "EUR", "as_of": call.today + timedelta(days=1), "rate": "5"}
        await operations.create(call, rate_table, eur)
    async with open_call(database, registry, tenant, owner) as call:
        with call.at(call.now + timedelta(days=1)):
            done = await refresh_amounts.run(call, Input())
    assert (done.deals, done.changed, done.without_rate) == (2, 1, 1)


async def test_one_missing_rate_stops_the_whole_revaluation(
    make_tenant: TenantMaker, database: Database, registry: Registry
) -> None:
    tenant, owner = await make_tenant("no-rate")
    deals, rate_table = registry["opportunities"], registry["exchange-rates"]
    async with open_call(database, registry, tenant, owner) as call:
        rate = await operations.create(call, rate_table, {"currency": "SEK", "as_of": call.today, "rate": Decimal("0.1")})
        await operations.create(call, deals, {"name": "Deal", "currency": "SEK", "amount_minor": 100})
        await operations.delete(call, rate_table, rate.id)

    async def revalue() -> None:
        async with open_call(database, registry, tenant, owner) as call:
            await operations.act(call, deals, action_of(deals, "revalue"), {})

    with pytest.raises(Invalid, match="SEK") as refused:
        await revalue()
    assert refused.value.code == "no_exchange_rate"


async def test_a_line_is_not_reached_through_another_deal(member_a: Person, call_as: CallMaker) -> None:
    row, other = await deal(member_a, lines=[SEATS]), await deal(member_a)
    line = (await read_lines(member_a, row))[0]
    for method in ("GET", "PATCH", "DELETE"):
        assert await refusal(member_a, method, f"{lines_of(other)}/{line['id']}", {}) == (404, "not_found")
    assert await read_lines(member_a, row) == [line]

"""Deals: how they begin, move, are won, lost and reopened, and the history this leaves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from cast import CallMaker, Person, TenantMaker
from rowhouse.core import operations
from rowhouse.core.audit import AuditEntry
from rowhouse.core.call import open_call
from rowhouse.core.db import Database
from rowhouse.core.resource import Registry

DEALS = "/api/v1/opportunities"
USUAL = ["Lead", "Qualified", "Proposal", "Negotiation", "Closed Won", "Closed Lost"]


async def made(person: Person, path: str = DEALS, **body: Any) -> dict[str, Any]:
    answer = await person.client.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def refusal(person: Person, path: str, method: str = "POST", **body: Any) -> tuple[int, str]:
    answer = await person.client.request(method, path, json=body)
    return answer.status_code, answer.json().get("code", "")


async def pipeline(person: Person) -> tuple[str, dict[str, str]]:
    """Make a pipeline of the usual stages and return its id and the stages' by name."""
    found = (await made(person, "/api/v1/pipelines", name=f"P {uuid4()}"))["id"]
    stages = (await person.client.get(f"/api/v1/pipelines/{found}/stages")).json()["items"]
    return found, {stage["name"]: stage["id"] for stage in stages}


async def deal(person: Person, *, account: bool = True, **body: Any) -> dict[str, Any]:
    if account:
        body = {"account_id": (await made(person, "/api/v1/accounts", name="Acme"))["id"], **body}
    return await made(person, **{"name": "Deal", **body})


async def done(person: Person, row: dict[str, Any], action: str, **body: Any) -> dict[str, Any]:
    return await made(person, f"{DEALS}/{row['id']}/{action}", **body)


async def history(person: Person, row: dict[str, Any]) -> list[dict[str, Any]]:
    params = {"opportunity_id": row["id"], "sort": "changed_at"}
    return (await person.client.get("/api/v1/opportunity-stage-history", params=params)).json()["items"]


async def kinds(person: Person, row: dict[str, Any]) -> list[str]:
    return [line["kind"] for line in await history(person, row)]


async def test_a_new_deal_begins_in_the_first_open_stage_of_the_default_pipeline(member_a: Person) -> None:
    row = await deal(member_a, account=False, amount_minor=1_000)
    default = (await member_a.client.get("/api/v1/pipelines", params={"is_default": "true"})).json()["items"][0]
    stages = (await member_a.client.get(f"/api/v1/pipelines/{row['pipeline_id']}/stages")).json()["items"]
    assert (row["pipeline_id"], row["stage_id"]) == (default["id"], stages[0]["id"])
    found = {name: row[name] for name in ("status", "probability", "weighted_minor", "currency", "amount_base_minor")}
    assert found == {"status": "OPEN", "probability": 10, "weighted_minor": 100, "currency": "USD", "amount_base_minor": 1_000}
    assert (row["owner_user_id"], row["amount_source"], row["closed_at"]) == (member_a.id, "MANUAL", None)
    assert [(line["kind"], line["seconds_in_previous"]) for line in await history(member_a, row)] == [("CREATED", None)]


async def test_the_first_named_person_is_the_primary_one_and_comes_further(member_a: Person) -> None:
    people = [(await made(member_a, "/api/v1/contacts", first_name=f"P{n}"))["id"] for n in range(2)]
    row = await deal(member_a, contacts=[{"contact_id": people[n], "role": "CHAMPION"} for n in (0, 1, 0)])
    lines = (await member_a.client.get(f"{DEALS}/{row['id']}/contacts")).json()["items"]
    assert {line["contact_id"]: line["is_primary"] for line in lines} == {people[0]: True, people[1]: False}
    primary = (await member_a.client.get(f"/api/v1/contacts/{people[0]}")).json()
    assert primary["lifecycle"] == "OPPORTUNITY"


@pytest.mark.parametrize(("stage", "kind"), [("Closed Won", "WON"), ("Closed Lost", "LOST")])
async def test_a_deal_of_the_past_is_created_with_its_whole_history(owner_a: Person, stage: str, kind: str) -> None:
    _, stages = await pipeline(owner_a)
    dates = {"opened_at": "2026-01-01T00:00:00+00:00", "closed_at": "2026-03-02T12:00:00+00:00"}
    row = await deal(owner_a, stage_id=stages[stage], amount_minor=500, lost_reason="price", **dates)
    assert (row["status"], row["opened_at"], row["closed_at"]) == (kind, *dates.values())
    lines = await history(owner_a, row)
    assert [(line["kind"], line["changed_at"]) for line in lines] == [("CREATED", dates["opened_at"]), (kind, dates["closed_at"])]
    assert [line["seconds_in_previous"] for line in lines] == [None, 60 * 86_400 + 12 * 3600]


@pytest.mark.parametrize(
    ("stage", "dates", "code"),
    [
        ("Lead", {"closed_at": -1}, "not_closed"),
        ("Lead", {"opened_at": 1}, "opened_at_range"),
        ("Closed Won", {"closed_at": 1}, "closed_at_range"),
        ("Closed Won", {"opened_at": -1, "closed_at": -2}, "closed_at_range"),
    ],
)
async def test_dates_that_cannot_be_are_refused(owner_a: Person, stage: str, dates: dict[str, int], code: str) -> None:
    _, stages = await pipeline(owner_a)
    days = {name: (datetime.now(UTC) + timedelta(days=offset)).isoformat() for name, offset in dates.items()}
    company = (await made(owner_a, "/api/v1/accounts", name="Acme"))["id"]
    sent = {"name": "Deal", "account_id": company, "stage_id": stages[stage], **days}
    assert await refusal(owner_a, DEALS, **sent) == (422, code)


async def test_a_move_takes_over_the_stages_numbers(owner_a: Person) -> None:
    _, stages = await pipeline(owner_a)
    row = await deal(owner_a, stage_id=stages["Lead"], amount_minor=999)
    moved = await done(owner_a, row, "move", to_stage_id=stages["Negotiation"], note="they like it")
    assert (moved["probability"], moved["weighted_minor"], moved["forecast_category"]) == (75, 749, "COMMIT")
    line = (await history(owner_a, row))[-1]
    assert (line["kind"], line["from_probability"], line["to_probability"], line["amount_at"]) == ("MOVED", 10, 75, 999)
    assert (line["note"], line["changed_by_id"]) == ("they like it", owner_a.id)


async def test_a_probability_somebody_set_survives_moves_and_not_the_end(owner_a: Person) -> None:
    _, stages = await pipeline(owner_a)
    row = await deal(owner_a, stage_id=stages["Lead"], probability=42)
    assert (await done(owner_a, row, "move", to_stage_id=stages["Proposal"]))["probability"] == 42
    assert (await done(owner_a, row, "win"))["probability"] == 100
    assert (await done(owner_a, row, "reopen"))["probability"] == 10


async def test_each_stay_is_measured_from_the_stage_before(owner_a: Person, call_as: CallMaker, registry: Registry) -> None:
    _, stages = await pipeline(owner_a)
    deals = registry["opportunities"]
    move = next(action for action in deals.actions if action.name == "move")
    async with call_as(owner_a) as call:
        with call.at(call.now - timedelta(days=10)):
            row = await operations.create(call, deals, {"name": "Deal", "stage_id": stages["Lead"]})
        for days, name in ((7, "Qualified"), (2, "Proposal")):
            with call.at(call.now - timedelta(days=days)):
                await operations.act(call, deals, move, {"to_stage_id": stages[name]}, row_id=row.id)
    lines = await history(owner_a, {"id": str(row.id)})
    assert [line["seconds_in_previous"] for line in lines] == [None, 3 * 86_400, 5 * 86_400]
    stays = (await owner_a.client.get(f"{DEALS}/{row.id}/journey")).json()["items"]
    assert [stay["seconds"] // 86_400 for stay in stays] == [3, 5, 2]


async def test_the_same_stage_changes_only_the_place_on_the_board(owner_a: Person) -> None:
    pipeline_id, stages = await pipeline(owner_a)
    first, second, third = [await deal(owner_a, name=name, stage_id=stages["Lead"]) for name in ("1", "2", "3")]
    await done(owner_a, third, "move", to_stage_id=stages["Lead"], after_id=first["id"], before_id=second["id"])
    columns = (await owner_a.client.get(f"{DEALS}/reports/board", params={"pipeline_id": pipeline_id})).json()["items"]
    assert [card["name"] for card in columns[0]["cards"]] == ["1", "3", "2"]
    assert await kinds(owner_a, third) == ["CREATED"]


async def test_a_card_is_placed_only_beside_cards_of_its_stage(owner_a: Person) -> None:
    _, stages = await pipeline(owner_a)
    row, other = [await deal(owner_a, stage_id=stages[name]) for name in ("Lead", "Qualified")]
    last = await deal(owner_a, stage_id=stages["Lead"])
    path = f"{DEALS}/{row['id']}/move"
    assert await refusal(owner_a, path, to_stage_id=stages["Lead"], after_id=other["id"]) == (422, "not_in_stage")
    wrong = {"after_id": last["id"], "before_id": row["id"]}
    assert await refusal(owner_a, path, to_stage_id=stages["Lead"], **wrong) == (409, "board_changed")


async def test_a_win_makes_customers(owner_a: Person) -> None:
    person = await made(owner_a, "/api/v1/contacts", first_name="Ann")
    row = await deal(owner_a, amount_minor=700, contacts=[{"contact_id": person["id"]}])
    won = await done(owner_a, row, "win", note="signed")
    assert (won["status"], won["probability"], won["weighted_minor"], won["forecast_category"]) == ("WON", 100, 700, "CLOSED")
    company = (await owner_a.client.get(f"/api/v1/accounts/{row['account_id']}")).json()
    contact = (await owner_a.client.get(f"/api/v1/contacts/{person['id']}")).json()
    assert (company["type"], contact["lifecycle"]) == ("CUSTOMER", "CUSTOMER")


async def test_a_partner_stays_one_when_it_buys(owner_a: Person) -> None:
    company = await made(owner_a, "/api/v1/accounts", name="Partner", type="PARTNER")
    await done(owner_a, await deal(owner_a, account_id=company["id"]), "win")
    assert (await owner_a.client.get(f"/api/v1/accounts/{company['id']}")).json()["type"] == "PARTNER"


async def test_a_loss_keeps_its_reason_until_the_deal_is_reopened(owner_a: Person) -> None:
    rival = await made(owner_a, "/api/v1/accounts", name="Rival", type="COMPETITOR")
    row = await deal(owner_a)
    lost = await done(owner_a, row, "lose", reason="price", detail="half of ours", competitor_account_id=rival["id"])
    found = tuple(lost[name] for name in ("status", "probability", "lost_reason", "lost_detail", "competitor_account_id"))
    assert found == ("LOST", 0, "price", "half of ours", rival["id"])
    back = await done(owner_a, row, "reopen", note="they called")
    assert (back["status"], back["closed_at"], back["lost_reason"], back["lost_detail"]) == ("OPEN", None, None, None)
    assert await kinds(owner_a, row) == ["CREATED", "LOST", "REOPENED"]


async def test_a_deal_goes_on_in_another_pipeline(owner_a: Person) -> None:
    pipeline_id, stages = await pipeline(owner_a)
    row = await deal(owner_a)
    changed = await done(owner_a, row, "change-pipeline", pipeline_id=pipeline_id, stage_id=stages["Proposal"])
    assert (changed["pipeline_id"], changed["stage_id"], changed["probability"]) == (pipeline_id, stages["Proposal"], 50)
    assert await kinds(owner_a, row) == ["CREATED", "PIPELINE_CHANGED"]


REFUSALS: list[tuple[str, str, dict[str, Any], tuple[int, str]]] = [
    ("OPEN", "move", {"to_stage_id": "Closed Lost"}, (422, "lost_reason_required")),
    ("OPEN", "move", {"to_stage_id": "Closed Lost", "lost_reason": "  "}, (422, "lost_reason_required")),
    ("OPEN", "lose", {}, (422, "invalid")),
    ("OPEN", "lose", {"reason": "  "}, (422, "invalid")),
    ("OPEN", "lose", {"reason": "price", "stage_id": "Closed Won"}, (422, "not_lost_stage")),
    ("OPEN", "lose", {"reason": "price", "closed_at": "2020-01-01T00:00:00Z"}, (422, "closed_at_range")),
    ("OPEN", "win", {"stage_id": "Lead"}, (422, "not_won_stage")),
    ("OPEN", "win", {"closed_at": "2999-01-01T00:00:00Z"}, (422, "closed_at_range")),
    ("OPEN", "reopen", {}, (409, "deal_open")),
    ("OPEN", "change-pipeline", {"pipeline_id": "same"}, (409, "same_pipeline")),
    ("WON", "win", {}, (409, "deal_closed")),
    ("WON", "move", {"to_stage_id": "Second Won"}, (409, "no_such_move")),
    ("WON", "reopen", {"stage_id": "Closed Lost"}, (422, "not_open_stage")),
    ("WON", "change-pipeline", {"pipeline_id": "other"}, (409, "deal_closed")),
    ("LOST", "lose", {"reason": "again"}, (409, "deal_closed")),
]


@pytest.mark.parametrize(("status", "action", "body", "expected"), REFUSALS)
async def test_what_cannot_happen_to_a_deal_is_refused_and_leaves_no_trace(
    owner_a: Person, status: str, action: str, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    pipeline_id, stages = await pipeline(owner_a)
    second = {"name": "Second Won", "type": "WON", "position": 50}
    stages["Second Won"] = (await made(owner_a, f"/api/v1/pipelines/{pipeline_id}/stages", **second))["id"]
    row = await deal(owner_a, stage_id=stages["Lead"])
    if status != "OPEN":
        row = await done(owner_a, row, {"WON": "win", "LOST": "lose"}[status], **({"reason": "x"} if status == "LOST" else {}))
    ids = {**stages, "same": pipeline_id, "other": (await pipeline(owner_a))[0]}
    sent = {name: ids.get(value, value) for name, value in body.items()}
    before = await kinds(owner_a, row)
    assert await refusal(owner_a, f"{DEALS}/{row['id']}/{action}", **sent) == expected
    assert (await owner_a.client.get(f"{DEALS}/{row['id']}")).json() == row
    assert await kinds(owner_a, row) == before


async def test_a_deal_without_an_account_cannot_be_won(member_a: Person) -> None:
    row = await deal(member_a, account=False)
    assert await refusal(member_a, f"{DEALS}/{row['id']}/win") == (409, "account_required")
    assert await kinds(member_a, row) == ["CREATED"]


async def test_a_closed_deal_is_opened_by_its_owner_and_turned_by_an_administrator(
    owner_a: Person, member_a: Person, admin_a: Person
) -> None:
    own, foreign = await deal(member_a), await deal(owner_a)
    for row in (own, foreign):
        await done(member_a, row, "win")
    assert await refusal(member_a, f"{DEALS}/{foreign['id']}/reopen") == (403, "permission_denied")
    assert await refusal(member_a, f"{DEALS}/{own['id']}/lose", reason="x") == (403, "permission_denied")
    assert (await done(member_a, own, "reopen"))["status"] == "OPEN"
    assert (await done(admin_a, foreign, "lose", reason="never paid"))["status"] == "LOST"


async def test_a_viewer_changes_no_deal(owner_a: Person, viewer_a: Person) -> None:
    row = await deal(owner_a)
    for action, body in (("win", {}), ("lose", {"reason": "x"}), ("reassign", {"owner_user_id": viewer_a.id})):
        assert await refusal(viewer_a, f"{DEALS}/{row['id']}/{action}", **body) == (403, "permission_denied")
    assert (await viewer_a.client.get(f"{DEALS}/{row['id']}")).json() == row


async def test_two_wins_at_once_leave_one_history_row(owner_a: Person) -> None:
    row = await deal(owner_a)
    answers = await asyncio.gather(*(owner_a.client.post(f"{DEALS}/{row['id']}/win") for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert next(a.json()["code"] for a in answers if a.status_code == 409) == "deal_closed"
    assert await kinds(owner_a, row) == ["CREATED", "WON"]


async def test_numbers_are_dense_and_each_tenants_own(make_tenant: TenantMaker, database: Database, registry: Registry) -> None:
    (one, one_owner), (other, other_owner) = await make_tenant("counts"), await make_tenant("counts-too")
    found: dict[str, list[int]] = {"one": [], "other": []}
    for name, tenant, principal in [("one", one, one_owner)] * 3 + [("other", other, other_owner)] * 2:
        async with open_call(database, registry, tenant, principal) as call:
            for broken in (True, False):
                items = [{"name": "Deal", **({"currency": "XXX", "amount_minor": 1} if broken else {})}]
                await operations.bulk(call, registry["opportunities"], "create", items)
            row = await operations.create(call, registry["opportunities"], {"name": "Deal"})
            found[name].append(row.number)
    assert found == {"one": [2, 4, 6], "other": [2, 4]}


async def test_the_same_import_twice_changes_nothing(owner_a: Person, call_as: CallMaker) -> None:
    _, stages = await pipeline(owner_a)
    person = await made(owner_a, "/api/v1/contacts", first_name="Ann")
    company = await made(owner_a, "/api/v1/accounts", name="Acme")
    body = {
        "name": "Deal",
        "account_id": company["id"],
        "stage_id": stages["Closed Won"],
        "opened_at": "2026-01-01T00:00:00Z",
        "closed_at": "2026-03-01T00:00:00Z",
        "lines": [{"name": "Seats", "unit_price_minor": 333, "quantity": "2.5"}],
        "contacts": [{"contact_id": person["id"], "role": "CHAMPION"}],
        "tags": ["VIP"],
    }
    row = await made(owner_a, **body)
    again = await owner_a.client.patch(f"{DEALS}/{row['id']}", json=body)
    assert again.json() == row
    async with call_as(owner_a) as call:
        of_row = AuditEntry.entity_id.in_([row["id"], person["id"], company["id"]])
        verbs = await call.session.scalars(select(AuditEntry.verb).where(of_row, AuditEntry.entity == "opportunity"))
        assert verbs.all() == ["create"]
    assert await kinds(owner_a, row) == ["CREATED", "WON"]


async def foreign_ids(person: Person) -> dict[str, str]:
    """Return one id of each kind a deal may name, all of this person's tenant."""
    pipeline_id, stages = await pipeline(person)
    row = await deal(person, stage_id=stages["Lead"])
    contact = await made(person, "/api/v1/contacts", first_name="Theirs")
    return {
        "pipeline": pipeline_id,
        **{name: stages[name] for name in ("Lead", "Closed Won", "Closed Lost")},
        "account": row["account_id"],
        "contact": contact["id"],
        "member": person.id,
        "deal": row["id"],
    }


async def test_foreign_ids_are_answered_like_unknown_ones(owner_a: Person, owner_b: Person) -> None:
    theirs = await foreign_ids(owner_b)
    own = await deal(owner_a)
    path, here = f"{DEALS}/{own['id']}", own["stage_id"]
    tried: list[tuple[str, str, str, Any]] = [
        ("POST", f"{path}/move", "Lead", {"to_stage_id": "?"}),
        ("POST", f"{path}/move", "deal", {"to_stage_id": here, "after_id": "?"}),
        ("POST", f"{path}/move", "deal", {"to_stage_id": here, "before_id": "?"}),
        ("POST", f"{path}/win", "Closed Won", {"stage_id": "?"}),
        ("POST", f"{path}/lose", "Closed Lost", {"reason": "x", "stage_id": "?"}),
        ("POST", f"{path}/lose", "account", {"reason": "x", "competitor_account_id": "?"}),
        ("POST", f"{path}/change-pipeline", "pipeline", {"pipeline_id": "?"}),
        ("POST", f"{path}/change-pipeline", "Lead", {"pipeline_id": (await pipeline(owner_a))[0], "stage_id": "?"}),
        ("POST", f"{path}/reassign", "member", {"owner_user_id": "?"}),
        ("POST", f"{path}/contacts", "contact", {"contact_id": "?"}),
    ]
    for field, kind in (("pipeline_id", "pipeline"), ("stage_id", "Closed Won"), ("account_id", "account")):
        tried += [(method, place, kind, {"name": "Deal", field: "?"}) for method, place in (("POST", DEALS), ("PATCH", path))]
    for field, kind in (("competitor_account_id", "account"), ("owner_user_id", "member")):
        tried += [(method, place, kind, {"name": "Deal", field: "?"}) for method, place in (("POST", DEALS), ("PATCH", path))]
    tried += [(m, place, "contact", {"name": "D", "contacts": ["?"]}) for m, place in (("POST", DEALS), ("PATCH", path))]
    for method, place, kind, body in tried:
        answers = [
            await owner_a.client.request(method, place, json=filled(body, found)) for found in (theirs[kind], str(uuid4()))
        ]
        assert answers[0].content == answers[1].content, (method, place, body)
        assert (answers[0].status_code, answers[0].json()["code"]) == (422, "reference_not_found"), (method, place, body)
    assert (await owner_a.client.get(path)).json() == own


def filled(body: dict[str, Any], found: str) -> dict[str, Any]:
    values = {name: found if value == "?" else value for name, value in body.items()}
    return {**values, "contacts": [{"contact_id": found}]} if "contacts" in values else values

"""Pipelines and stages: always complete, in an order, one of them the default."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from cast import Person

PIPELINES = "/api/v1/pipelines"
DEALS = "/api/v1/opportunities"


async def made(person: Person, path: str = PIPELINES, **body: Any) -> dict[str, Any]:
    answer = await person.client.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def refusal(person: Person, method: str, path: str, **body: Any) -> tuple[int, str]:
    answer = await person.client.request(method, path, json=body or None)
    return answer.status_code, answer.json().get("code", "")


async def pipeline(person: Person, **body: Any) -> dict[str, Any]:
    return await made(person, **{"name": f"Pipeline {uuid4()}", **body})


def path_of(row: dict[str, Any], more: str = "") -> str:
    return f"{PIPELINES}/{row['id']}{more}"


async def stages_of(person: Person, row: dict[str, Any]) -> list[dict[str, Any]]:
    return (await person.client.get(path_of(row, "/stages"))).json()["items"]


async def by_name(person: Person, row: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["id"] for stage in await stages_of(person, row)}


async def defaults(person: Person) -> list[str]:
    items = (await person.client.get(PIPELINES, params={"is_default": "true"})).json()["items"]
    return [item["id"] for item in items]


@pytest.fixture
async def default(owner_a: Person) -> AsyncIterator[str]:
    """The tenant's default pipeline, which is the default again after the test."""
    (found,) = await defaults(owner_a)
    yield found
    await made(owner_a, f"{PIPELINES}/{found}/make-default")


async def test_a_new_pipeline_has_the_usual_stages(admin_a: Person) -> None:
    row = await pipeline(admin_a)
    found = [(stage["position"], stage["type"], stage["probability"]) for stage in await stages_of(admin_a, row)]
    assert found == [(1, "OPEN", 10), (2, "OPEN", 25), (3, "OPEN", 50), (4, "OPEN", 75), (5, "WON", 100), (6, "LOST", 0)]
    assert (row["is_default"], row["is_active"]) == (False, True)


async def test_a_pipeline_may_come_with_its_own_stages(admin_a: Person) -> None:
    stages = [{"name": "Talk", "probability": 30}, {"name": "Yes", "type": "WON"}, {"name": "No", "type": "LOST"}]
    found = await stages_of(admin_a, await pipeline(admin_a, stages=stages))
    assert [(s["name"], s["forecast_category"]) for s in found] == [("Talk", "PIPELINE"), ("Yes", "CLOSED"), ("No", "OMITTED")]


@pytest.mark.parametrize("missing", ["OPEN", "WON", "LOST"])
async def test_an_active_pipeline_has_a_stage_of_each_type(admin_a: Person, missing: str) -> None:
    stages = [{"name": kind, "type": kind} for kind in ("OPEN", "WON", "LOST") if kind != missing]
    body = {"name": f"P {uuid4()}", "stages": stages}
    assert await refusal(admin_a, "POST", PIPELINES, **body) == (409, "pipeline_incomplete")
    resting = await made(admin_a, **body, is_active=False)
    assert await refusal(admin_a, "PATCH", path_of(resting), is_active=True) == (409, "pipeline_incomplete")


async def test_only_an_administrator_changes_pipelines(member_a: Person, admin_a: Person) -> None:
    row = await pipeline(admin_a)
    stage = (await stages_of(admin_a, row))[0]
    for method, path, body in (
        ("POST", PIPELINES, {"name": "Mine"}),
        ("PATCH", path_of(row), {"name": "Mine"}),
        ("POST", path_of(row, "/make-default"), {}),
        ("POST", path_of(row, "/reorder-stages"), {"stage_ids": [stage["id"]]}),
        ("POST", path_of(row, "/stages"), {"name": "Mine", "position": 9}),
        ("DELETE", path_of(row, f"/stages/{stage['id']}"), {}),
    ):
        assert await refusal(member_a, method, path, **body) == (403, "permission_denied")


async def test_stages_are_put_into_another_order(admin_a: Person) -> None:
    row = await pipeline(admin_a)
    wanted = [stage["id"] for stage in reversed(await stages_of(admin_a, row))]
    await made(admin_a, path_of(row, "/reorder-stages"), stage_ids=wanted)
    found = await stages_of(admin_a, row)
    assert [(stage["id"], stage["position"]) for stage in found] == [(stage_id, n) for n, stage_id in enumerate(wanted, start=1)]


async def test_the_same_order_again_changes_nothing(admin_a: Person) -> None:
    row = await pipeline(admin_a)
    before = await stages_of(admin_a, row)
    again = await made(admin_a, path_of(row, "/reorder-stages"), stage_ids=[stage["id"] for stage in before])
    assert (again, await stages_of(admin_a, row)) == (row, before)


async def test_an_order_names_every_stage_of_the_pipeline_once(admin_a: Person, owner_b: Person) -> None:
    row, other = await pipeline(admin_a), await pipeline(admin_a)
    ids = [stage["id"] for stage in await stages_of(admin_a, row)]
    foreign = (await stages_of(owner_b, await pipeline(owner_b)))[0]["id"]
    near = (await stages_of(admin_a, other))[0]["id"]
    answers = set()
    for wrong in (
        ids[:-1],
        [*ids, ids[0]],
        [*ids[:-1], ids[0]],
        [*ids[:-1], near],
        [*ids[:-1], foreign],
        [*ids[:-1], str(uuid4())],
    ):
        answer = await admin_a.client.post(path_of(row, "/reorder-stages"), json={"stage_ids": wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "stages_differ")
        answers.add(answer.content)
    assert len(answers) == 1
    assert [stage["id"] for stage in await stages_of(admin_a, row)] == ids


async def test_another_pipeline_becomes_the_default(owner_a: Person, default: str) -> None:
    row = await pipeline(owner_a)
    assert (await made(owner_a, path_of(row, "/make-default")))["is_default"] is True
    assert await defaults(owner_a) == [row["id"]]
    assert (await made(owner_a, DEALS, name="Deal"))["pipeline_id"] == row["id"]


async def test_two_new_defaults_at_once_leave_one(owner_a: Person, default: str) -> None:
    rows = [await pipeline(owner_a) for _ in range(2)]
    answers = await asyncio.gather(*(owner_a.client.post(path_of(row, "/make-default")) for row in rows))
    assert {answer.status_code for answer in answers} <= {200, 409, 503}
    assert len(await defaults(owner_a)) == 1


async def test_the_default_pipeline_stays_in_use(owner_a: Person, default: str) -> None:
    path = f"{PIPELINES}/{default}"
    for method, place, body in (("PATCH", path, {"is_active": False}), ("POST", f"{path}/archive", {}), ("DELETE", path, {})):
        assert await refusal(owner_a, method, place, **body) == (409, "default_pipeline")
    assert await defaults(owner_a) == [default]


async def test_a_pipeline_at_rest_is_no_default_and_takes_no_deals(admin_a: Person) -> None:
    row = await pipeline(admin_a)
    assert (await admin_a.client.patch(path_of(row), json={"is_active": False})).status_code == 200
    assert await refusal(admin_a, "POST", path_of(row, "/make-default")) == (409, "pipeline_inactive")
    assert await refusal(admin_a, "POST", DEALS, name="Deal", pipeline_id=row["id"]) == (409, "pipeline_inactive")


async def test_an_archived_pipeline_takes_no_deals_either(admin_a: Person) -> None:
    row = await pipeline(admin_a)
    await made(admin_a, path_of(row, "/archive"))
    assert await refusal(admin_a, "POST", path_of(row, "/make-default")) == (409, "archived")
    assert await refusal(admin_a, "POST", DEALS, name="Deal", pipeline_id=row["id"]) == (422, "reference_not_found")


async def test_a_pipeline_with_open_deals_stays(admin_a: Person) -> None:
    row = await pipeline(admin_a)
    company = await made(admin_a, "/api/v1/accounts", name="Acme")
    deal = await made(admin_a, DEALS, name="Deal", pipeline_id=row["id"], account_id=company["id"])
    for method, more, body in (("PATCH", "", {"is_active": False}), ("POST", "/archive", {}), ("DELETE", "", {})):
        assert await refusal(admin_a, method, path_of(row, more), **body) == (409, "has_dependents")
    await made(admin_a, f"{DEALS}/{deal['id']}/win")
    assert await refusal(admin_a, "DELETE", path_of(row)) == (409, "has_dependents")
    assert (await admin_a.client.post(path_of(row, "/archive"))).status_code == 200


async def test_a_stage_with_deals_or_their_history_stays(admin_a: Person) -> None:
    row = await pipeline(admin_a)
    stages = await by_name(admin_a, row)
    deal = await made(admin_a, DEALS, name="Deal", stage_id=stages["Lead"])
    lead = path_of(row, f"/stages/{stages['Lead']}")
    assert await refusal(admin_a, "DELETE", lead) == (409, "has_dependents")
    assert await refusal(admin_a, "PATCH", lead, type="WON") == (409, "has_dependents")
    await made(admin_a, f"{DEALS}/{deal['id']}/move", to_stage_id=stages["Proposal"])
    assert await refusal(admin_a, "DELETE", lead) == (409, "has_dependents")
    assert (await admin_a.client.delete(path_of(row, f"/stages/{stages['Qualified']}"))).status_code == 204


@pytest.mark.parametrize("name", ["Closed Won", "Closed Lost"])
async def test_the_last_stage_of_a_type_stays(admin_a: Person, name: str) -> None:
    row = await pipeline(admin_a)
    stage = path_of(row, f"/stages/{(await by_name(admin_a, row))[name]}")
    assert await refusal(admin_a, "DELETE", stage) == (409, "pipeline_incomplete")
    assert await refusal(admin_a, "PATCH", stage, type="OPEN") == (409, "pipeline_incomplete")
    assert len(await stages_of(admin_a, row)) == 6


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"position": 2}, (409, "duplicate")),
        ({"name": "Lead"}, (409, "duplicate")),
        ({"type": "WON", "probability": 5}, (422, "stage_probability")),
        ({"type": "LOST", "probability": 5}, (422, "stage_probability")),
        ({"required_fields": ["salary"]}, (422, "unknown_required_field")),
        ({"required_fields": ["tenant_id"]}, (422, "unknown_required_field")),
    ],
)
async def test_a_stage_that_cannot_be_is_refused(admin_a: Person, body: dict[str, Any], expected: tuple[int, str]) -> None:
    row = await pipeline(admin_a)
    assert await refusal(admin_a, "POST", path_of(row, "/stages"), **{"name": "New", "position": 40, **body}) == expected
    assert len(await stages_of(admin_a, row)) == 6


async def test_a_stage_that_becomes_a_win_takes_over_its_numbers(admin_a: Person) -> None:
    row = await pipeline(admin_a)
    stage = path_of(row, f"/stages/{(await by_name(admin_a, row))['Negotiation']}")
    changed = (await admin_a.client.patch(stage, json={"type": "WON"})).json()
    assert (changed["type"], changed["probability"], changed["forecast_category"]) == ("WON", 100, "CLOSED")


async def test_a_stage_is_entered_only_with_what_it_asks_for(admin_a: Person) -> None:
    row = await pipeline(admin_a)
    stages = await by_name(admin_a, row)
    needs = {"required_fields": ["next_step", "amount_minor", "expected_close_date"]}
    await admin_a.client.patch(path_of(row, f"/stages/{stages['Proposal']}"), json=needs)
    deal = await made(admin_a, DEALS, name="Deal", stage_id=stages["Lead"], amount_minor=0)
    path, there = f"{DEALS}/{deal['id']}", {"to_stage_id": stages["Proposal"]}
    answer = await admin_a.client.post(f"{path}/move", json=there)
    assert (answer.status_code, answer.json()["code"]) == (422, "stage_requirements")
    assert [fault["field"] for fault in answer.json()["errors"]] == ["next_step", "expected_close_date"]
    assert await refusal(admin_a, "POST", DEALS, name="Deal", stage_id=stages["Proposal"]) == (422, "stage_requirements")
    assert await refusal(admin_a, "PATCH", path, stage_id=stages["Proposal"]) == (422, "stage_requirements")
    await admin_a.client.patch(path, json={"next_step": "call", "expected_close_date": "2027-01-31"})
    assert (await made(admin_a, f"{path}/move", **there))["stage_id"] == stages["Proposal"]

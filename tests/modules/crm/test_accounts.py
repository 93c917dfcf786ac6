"""Accounts: whom they belong to, what follows from what was typed, and a hierarchy that stays a tree."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from cast import CallMaker, Person
from rowhouse.core import operations
from rowhouse.core.audit import AuditEntry
from rowhouse.core.errors import Conflict
from rowhouse.core.resource import Registry
from rowhouse.modules.crm.rules import DEEPEST_HIERARCHY

ACCOUNTS = "/api/v1/accounts"


async def made(person: Person, path: str = ACCOUNTS, **body: Any) -> dict[str, Any]:
    answer = await person.client.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def account(person: Person, name: str = "Acme", **body: Any) -> dict[str, Any]:
    return await made(person, name=name, **body)


async def read(person: Person, row: dict[str, Any]) -> dict[str, Any]:
    return (await person.client.get(f"{ACCOUNTS}/{row['id']}")).json()


async def put_below(person: Person, row: dict[str, Any], parent: dict[str, Any]) -> tuple[int, str]:
    answer = await person.client.patch(f"{ACCOUNTS}/{row['id']}", json={"parent_account_id": parent["id"]})
    return answer.status_code, answer.json().get("code", "")


async def chain(person: Person, length: int) -> list[dict[str, Any]]:
    """Make accounts that stand one below another, topmost first."""
    found: list[dict[str, Any]] = []
    for level in range(length):
        above = {"parent_account_id": found[-1]["id"]} if found else {}
        found.append(await account(person, f"Level {level}", **above))
    return found


async def test_a_new_account_is_its_makers_prospect(member_a: Person) -> None:
    row = await account(member_a)
    assert (row["owner_user_id"], row["type"], row["version"]) == (member_a.id, "PROSPECT", 1)


async def test_a_new_account_may_belong_to_another_member(member_a: Person, admin_a: Person) -> None:
    row = await account(member_a, owner_user_id=admin_a.id)
    assert row["owner_user_id"] == admin_a.id


async def test_what_follows_from_the_input_is_filled_in(member_a: Person) -> None:
    row = await account(member_a, employee_count=12, annual_revenue_minor=5_000, tags=["VIP", " vip ", "EU"])
    assert (row["employee_band"], row["currency"], row["tags"]) == ("SMALL", member_a.tenant.currency, ["vip", "eu"])


async def test_a_website_that_is_none_is_refused(member_a: Person) -> None:
    answer = await member_a.client.post(ACCOUNTS, json={"name": "Acme", "website": "javascript://acme.com"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_website")
    assert answer.json()["errors"][0]["field"] == "website"


async def test_the_same_values_again_change_nothing(member_a: Person, call_as: CallMaker) -> None:
    body = {
        "name": "Acme GmbH",
        "website": "https://acme.example",
        "tags": ["VIP"],
        "employee_count": 7,
        "phone": "+49 30 123456",
    }
    row = await made(member_a, **body)
    again = await member_a.client.patch(f"{ACCOUNTS}/{row['id']}", json=body)
    assert again.json() == row
    async with call_as(member_a) as call:
        verbs = await call.session.scalars(select(AuditEntry.verb).where(AuditEntry.entity_id == row["id"]))
        assert verbs.all() == ["create"]


@pytest.mark.parametrize("levels", [1, 2, 5])
async def test_an_account_cannot_stand_below_itself(owner_a: Person, levels: int) -> None:
    line = await chain(owner_a, levels)
    assert await put_below(owner_a, line[0], line[-1]) == (409, "hierarchy_cycle")
    assert (await read(owner_a, line[0]))["parent_account_id"] is None


async def test_ten_levels_are_the_most(owner_a: Person) -> None:
    line = await chain(owner_a, DEEPEST_HIERARCHY)
    answer = await owner_a.client.post(ACCOUNTS, json={"name": "Eleventh", "parent_account_id": line[-1]["id"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "hierarchy_too_deep")
    assert (await read(owner_a, line[-1]))["parent_account_id"] == line[-2]["id"]


async def test_a_whole_branch_counts_when_it_moves(owner_a: Person) -> None:
    top, branch = await chain(owner_a, 6), await chain(owner_a, 5)
    assert await put_below(owner_a, branch[0], top[-1]) == (409, "hierarchy_too_deep")
    assert (await put_below(owner_a, branch[0], top[-2]))[0] == 200


async def test_two_moves_at_once_close_no_cycle(owner_a: Person) -> None:
    one, other = await account(owner_a, "One"), await account(owner_a, "Other")
    answers = await asyncio.gather(put_below(owner_a, one, other), put_below(owner_a, other, one))
    # The loser waited and was told so, or both waited for each other and it may try again.
    assert sorted(status for status, _ in answers)[0] == 200
    assert sorted(status for status, _ in answers)[1] in (409, 503), answers
    parents = [(await read(owner_a, row))["parent_account_id"] for row in (one, other)]
    assert sorted(parent is None for parent in parents) == [False, True]


async def test_deferred_moves_count_what_is_not_written_yet(owner_a: Person, call_as: CallMaker, registry: Registry) -> None:
    rows = [await account(owner_a, f"Loose {number}") for number in range(DEEPEST_HIERARCHY + 1)]

    async def stack() -> None:
        async with call_as(owner_a) as call, call.deferred():
            # From the bottom up, so that each one moved has a longer and longer branch below it.
            for above, below in zip(reversed(rows[:-1]), reversed(rows[1:]), strict=True):
                await operations.update(call, registry["accounts"], below["id"], {"parent_account_id": above["id"]})

    with pytest.raises(Conflict) as refused:
        await stack()
    assert refused.value.code == "hierarchy_too_deep"


async def test_a_groups_value_is_summed_up_the_tree(owner_a: Person) -> None:
    top, middle, leaf = await chain(owner_a, 3)
    for row, amount in ((top, 1), (middle, 20), (leaf, 300)):
        deal = await made(owner_a, "/api/v1/opportunities", name="D", account_id=row["id"], amount_minor=amount)
        if row is leaf:
            await made(owner_a, f"/api/v1/opportunities/{deal['id']}/win")
    lines = (await owner_a.client.get(f"{ACCOUNTS}/{middle['id']}/hierarchy")).json()["items"]
    found = [(line["id"], line["level"], line["group_open_minor"], line["group_won_minor"]) for line in lines]
    assert found == [(top["id"], -1, 21, 300), (middle["id"], 0, 20, 300), (leaf["id"], 1, 0, 300)]


async def test_an_archived_account_takes_no_new_deal(owner_a: Person) -> None:
    row = await account(owner_a)
    await made(owner_a, f"{ACCOUNTS}/{row['id']}/archive")
    answer = await owner_a.client.post("/api/v1/opportunities", json={"name": "Deal", "account_id": row["id"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "reference_not_found")
    assert answer.json()["errors"][0]["field"] == "account_id"


async def test_an_account_with_deals_cannot_be_deleted(owner_a: Person) -> None:
    row = await account(owner_a)
    deal = await made(owner_a, "/api/v1/opportunities", name="Deal", account_id=row["id"])
    answer = await owner_a.client.delete(f"{ACCOUNTS}/{row['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "has_dependents")
    assert (await owner_a.client.get(f"/api/v1/opportunities/{deal['id']}")).json()["account_id"] == row["id"]


async def test_a_member_archives_only_own_accounts(owner_a: Person, member_a: Person) -> None:
    own, foreign = await account(member_a), await account(owner_a)
    statuses = [(await member_a.client.post(f"{ACCOUNTS}/{row['id']}/archive")).status_code for row in (own, foreign)]
    assert statuses == [200, 403]


async def test_likely_doubles_are_named_with_their_signs(owner_a: Person, owner_b: Person) -> None:
    body = {"name": "Twin Works, Inc.", "website": "https://www.twin-works.example", "phone": "+1 555 010 9999"}
    row, double = await made(owner_a, **body), await made(owner_a, **{**body, "name": "TWIN WORKS"})
    await made(owner_b, **body)
    items = (await owner_a.client.get(f"{ACCOUNTS}/{row['id']}/duplicates")).json()["items"]
    assert [(item["id"], item["score"], item["reasons"]) for item in items] == [(double["id"], 1.0, ["domain", "name", "phone"])]


async def test_the_timeline_tells_what_was_done_and_how_deals_went(owner_a: Person) -> None:
    row = await account(owner_a)
    deal = await made(owner_a, "/api/v1/opportunities", name="Deal", account_id=row["id"])
    await made(owner_a, f"/api/v1/opportunities/{deal['id']}/win")
    await made(owner_a, "/api/v1/activities/actions/log", type="CALL", subject="Thanks", account_id=row["id"])
    first = (await owner_a.client.get(f"{ACCOUNTS}/{row['id']}/timeline", params={"limit": 2})).json()
    more = {"before": first["next_before"], "before_id": first["next_before_id"]}
    second = (await owner_a.client.get(f"{ACCOUNTS}/{row['id']}/timeline", params=more)).json()
    assert [item["kind"] for item in first["items"] + second["items"]] == ["CALL", "WON", "CREATED"]
    assert second["next_before"] is None

"""Merging doubles: nothing is lost, everything follows, and it can be taken back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cast import CallMaker, Person
from rowhouse.core import operations
from rowhouse.core.errors import Conflict
from rowhouse.core.resource import Registry

API = "/api/v1"
# A version counts writes, and an undo is one more.
STAMPS = {"version", "updated_at", "updated_by_id"}


async def made(person: Person, path: str, **body: Any) -> dict[str, Any]:
    answer = await person.client.post(f"{API}/{path}", json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def refusal(person: Person, path: str, **body: Any) -> tuple[int, str]:
    answer = await person.client.post(f"{API}/{path}", json=body)
    return answer.status_code, answer.json().get("code", "")


async def read(person: Person, path: str) -> dict[str, Any]:
    return (await person.client.get(f"{API}/{path}")).json()


async def account(person: Person, **body: Any) -> dict[str, Any]:
    return await made(person, "accounts", **{"name": "Acme", **body})


async def contact(person: Person, **body: Any) -> dict[str, Any]:
    return await made(person, "contacts", **{"first_name": "Ann", **body})


async def merged(person: Person, kind: str, target: dict[str, Any], *sources: dict[str, Any], **choices: str) -> dict[str, Any]:
    return await made(person, f"{kind}/{target['id']}/merge", source_ids=[source["id"] for source in sources], choices=choices)


async def house(person: Person) -> dict[str, dict[str, Any]]:
    """Make a source account with one row of each kind that refers to it, and a target; return them by their paths."""
    source = await account(person, name="ACME Inc.", phone="+49 30 999 8888", tags=["b"], website="acme.example")
    target = await account(person, name="Acme", tags=["a"])
    below = await account(person, name="Below", parent_account_id=source["id"])
    people = [await contact(person, account_id=row["id"], is_primary=True) for row in (target, source)]
    deal = await made(person, "opportunities", name="Deal", account_id=source["id"], contacts=[{"contact_id": people[1]["id"]}])
    lost = await made(person, "opportunities", name="Lost", account_id=below["id"], competitor_account_id=source["id"])
    call = await made(person, "activities/actions/log", type="CALL", account_id=source["id"])
    return {
        f"accounts/{target['id']}": target,
        f"accounts/{source['id']}": source,
        f"accounts/{below['id']}": below,
        **{f"contacts/{row['id']}": row for row in people},
        **{f"opportunities/{row['id']}": row for row in (deal, lost)},
        f"activities/{call['id']}": call,
    }


async def state(person: Person, paths: Any) -> dict[str, dict[str, Any]]:
    rows = {path: await read(person, path) for path in paths}
    return {path: {name: value for name, value in row.items() if name not in STAMPS} for path, row in rows.items()}


async def test_everything_follows_the_source_into_the_target(admin_a: Person) -> None:
    rows = await house(admin_a)
    target, source, below, *_ = rows.values()
    found = await merged(admin_a, "accounts", target, source)
    after = await state(admin_a, rows)
    assert found["moved"] == {"account": 1, "crm_activity": 1, "crm_contact": 1, "opportunity": 2}
    kept, gone, child, own, new, deal, lost, call = after.values()
    assert (kept["phone"], kept["website"], kept["tags"]) == ("+49 30 999 8888", "acme.example", ["a", "b"])
    assert (gone["merged_into_id"], gone["archived_at"] is None) == (target["id"], False)
    followed = (child["parent_account_id"], new["account_id"], deal["account_id"], lost["competitor_account_id"])
    assert {*followed, call["account_id"]} == {target["id"]}
    assert (own["is_primary"], new["is_primary"]) == (True, False)
    assert (kept["last_activity_at"], lost["account_id"]) == (call["completed_at"], below["id"])


async def test_a_preview_says_what_the_merge_does_and_does_nothing(admin_a: Person) -> None:
    rows = await house(admin_a)
    target, source, *_ = rows.values()
    before = {path: await read(admin_a, path) for path in rows}
    body = {"source_ids": [source["id"]], "choices": {"name": source["id"]}}
    preview = await made(admin_a, f"accounts/{target['id']}/merge-preview", **body)
    assert {path: await read(admin_a, path) for path in rows} == before
    found = await made(admin_a, f"accounts/{target['id']}/merge", **body)
    assert {**found, "merge_id": None} == preview
    after = await read(admin_a, f"accounts/{target['id']}")
    assert {name: after[name] for name in preview["values"] if name in after} == {
        name: value for name, value in preview["values"].items() if name in after
    }


async def test_an_undo_restores_everything(admin_a: Person) -> None:
    rows = await house(admin_a)
    target, source, *_ = rows.values()
    before = await state(admin_a, rows)
    found = await merged(admin_a, "accounts", target, source, name=source["id"], tags="target")
    assert await state(admin_a, rows) != before
    undone = await made(admin_a, f"merges/{found['merge_id']}/undo")
    assert await state(admin_a, rows) == before
    assert (undone["undone_by_id"], undone["undone_at"] is None) == (admin_a.id, False)
    assert await refusal(admin_a, f"merges/{found['merge_id']}/undo") == (409, "merge_undone")


async def test_an_undo_brings_back_doubled_roles_with_their_content(admin_a: Person) -> None:
    one, other = await contact(admin_a, last_name="One"), await contact(admin_a, last_name="Other", do_not_contact=True)
    people = [{"contact_id": one["id"]}, {"contact_id": other["id"], "role": "CHAMPION", "is_primary": True}]
    deal = await made(admin_a, "opportunities", name="Deal", contacts=people)
    paths = [f"opportunities/{deal['id']}/contacts", f"contacts/{one['id']}", f"contacts/{other['id']}"]
    lines = [f"{paths[0]}/{line['id']}" for line in (await read(admin_a, paths[0]))["items"]]
    before = await state(admin_a, [*lines, *paths[1:]])
    found = await merged(admin_a, "contacts", one, other)
    (line,) = (await read(admin_a, paths[0]))["items"]
    assert (found["dropped"], line["contact_id"], line["is_primary"]) == ({"opportunity_contact": 1}, one["id"], True)
    assert (await read(admin_a, paths[1]))["do_not_contact"] is True
    await made(admin_a, f"merges/{found['merge_id']}/undo")
    assert await state(admin_a, [*lines, *paths[1:]]) == before


async def test_an_undo_names_what_was_changed_since(admin_a: Person) -> None:
    rows = await house(admin_a)
    target, source, *_ = rows.values()
    deal = next(row for path, row in rows.items() if path.startswith("opportunities") and row["name"] == "Deal")
    found = await merged(admin_a, "accounts", target, source)
    await admin_a.client.patch(f"{API}/opportunities/{deal['id']}", json={"next_step": "call"})
    before = await state(admin_a, rows)
    answer = await admin_a.client.post(f"{API}/merges/{found['merge_id']}/undo")
    assert (answer.status_code, answer.json()["code"]) == (409, "merge_undo_conflict")
    assert f"opportunity {deal['id']} was changed" in answer.json()["detail"]
    assert await state(admin_a, rows) == before


async def test_later_changes_elsewhere_on_the_target_survive_an_undo(admin_a: Person) -> None:
    source, target = await account(admin_a, phone="+49 30 1112223"), await account(admin_a)
    found = await merged(admin_a, "accounts", target, source)
    await admin_a.client.patch(f"{API}/accounts/{target['id']}", json={"industry": "Steel"})
    await made(admin_a, f"merges/{found['merge_id']}/undo")
    after = await read(admin_a, f"accounts/{target['id']}")
    assert (after["industry"], after["phone"]) == ("Steel", None)


async def test_an_activity_since_does_not_stop_an_undo(admin_a: Person) -> None:
    source, target = await account(admin_a), await account(admin_a)
    first = await made(admin_a, "activities/actions/log", type="CALL", account_id=source["id"])
    found = await merged(admin_a, "accounts", target, source)
    later = await made(admin_a, "activities/actions/log", type="CALL", account_id=target["id"])
    await made(admin_a, f"merges/{found['merge_id']}/undo")
    dates = [(await read(admin_a, f"accounts/{row['id']}"))["last_activity_at"] for row in (source, target)]
    assert dates == [first["completed_at"], later["completed_at"]]


async def test_a_merge_stays_after_thirty_days(admin_a: Person, call_as: CallMaker, registry: Registry) -> None:
    source, target = await account(admin_a), await account(admin_a)
    found = await merged(admin_a, "accounts", target, source)
    undo = registry["merges"].actions[0]

    async def late() -> None:
        async with call_as(admin_a) as call:
            with call.at(call.now + timedelta(days=31)):
                await operations.act(call, registry["merges"], undo, {}, row_id=UUID(found["merge_id"]))

    with pytest.raises(Conflict) as refused:
        await late()
    assert refused.value.code == "merge_undo_expired"


async def test_a_choice_decides_each_column(admin_a: Person) -> None:
    source = await account(admin_a, name="Theirs", industry="Steel", description="theirs")
    target = await account(admin_a, name="Ours", industry="Iron", description=None)
    found = await merged(admin_a, "accounts", target, source, industry=source["id"], description="target")
    assert {name: found["values"][name] for name in ("industry",)} == {"industry": "Steel"}
    after = await read(admin_a, f"accounts/{target['id']}")
    assert (after["name"], after["industry"], after["description"]) == ("Ours", "Steel", None)


@pytest.mark.parametrize("column", ["id", "tenant_id", "version", "archived_at", "merged_into_id", "owner", "name_norm"])
async def test_what_is_not_to_be_chosen_is_refused(admin_a: Person, column: str) -> None:
    source, target = await account(admin_a), await account(admin_a)
    body = {"source_ids": [source["id"]], "choices": {column: source["id"]}}
    for action in ("merge", "merge-preview"):
        assert await refusal(admin_a, f"accounts/{target['id']}/{action}", **body) == (422, "unknown_choice")


async def test_a_merge_that_cannot_be_is_refused(admin_a: Person) -> None:
    one, two, three = [await account(admin_a, name=name) for name in ("1", "2", "3")]
    assert await refusal(admin_a, f"accounts/{one['id']}/merge", source_ids=[one["id"]]) == (422, "own_source")
    assert await refusal(admin_a, f"accounts/{one['id']}/merge", source_ids=[]) == (422, "invalid")
    await merged(admin_a, "accounts", one, two)
    assert await refusal(admin_a, f"accounts/{three['id']}/merge", source_ids=[two["id"]]) == (409, "merged")
    assert await refusal(admin_a, f"accounts/{two['id']}/merge", source_ids=[three["id"]]) == (409, "archived")
    assert await refusal(admin_a, f"accounts/{two['id']}/restore") == (409, "merged")


async def test_only_an_administrator_merges_and_undoes(admin_a: Person, member_a: Person) -> None:
    source, target = await account(member_a), await account(member_a)
    for action in ("merge", "merge-preview"):
        found = await refusal(member_a, f"accounts/{target['id']}/{action}", source_ids=[source["id"]])
        assert found == (403, "permission_denied")
    merge = await merged(admin_a, "accounts", target, source)
    assert await refusal(member_a, f"merges/{merge['merge_id']}/undo") == (403, "permission_denied")


@pytest.mark.parametrize("kind", ["accounts", "contacts"])
async def test_foreign_ids_are_answered_like_unknown_ones(owner_a: Person, owner_b: Person, kind: str) -> None:
    make = account if kind == "accounts" else contact
    target, source, foreign = await make(owner_a), await make(owner_a), await make(owner_b)
    for action in ("merge", "merge-preview"):
        path = f"{API}/{kind}/{target['id']}/{action}"
        for make_body in (
            lambda found: {"source_ids": [found]},
            lambda found: {"source_ids": [source["id"], found]},
            lambda found: {"source_ids": [source["id"]], "choices": {"description": found}},
        ):
            answers = [await owner_a.client.post(path, json=make_body(found)) for found in (foreign["id"], str(uuid4()))]
            assert answers[0].content == answers[1].content
            assert answers[0].json()["code"] in ("reference_not_found", "unknown_choice")
    assert await read(owner_a, f"{kind}/{source['id']}") == source
    assert await read(owner_b, f"{kind}/{foreign['id']}") == foreign


async def test_a_target_below_its_source_moves_up(admin_a: Person) -> None:
    top = await account(admin_a, name="Top")
    source = await account(admin_a, name="Source", parent_account_id=top["id"])
    middle = await account(admin_a, name="Middle", parent_account_id=source["id"])
    target = await account(admin_a, name="Target", parent_account_id=middle["id"])
    found = await merged(admin_a, "accounts", target, source)
    parents = [(await read(admin_a, f"accounts/{row['id']}"))["parent_account_id"] for row in (target, middle)]
    assert parents == [top["id"], target["id"]]
    await made(admin_a, f"merges/{found['merge_id']}/undo")
    parents = [(await read(admin_a, f"accounts/{row['id']}"))["parent_account_id"] for row in (target, middle)]
    assert parents == [middle["id"], source["id"]]


async def test_a_merge_does_not_make_the_hierarchy_too_deep(admin_a: Person) -> None:
    lines: list[list[dict[str, Any]]] = [[], []]
    for line, length in zip(lines, (8, 4), strict=True):
        for level in range(length):
            above = {"parent_account_id": line[-1]["id"]} if level else {}
            line.append(await account(admin_a, name=f"Level {level}", **above))
    body = {"source_ids": [lines[1][0]["id"]]}
    assert await refusal(admin_a, f"accounts/{lines[0][-1]['id']}/merge", **body) == (409, "hierarchy_too_deep")
    assert (await read(admin_a, f"accounts/{lines[1][0]['id']}"))["archived_at"] is None


async def test_the_next_activity_of_the_target_counts_those_that_came(admin_a: Person) -> None:
    source, target = await account(admin_a), await account(admin_a)
    for row, days in ((source, 2), (target, 5)):
        when = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0).isoformat()
        await made(admin_a, "activities/actions/schedule", type="CALL", scheduled_at=when, account_id=row["id"])
    found = await merged(admin_a, "accounts", target, source)
    after = [(await read(admin_a, f"accounts/{row['id']}"))["next_activity_at"] for row in (source, target)]
    assert after[0] == after[1]
    await made(admin_a, f"merges/{found['merge_id']}/undo")
    assert (await read(admin_a, f"accounts/{target['id']}"))["next_activity_at"] > after[0]


async def test_the_primary_person_of_an_account_stays_one_as_a_double(admin_a: Person) -> None:
    ours, theirs = await account(admin_a), await account(admin_a, name="Other")
    target = await contact(admin_a, last_name="Target", account_id=ours["id"])
    there = await contact(admin_a, last_name="There", account_id=theirs["id"], is_primary=True)
    here = await contact(admin_a, last_name="Here", account_id=ours["id"], is_primary=True)
    found = await merged(admin_a, "contacts", target, here, there)
    rows = [await read(admin_a, f"contacts/{row['id']}") for row in (target, here, there)]
    assert [row["is_primary"] for row in rows] == [True, False, False]
    await made(admin_a, f"merges/{found['merge_id']}/undo")
    rows = [await read(admin_a, f"contacts/{row['id']}") for row in (target, here, there)]
    assert [row["is_primary"] for row in rows] == [False, True, True]


async def test_a_primary_person_who_takes_over_an_account_leaves_its_primary_one(admin_a: Person) -> None:
    ours, theirs = await account(admin_a), await account(admin_a, name="Other")
    resident = await contact(admin_a, account_id=theirs["id"], is_primary=True)
    target = await contact(admin_a, account_id=ours["id"], is_primary=True)
    source = await contact(admin_a, account_id=theirs["id"])
    await merged(admin_a, "contacts", target, source, account_id=source["id"])
    rows = [await read(admin_a, f"contacts/{row['id']}") for row in (target, resident)]
    assert [(row["account_id"], row["is_primary"]) for row in rows] == [(theirs["id"], False), (theirs["id"], True)]


async def test_two_opposite_merges_at_once_lose_nothing(admin_a: Person) -> None:
    one, other = await account(admin_a, name="One"), await account(admin_a, name="Other")
    people = [await contact(admin_a, account_id=row["id"]) for row in (one, other)]
    pairs = ((one, other), (other, one))
    paths = [(f"{API}/accounts/{target['id']}/merge", {"source_ids": [source["id"]]}) for target, source in pairs]
    answers = await asyncio.gather(*(admin_a.client.post(path, json=body) for path, body in paths))
    statuses = sorted(answer.status_code for answer in answers)
    # The loser found its target archived, or both waited for each other and it may try again.
    assert statuses[0] == 200
    assert statuses[1] in (409, 503)
    rows = [await read(admin_a, f"accounts/{row['id']}") for row in (one, other)]
    (kept,) = [row["id"] for row in rows if row["archived_at"] is None]
    assert {(await read(admin_a, f"contacts/{row['id']}"))["account_id"] for row in people} == {kept}

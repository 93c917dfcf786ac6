"""Activities: logged, planned, done; and the two dates they leave on what they are about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from cast import Person

ACTIVITIES = "/api/v1/activities"
NOW = datetime.now(UTC).replace(microsecond=0)
PLACES = {"account_id": "accounts", "contact_id": "contacts", "opportunity_id": "opportunities"}


async def made(person: Person, path: str, **body: Any) -> dict[str, Any]:
    answer = await person.client.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def log(person: Person, **body: Any) -> dict[str, Any]:
    return await made(person, f"{ACTIVITIES}/actions/log", **{"type": "CALL", **body})


async def schedule(person: Person, **body: Any) -> dict[str, Any]:
    return await made(person, f"{ACTIVITIES}/actions/schedule", **{"type": "CALL", **body})


async def done(person: Person, row: dict[str, Any], action: str, **body: Any) -> dict[str, Any]:
    return await made(person, f"{ACTIVITIES}/{row['id']}/{action}", **body)


async def refusal(person: Person, path: str, **body: Any) -> tuple[int, str]:
    answer = await person.client.post(path, json=body)
    return answer.status_code, answer.json().get("code", "")


async def account(person: Person) -> dict[str, str]:
    return {"account_id": (await made(person, "/api/v1/accounts", name="Acme"))["id"]}


async def all_three(person: Person) -> dict[str, str]:
    """Make an account, a person and a deal of it, as an activity names them."""
    about = await account(person)
    contact = await made(person, "/api/v1/contacts", first_name="Ann", **about)
    deal = await made(person, "/api/v1/opportunities", name="Deal", **about)
    return {**about, "contact_id": contact["id"], "opportunity_id": deal["id"]}


async def dates(person: Person, about: dict[str, str], which: str) -> list[Any]:
    rows = [await person.client.get(f"/api/v1/{PLACES[name]}/{row_id}") for name, row_id in about.items()]
    return [row.json()[which] for row in rows]


def moment(days: float) -> str:
    return (NOW + timedelta(days=days)).isoformat()


async def test_what_was_done_is_the_last_activity_of_all_it_is_about(member_a: Person) -> None:
    about = await all_three(member_a)
    row = await log(member_a, subject="Hello", outcome="friendly", **about)
    assert (row["status"], row["owner_user_id"]) == ("COMPLETED", member_a.id)
    assert await dates(member_a, about, "last_activity_at") == [row["completed_at"]] * 3


async def test_an_older_activity_does_not_turn_the_date_back(member_a: Person) -> None:
    about = await account(member_a)
    for days in (-2, -9):
        await log(member_a, completed_at=moment(days), **about)
    assert await dates(member_a, about, "last_activity_at") == [moment(-2)]


async def test_the_account_follows_from_the_deal_or_the_person(member_a: Person) -> None:
    about = await all_three(member_a)
    for name in ("opportunity_id", "contact_id"):
        assert (await log(member_a, **{name: about[name]}))["account_id"] == about["account_id"]


async def test_what_is_planned_next_is_the_next_activity(member_a: Person) -> None:
    about = await all_three(member_a)
    for days in (5, 2, 9):
        await schedule(member_a, scheduled_at=moment(days), **about)
    await schedule(member_a, scheduled_at=moment(-1), **about)
    assert await dates(member_a, about, "next_activity_at") == [moment(2)] * 3
    assert await dates(member_a, about, "last_activity_at") == [None] * 3


async def test_the_next_one_moves_up_when_one_is_done(member_a: Person) -> None:
    about = await account(member_a)
    soon, later = [await schedule(member_a, due_at=moment(days), **about) for days in (1, 4)]
    ended = await done(member_a, soon, "complete", outcome="agreed", duration_minutes=20)
    assert (ended["status"], ended["outcome"], ended["duration_minutes"]) == ("COMPLETED", "agreed", 20)
    assert await dates(member_a, about, "next_activity_at") == [later["due_at"]]
    assert await dates(member_a, about, "last_activity_at") == [ended["completed_at"]]


async def test_a_new_time_is_carried_along(member_a: Person) -> None:
    about = await account(member_a)
    row = await schedule(member_a, scheduled_at=moment(1), **about)
    await done(member_a, row, "reschedule", scheduled_at=moment(3))
    assert await dates(member_a, about, "next_activity_at") == [moment(3)]
    await member_a.client.patch(f"{ACTIVITIES}/{row['id']}", json={"scheduled_at": moment(6)})
    assert await dates(member_a, about, "next_activity_at") == [moment(6)]


@pytest.mark.parametrize("action", ["cancel", "no-show", "archive"])
async def test_what_does_not_take_place_is_next_no_longer(member_a: Person, action: str) -> None:
    about = await account(member_a)
    row = await schedule(member_a, type="MEETING", scheduled_at=moment(1), **about)
    await done(member_a, row, action)
    assert await dates(member_a, about, "next_activity_at") == [None]


async def test_a_deleted_activity_is_next_no_longer(owner_a: Person) -> None:
    about = await account(owner_a)
    row = await schedule(owner_a, scheduled_at=moment(1), **about)
    assert (await owner_a.client.delete(f"{ACTIVITIES}/{row['id']}")).status_code == 204
    assert await dates(owner_a, about, "next_activity_at") == [None]


async def test_a_reopened_activity_is_planned_again(member_a: Person) -> None:
    about = await account(member_a)
    row = await schedule(member_a, scheduled_at=moment(2), **about)
    await done(member_a, row, "complete")
    again = await done(member_a, row, "reopen")
    assert (again["status"], again["completed_at"]) == ("PLANNED", None)
    assert await dates(member_a, about, "next_activity_at") == [moment(2)]


async def test_an_activity_that_changes_its_account_takes_its_date_along(member_a: Person) -> None:
    before, after = await account(member_a), await account(member_a)
    row = await schedule(member_a, scheduled_at=moment(2), **before)
    assert (await member_a.client.patch(f"{ACTIVITIES}/{row['id']}", json=after)).status_code == 200
    found = [(await dates(member_a, about, "next_activity_at"))[0] for about in (before, after)]
    assert found == [None, moment(2)]


async def test_begun_is_not_done(member_a: Person) -> None:
    about = await account(member_a)
    row = await schedule(member_a, scheduled_at=moment(1), **about)
    assert (await done(member_a, row, "start"))["status"] == "IN_PROGRESS"
    assert await dates(member_a, about, "next_activity_at") == [moment(1)]


async def test_a_note_is_done_when_it_is_written(member_a: Person) -> None:
    about = await account(member_a)
    row = await made(member_a, ACTIVITIES, type="NOTE", description="They moved.", **about)
    assert row["status"] == "COMPLETED"
    assert await dates(member_a, about, "last_activity_at") == [row["completed_at"]]
    assert await refusal(member_a, ACTIVITIES, type="NOTE", **about) == (422, "description_required")


async def test_only_a_task_is_about_nothing(member_a: Person) -> None:
    assert (await schedule(member_a, type="TASK", due_at=moment(1)))["account_id"] is None
    assert await refusal(member_a, f"{ACTIVITIES}/actions/log", type="CALL") == (422, "about_nothing")
    assert await refusal(member_a, ACTIVITIES, type="EMAIL") == (422, "about_nothing")


async def test_times_that_cannot_be_are_refused(member_a: Person) -> None:
    about = await account(member_a)
    sent = {"type": "CALL", **about}
    assert await refusal(member_a, f"{ACTIVITIES}/actions/schedule", **sent) == (422, "time_required")
    assert await refusal(member_a, f"{ACTIVITIES}/actions/log", completed_at=moment(1), **sent) == (422, "completed_at_range")
    row = await schedule(member_a, due_at=moment(1), **about)
    assert await refusal(member_a, f"{ACTIVITIES}/{row['id']}/reschedule") == (422, "time_required")
    late = {"completed_at": moment(1)}
    assert await refusal(member_a, f"{ACTIVITIES}/{row['id']}/complete", **late) == (422, "completed_at_range")


@pytest.mark.parametrize("ended", ["complete", "cancel", "no-show"])
async def test_what_has_ended_ends_no_second_time(member_a: Person, ended: str) -> None:
    row = await schedule(member_a, due_at=moment(1), **await account(member_a))
    last = await done(member_a, row, ended)
    for action, body in (("complete", {}), ("cancel", {}), ("no-show", {}), ("start", {}), ("reschedule", {"due_at": moment(2)})):
        assert await refusal(member_a, f"{ACTIVITIES}/{row['id']}/{action}", **body) == (409, "activity_ended")
    assert (await member_a.client.get(f"{ACTIVITIES}/{row['id']}")).json() == last


async def test_what_is_pending_is_not_reopened_and_a_task_not_missed(member_a: Person) -> None:
    row = await schedule(member_a, type="TASK", due_at=moment(1))
    assert await refusal(member_a, f"{ACTIVITIES}/{row['id']}/reopen") == (409, "activity_pending")
    assert await refusal(member_a, f"{ACTIVITIES}/{row['id']}/no-show") == (409, "not_an_appointment")


async def test_the_agenda_is_ones_own_in_three_parts(owner_a: Person, member_a: Person, owner_b: Person) -> None:
    mine = str(uuid4())
    for person, days in ((member_a, -1), (member_a, 3), (member_a, 30), (owner_a, 1), (owner_b, 1)):
        await schedule(person, type="TASK", subject=mine, due_at=moment(days))
    agenda = (await member_a.client.get(f"{ACTIVITIES}/reports/agenda")).json()
    found = {part: [item["at"][:10] for item in items if item["subject"] == mine] for part, items in agenda.items()}
    assert found == {"overdue": [moment(-1)[:10]], "today": [], "upcoming": [moment(3)[:10]]}


async def test_foreign_ids_are_answered_like_unknown_ones(owner_a: Person, owner_b: Person) -> None:
    theirs = {**await all_three(owner_b), "owner_user_id": owner_b.id}
    own = await schedule(owner_a, type="TASK", due_at=moment(1))
    for field, foreign in theirs.items():
        for method, path, body in (
            ("POST", ACTIVITIES, {"type": "TASK"}),
            ("PATCH", f"{ACTIVITIES}/{own['id']}", {}),
            ("POST", f"{ACTIVITIES}/actions/log", {"type": "TASK"}),
            ("POST", f"{ACTIVITIES}/actions/schedule", {"type": "TASK", "due_at": moment(1)}),
        ):
            answers = [await owner_a.client.request(method, path, json={**body, field: v}) for v in (foreign, str(uuid4()))]
            assert answers[0].content == answers[1].content, (method, path, field)
            assert (answers[0].status_code, answers[0].json()["code"]) == (422, "reference_not_found")
    agenda = [
        await owner_a.client.get(f"{ACTIVITIES}/reports/agenda", params={"owner_user_id": v}) for v in (owner_b.id, uuid4())
    ]
    assert agenda[0].content == agenda[1].content

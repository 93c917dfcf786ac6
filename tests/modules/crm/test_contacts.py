"""People: a name, one primary per account, and a lifecycle that goes back only for a reason."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from cast import CallMaker, Person
from rowhouse.core import operations
from rowhouse.core.audit import AuditEntry
from rowhouse.core.errors import Conflict
from rowhouse.core.events import OutboxEvent
from rowhouse.core.resource import Registry
from rowhouse.modules.crm.models import CRMContact

CONTACTS = "/api/v1/contacts"


async def made(person: Person, path: str = CONTACTS, **body: Any) -> dict[str, Any]:
    answer = await person.client.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def changed(person: Person, row: dict[str, Any], **body: Any) -> tuple[int, dict[str, Any]]:
    answer = await person.client.patch(f"{CONTACTS}/{row['id']}", json=body)
    return answer.status_code, answer.json()


async def read(person: Person, row: dict[str, Any]) -> dict[str, Any]:
    return (await person.client.get(f"{CONTACTS}/{row['id']}")).json()


async def people_of_an_account(person: Person, count: int, **body: Any) -> list[dict[str, Any]]:
    company = await made(person, "/api/v1/accounts", name="Acme")
    return [await made(person, first_name=f"P{number}", account_id=company["id"], **body) for number in range(count)]


def address() -> str:
    return f"{secrets.token_hex(4)}@people.example"


async def test_a_person_has_a_name_or_an_address(member_a: Person) -> None:
    mail = address()
    assert (await made(member_a, email=mail))["name"] == mail
    assert (await made(member_a, first_name="Ann", last_name="Lee"))["name"] == "Ann Lee"
    answer = await member_a.client.post(CONTACTS, json={"job_title": "CEO"})
    assert (answer.status_code, answer.json()["code"]) == (422, "name_required")


async def test_the_last_name_of_a_nameless_person_stays(member_a: Person) -> None:
    row = await made(member_a, last_name="Lee")
    status, problem = await changed(member_a, row, last_name=None)
    assert (status, problem["code"]) == (422, "name_required")


async def test_a_broken_address_is_refused(member_a: Person) -> None:
    answer = await member_a.client.post(CONTACTS, json={"email": "ann at example.com"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_email")


async def test_an_address_is_taken_once_until_its_person_is_archived(owner_a: Person, owner_b: Person) -> None:
    mail = address()
    row = await made(owner_a, email=mail)
    await made(owner_b, email=mail)
    answer = await owner_a.client.post(CONTACTS, json={"email": mail.upper()})
    assert (answer.status_code, answer.json()["code"]) == (409, "duplicate")
    await made(owner_a, f"{CONTACTS}/{row['id']}/archive")
    assert (await made(owner_a, email=mail.upper()))["email"] == mail.upper()
    back = await owner_a.client.post(f"{CONTACTS}/{row['id']}/restore")
    assert (back.status_code, back.json()["code"]) == (409, "duplicate")


@pytest.mark.parametrize("to", ["MQL", "SQL", "CUSTOMER", "EVANGELIST"])
async def test_a_person_comes_further_without_a_reason(member_a: Person, to: str) -> None:
    row = await made(member_a, first_name="Ann")
    assert (await made(member_a, f"{CONTACTS}/{row['id']}/change-lifecycle", to=to))["lifecycle"] == to


@pytest.mark.parametrize(("before", "to"), [("CUSTOMER", "LEAD"), ("SQL", "MQL"), ("LEAD", "CHURNED"), ("CHURNED", "LEAD")])
async def test_a_step_back_needs_a_reason(member_a: Person, before: str, to: str) -> None:
    row = await made(member_a, first_name="Ann", lifecycle=before)
    path = f"{CONTACTS}/{row['id']}/change-lifecycle"
    refused = await member_a.client.post(path, json={"to": to, "reason": "  "})
    assert (refused.status_code, refused.json()["code"]) == (422, "reason_required")
    status, problem = await changed(member_a, row, lifecycle=to)
    assert (status, problem["code"]) == (422, "reason_required")
    assert (await made(member_a, path, to=to, reason="a mistake"))["lifecycle"] == to


async def test_the_reason_is_kept_in_the_audit_log_and_the_event(member_a: Person, call_as: CallMaker) -> None:
    row = await made(member_a, first_name="Ann", lifecycle="CUSTOMER")
    await made(member_a, f"{CONTACTS}/{row['id']}/change-lifecycle", to="CHURNED", reason="went elsewhere")
    async with call_as(member_a) as call:
        of_row = (AuditEntry.entity_id == row["id"], AuditEntry.verb == "update")
        entry = (await call.session.scalars(select(AuditEntry).where(*of_row))).one()
        about = OutboxEvent.payload["contact_id"].astext == row["id"]
        event = (await call.session.scalars(select(OutboxEvent).where(about))).one()
    assert (entry.reason, entry.changes["lifecycle"]) == ("went elsewhere", ["CUSTOMER", "CHURNED"])
    assert (event.name, event.payload["reason"]) == ("crm.contact_lifecycle_changed", "went elsewhere")


async def test_the_source_of_a_person_is_set_once_except_by_an_administrator(member_a: Person, admin_a: Person) -> None:
    row = await made(member_a, first_name="Ann")
    assert (await changed(member_a, row, lead_source="EVENT"))[0] == 200
    status, problem = await changed(member_a, row, lead_source="REFERRAL")
    assert (status, problem["code"]) == (403, "permission_denied")
    assert (await changed(admin_a, row, lead_source="REFERRAL"))[1]["lead_source"] == "REFERRAL"


async def test_consent_ends_with_the_address_it_was_given_for(member_a: Person) -> None:
    row = await made(member_a, email=address(), consent_email=True, consent_source="form")
    _, found = await changed(member_a, row, email=address())
    assert (found["consent_email"], found["consent_source"]) == (False, None)


async def test_a_new_primary_person_takes_over_from_the_old(owner_a: Person) -> None:
    first, second = await people_of_an_account(owner_a, 2, is_primary=True)
    assert [(await read(owner_a, row))["is_primary"] for row in (first, second)] == [False, True]
    assert (await changed(owner_a, first, is_primary=True))[0] == 200
    assert [(await read(owner_a, row))["is_primary"] for row in (first, second)] == [True, False]


async def test_primacy_is_handed_over_within_one_flush(owner_a: Person, call_as: CallMaker, registry: Registry) -> None:
    (old,) = await people_of_an_account(owner_a, 1, is_primary=True)
    new = {"first_name": "New", "account_id": old["account_id"], "is_primary": True}
    async with call_as(owner_a) as call, call.deferred():
        made_last = [await operations.create(call, registry["contacts"], new) for _ in range(2)][-1]
    rows = (await owner_a.client.get(CONTACTS, params={"account_id": old["account_id"]})).json()["items"]
    assert [row["id"] for row in rows if row["is_primary"]] == [str(made_last.id)]
    assert len(rows) == 3


async def test_two_primaries_of_one_account_are_refused_by_the_database(owner_a: Person, call_as: CallMaker) -> None:
    rows = await people_of_an_account(owner_a, 2)

    async def past_the_check() -> None:
        async with call_as(owner_a) as call:
            for row in rows:
                (await call.load(CRMContact, UUID(row["id"]))).is_primary = True

    with pytest.raises(Conflict) as refused:
        await past_the_check()
    assert (refused.value.code, refused.value.faults[0].field) == ("duplicate", "account_id")
    assert not any([(await read(owner_a, row))["is_primary"] for row in rows])


async def test_two_people_becoming_primary_at_once_leave_one(owner_a: Person) -> None:
    rows = await people_of_an_account(owner_a, 2)
    answers = await asyncio.gather(*(changed(owner_a, row, is_primary=True) for row in rows))
    assert {status for status, _ in answers} <= {200, 409, 503}
    assert sum([(await read(owner_a, row))["is_primary"] for row in rows]) == 1


async def test_a_person_without_an_account_is_nobodys_primary(member_a: Person) -> None:
    answer = await member_a.client.post(CONTACTS, json={"first_name": "Ann", "is_primary": True})
    assert (answer.status_code, answer.json()["code"]) == (422, "account_required")


async def test_an_archived_person_is_primary_no_longer(owner_a: Person) -> None:
    first, second = await people_of_an_account(owner_a, 2)
    await changed(owner_a, first, is_primary=True)
    await made(owner_a, f"{CONTACTS}/{first['id']}/archive")
    assert (await changed(owner_a, second, is_primary=True))[0] == 200
    back = await made(owner_a, f"{CONTACTS}/{first['id']}/restore")
    assert (back["is_primary"], (await read(owner_a, second))["is_primary"]) == (False, True)


async def test_a_primary_person_who_changes_the_account_takes_over_there(owner_a: Person) -> None:
    (mover,) = await people_of_an_account(owner_a, 1, is_primary=True)
    (resident,) = await people_of_an_account(owner_a, 1, is_primary=True)
    assert (await changed(owner_a, mover, account_id=resident["account_id"]))[0] == 200
    assert [(await read(owner_a, row))["is_primary"] for row in (mover, resident)] == [True, False]


async def test_the_same_person_in_two_accounts_may_be_a_double(owner_a: Person) -> None:
    (row,) = await people_of_an_account(owner_a, 1, last_name="Lee", phone="+49 30 7654321")
    double = await made(owner_a, first_name="Other", mobile="0049 30 7654321")
    items = (await owner_a.client.get(f"{CONTACTS}/{row['id']}/duplicates")).json()["items"]
    assert [(item["id"], item["score"], item["reasons"]) for item in items] == [(double["id"], 0.8, ["phone"])]


@pytest.mark.parametrize("field", ["account_id", "owner_user_id"])
async def test_a_foreign_id_is_answered_like_an_unknown_one(owner_a: Person, owner_b: Person, field: str) -> None:
    own = await made(owner_a, first_name="Ann")
    foreign = {"account_id": (await made(owner_b, "/api/v1/accounts", name="Theirs"))["id"], "owner_user_id": owner_b.id}
    for method, path in (("POST", CONTACTS), ("PATCH", f"{CONTACTS}/{own['id']}")):
        bodies = [{"first_name": "Ann", field: value} for value in (foreign[field], str(uuid4()))]
        theirs, unknown = [await owner_a.client.request(method, path, json=body) for body in bodies]
        assert (theirs.status_code, theirs.content) == (unknown.status_code, unknown.content)
        assert theirs.json()["code"] == "reference_not_found"

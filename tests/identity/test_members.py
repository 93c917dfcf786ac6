"""Members, invitations and domains of a workspace, through the operations, under the application's own role."""

from __future__ import annotations

import asyncio
import contextvars
from datetime import timedelta

import pytest
from houses import NOW, PASSWORD

from partywall import tenant_scope
from rowhouse.core import operations
from rowhouse.core.errors import Conflict, Forbidden, Invalid, NotFound, RowhouseError, Unauthenticated
from rowhouse.core.permissions import Principal, Role
from rowhouse.core.resource import NoInput
from rowhouse.identity import domains, resources
from rowhouse.identity.invitations import Acceptance, Invite, accept_invitation, invite, renew
from rowhouse.identity.members import LastOwner, NewMember, add_member, system_principal
from rowhouse.identity.models import Invitation, Membership, TenantDomain
from rowhouse.identity.people import AddressUnproven


async def _invite(call_of, house, email, role=Role.MEMBER, by=None):
    async with call_of(house.tenant, by or house.owner) as call:
        return await invite.run(call, Invite(email=email, role=role))


async def test_an_invited_person_chooses_a_password_and_is_a_member(house, call_of, database, enter):
    email = f"ina@{house.tenant.slug}.example"
    made = await _invite(call_of, house, email, Role.ADMIN)
    accepted = await accept_invitation(database, Acceptance(made.token, name="Ina", password=PASSWORD), now=NOW)
    opened = await enter(email)
    assert (opened.tenant_id, opened.user_id) == (house.tenant.id, accepted.user_id)
    async with call_of(house.tenant, house.owner) as call:
        member = await call.load(Membership, accepted.user_id)
        lines = await operations.history(call, resources.members, accepted.user_id)
    assert (member.role, member.name, member.email) == ("ADMIN", "Ina", email)
    assert lines[0]["operation"] == "invitations:accept"


async def test_a_token_works_once_until_it_expires_and_only_at_its_own_workspace(house, other_house, call_of, database):
    email = f"ina@{house.tenant.slug}.example"
    made = await _invite(call_of, house, email)
    offer = Acceptance(made.token, password=PASSWORD)
    with tenant_scope(other_house.tenant), pytest.raises(NotFound):
        await accept_invitation(database, offer, now=NOW)
    with pytest.raises(NotFound):
        await accept_invitation(database, offer, now=NOW + timedelta(days=8))
    with tenant_scope(house.tenant):
        assert await accept_invitation(database, offer, now=NOW)
    with pytest.raises(NotFound):
        await accept_invitation(database, offer, now=NOW)


async def test_two_acceptances_at_once_make_one_member(house, call_of, database):
    made = await _invite(call_of, house, f"ina@{house.tenant.slug}.example")
    offers = (accept_invitation(database, Acceptance(made.token, password=f"{PASSWORD} {n}"), now=NOW) for n in range(2))
    outcomes = await asyncio.gather(*offers, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Accepted", "NotFound"]


async def test_an_account_is_brought_in_with_its_own_password_or_log_in_only(house, other_house, call_of, database):
    made = await _invite(call_of, house, other_house.owner_email)
    with pytest.raises(Unauthenticated):
        await accept_invitation(database, Acceptance(made.token, password="the inviter's guess"), now=NOW)
    with pytest.raises(Forbidden):
        await accept_invitation(database, Acceptance(made.token, user_id=house.owner.subject_id), now=NOW)
    accepted = await accept_invitation(database, Acceptance(made.token, user_id=other_house.owner.subject_id), now=NOW)
    assert accepted.user_id == other_house.owner.subject_id


async def test_an_invitation_looks_the_same_with_and_without_account(house, other_house, call_of):
    known = await _invite(call_of, house, other_house.owner_email)
    unknown = await _invite(call_of, house, f"ina@{house.tenant.slug}.example")
    assert known.model_fields_set == unknown.model_fields_set
    assert (known.expires_at, len(known.token)) == (unknown.expires_at, len(unknown.token))


async def test_a_workspace_cannot_choose_the_password_of_anothers_member(house, other_house, call_of, database):
    email = f"newcomer@{house.tenant.slug}.example"
    async with call_of(house.tenant, house.owner) as call:
        await operations.create(call, resources.members, {"email": email, "name": "Newcomer"})
    made = await _invite(call_of, other_house, email)
    with pytest.raises(Conflict) as refusal:
        await accept_invitation(database, Acceptance(made.token, password=PASSWORD), now=NOW)
    assert refusal.value.code == "account_elsewhere"
    own = await _invite(call_of, house, email)
    assert await accept_invitation(database, Acceptance(own.token, password=PASSWORD), now=NOW)


async def test_an_account_opened_for_anothers_address_is_not_added_silently(house, other_house, call_of, database):
    email = f"boss@{house.tenant.slug}.example"
    made = await _invite(call_of, other_house, email)
    await accept_invitation(database, Acceptance(made.token, password="chosen by the inviter"), now=NOW)
    with pytest.raises(AddressUnproven):
        async with call_of(house.tenant, house.owner) as call:
            await operations.create(call, resources.members, {"email": email, "name": "Boss"})


async def test_inviting_again_or_renewing_replaces_the_token(house, call_of, database):
    email = f"ina@{house.tenant.slug}.example"
    first, second = await _invite(call_of, house, email), await _invite(call_of, house, email, Role.VIEWER)
    async with call_of(house.tenant, house.owner) as call:
        third = await renew.run(call, await call.load(Invitation, second.id, lock=True), NoInput())
    assert first.id == second.id == third.id
    for dead in (first, second):
        with pytest.raises(NotFound):
            await accept_invitation(database, Acceptance(dead.token, password=PASSWORD), now=NOW)
    assert await accept_invitation(database, Acceptance(third.token, password=PASSWORD), now=NOW)


async def test_nobody_gives_more_than_their_own_role(house, add, call_of):
    admin = await add(house.tenant, f"adi@{house.tenant.slug}.example", Role.ADMIN)
    other = await add(house.tenant, f"mel@{house.tenant.slug}.example")
    owners = await _invite(call_of, house, f"ina@{house.tenant.slug}.example", Role.OWNER)
    with pytest.raises(Forbidden):
        await _invite(call_of, house, f"eve@{house.tenant.slug}.example", Role.OWNER, by=admin)
    with pytest.raises(Forbidden):
        await _invite(call_of, house, f"ina@{house.tenant.slug}.example", Role.MEMBER, by=admin)
    with pytest.raises(Forbidden):
        async with call_of(house.tenant, admin) as call:
            await renew.run(call, await call.load(Invitation, owners.id), NoInput())
    forbidden = [
        (other.subject_id, {"role": "OWNER"}),
        (house.owner.subject_id, {"role": "MEMBER"}),
        (house.owner.subject_id, {"title": "Intern"}),
        (admin.subject_id, {"capabilities": ["finance.approve"]}),
    ]
    for row_id, change in forbidden:
        with pytest.raises(Forbidden):
            async with call_of(house.tenant, admin) as call:
                await operations.update(call, resources.members, row_id, change)
    async with call_of(house.tenant, admin) as call:
        assert (await operations.update(call, resources.members, other.subject_id, {"role": "ADMIN"})).role == "ADMIN"


async def test_the_last_owner_stays(house, add, call_of):
    owner_id = house.owner.subject_id
    admin = await add(house.tenant, f"adi@{house.tenant.slug}.example", Role.ADMIN)
    with pytest.raises(Conflict) as refusal:
        async with call_of(house.tenant, house.owner) as call:
            await operations.update(call, resources.members, owner_id, {"role": "ADMIN"})
    assert refusal.value.code == "last_owner"
    with pytest.raises(Conflict):
        async with call_of(house.tenant, system_principal()) as call:
            await operations.archive(call, resources.members, owner_id)
    with pytest.raises(Forbidden):
        async with call_of(house.tenant, house.owner) as call:
            await operations.archive(call, resources.members, owner_id)
    async with call_of(house.tenant, house.owner) as call:
        await operations.update(call, resources.members, admin.subject_id, {"role": "OWNER"})
    async with call_of(house.tenant, house.owner) as call:
        assert (await operations.update(call, resources.members, owner_id, {"role": "ADMIN"})).role == "ADMIN"


async def test_two_owners_leaving_at_once_leave_one(house, add, call_of):
    second = await add(house.tenant, f"ola@{house.tenant.slug}.example", Role.OWNER)

    async def demote(principal: Principal) -> None:
        async with call_of(house.tenant, principal) as call:
            await operations.update(call, resources.members, principal.subject_id, {"role": "MEMBER"})

    async with call_of(house.tenant, house.owner) as call:
        await operations.update(call, resources.members, house.owner.subject_id, {"role": "MEMBER"})
        leaving = asyncio.create_task(demote(second), context=contextvars.Context())
        done, _ = await asyncio.wait({leaving}, timeout=0.3)
    assert not done
    with pytest.raises(LastOwner):
        await leaving


async def test_two_owners_demoted_in_one_collected_write_leave_one(house, add, call_of):
    second = await add(house.tenant, f"ola@{house.tenant.slug}.example", Role.OWNER)
    async with call_of(house.tenant, system_principal()) as call, call.deferred():
        await operations.update(call, resources.members, second.subject_id, {"role": "MEMBER"})
        with pytest.raises(Conflict):
            await operations.update(call, resources.members, house.owner.subject_id, {"role": "MEMBER"})
        (await call.load(Membership, house.owner.subject_id)).role = "OWNER"


async def test_a_membership_ends_and_comes_back_but_is_never_deleted(house, add, call_of):
    member = await add(house.tenant, f"mel@{house.tenant.slug}.example")
    async with call_of(house.tenant, house.owner) as call:
        await operations.archive(call, resources.members, member.subject_id)
        assert (await operations.restore(call, resources.members, member.subject_id)).archived_at is None
    with pytest.raises(Conflict) as refusal:
        async with call_of(house.tenant, house.owner) as call:
            await operations.delete(call, resources.members, member.subject_id)
    assert refusal.value.code == "archive_instead"


async def test_an_import_adds_members_once(house, call_of):
    email = f"Mel@{house.tenant.slug}.example"
    async with call_of(house.tenant, house.owner) as call, call.deferred():
        row = await operations.create(
            call, resources.members, {"email": email, "name": "Mel", "role": "VIEWER", "external_id": "7"}
        )
        with pytest.raises(Conflict):
            await operations.create(call, resources.members, {"email": email.lower(), "name": "Mel"})
    assert (row.email, row.role, row.external_id) == (email.lower(), "VIEWER", "7")
    async with call_of(house.tenant, system_principal()) as call:
        assert (await add_member(call, NewMember(email=email))).id == row.id


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"email": "nonsense", "name": "X"}, "invalid_email"),
        ({"email": "x@example.com", "name": "X", "capabilities": ["fly"]}, "unknown_capability"),
        ({"name": "X"}, "invalid"),
    ],
)
async def test_a_bad_member_is_refused(house, call_of, values, code):
    with pytest.raises(Invalid) as refusal:
        async with call_of(house.tenant, house.owner) as call:
            await operations.create(call, resources.members, values)
    assert refusal.value.code == code


async def test_a_member_cannot_add_members(house, add, call_of):
    member = await add(house.tenant, f"mel@{house.tenant.slug}.example")
    with pytest.raises(Forbidden):
        async with call_of(house.tenant, member) as call:
            await operations.create(call, resources.members, {"email": "x@example.com", "name": "X"})


async def _claim(call_of, house, domain):
    async with call_of(house.tenant, house.owner) as call:
        row = await operations.create(call, resources.domains, {"domain": domain})
        shown = await domains.instructions.run(call, row, NoInput())
        return row.id, shown


async def _act(call_of, house, action, row_id):
    async with call_of(house.tenant, house.owner) as call:
        return await operations.act(call, resources.domains, action, {}, row_id=row_id)


async def test_the_first_proof_of_a_domain_wins(house, other_house, call_of, txt, directory, clocks):
    domain = f"crm.{house.tenant.slug}.example"
    squatted, theirs = await _claim(call_of, other_house, domain)
    claimed, mine = await _claim(call_of, house, domain)
    with pytest.raises(domains.TxtNotFound):
        await _act(call_of, other_house, domains.verify, squatted)
    assert await directory.tenant_by_domain(domain) is None
    txt.records[mine.name] = ["v=spf1 -all", mine.value, theirs.value]
    assert (await _act(call_of, house, domains.verify, claimed)).status == "VERIFIED"
    clocks.monotonic_s += 0.5
    assert await directory.tenant_by_domain(domain) == house.tenant
    with pytest.raises(domains.DomainInUse):
        await _act(call_of, other_house, domains.verify, squatted)


async def test_silent_name_servers_are_named_as_such(house, call_of, txt):
    row_id, _ = await _claim(call_of, house, f"crm.{house.tenant.slug}.example")
    txt.is_down = True
    with pytest.raises(RowhouseError) as refusal:
        await _act(call_of, house, domains.verify, row_id)
    assert (refusal.value.code, refusal.value.status) == ("dns_timeout", 503)


async def test_a_domain_whose_proof_is_gone_seven_days_is_served_no_more(house, call_of, txt, database, directory, clocks):
    domain = f"crm.{house.tenant.slug}.example"
    row_id, shown = await _claim(call_of, house, domain)
    other_id, other_shown = await _claim(call_of, house, f"www.{house.tenant.slug}.example")
    txt.records |= {shown.name: [shown.value], other_shown.name: [other_shown.value]}
    await _act(call_of, house, domains.verify, row_id)
    await _act(call_of, house, domains.verify, other_id)
    del txt.records[shown.name]
    for day in range(1, 8):
        assert await directory.tenant_by_domain(domain) == house.tenant
        found = await domains.recheck(database, txt, now=NOW + timedelta(days=day))
        again = await domains.recheck(database, txt, now=NOW + timedelta(days=day, hours=1))
        assert domain not in again.failed
        clocks.monotonic_s += 0.5
    assert domain in found.failed
    assert await directory.tenant_by_domain(domain) is None
    assert await directory.tenant_by_domain(f"www.{house.tenant.slug}.example") == house.tenant
    async with call_of(house.tenant, house.owner) as call:
        assert (await call.load(TenantDomain, row_id)).status == "FAILED"


async def test_our_own_resolver_being_down_blames_no_domain(house, call_of, txt, database, directory):
    domain = f"crm.{house.tenant.slug}.example"
    row_id, shown = await _claim(call_of, house, domain)
    txt.records[shown.name] = [shown.value]
    await _act(call_of, house, domains.verify, row_id)
    txt.is_down = True
    for day in range(1, 10):
        assert (await domains.recheck(database, txt, now=NOW + timedelta(days=day))).failed == ()
    assert await directory.tenant_by_domain(domain) == house.tenant


async def test_a_released_domain_is_free_and_must_be_proven_anew(house, other_house, call_of, txt, directory, clocks):
    domain = f"crm.{house.tenant.slug}.example"
    row_id, mine = await _claim(call_of, house, domain)
    txt.records[mine.name] = [mine.value]
    await _act(call_of, house, domains.verify, row_id)
    await _act(call_of, house, domains.set_primary, row_id)
    async with call_of(house.tenant, house.owner) as call:
        row = await operations.archive(call, resources.domains, row_id)
    assert (row.status, row.is_primary) == ("PENDING", False)
    clocks.monotonic_s += 0.5
    assert await directory.tenant_by_domain(domain) is None
    again_id, again = await _claim(call_of, house, domain)
    assert (again_id, again.value != mine.value) == (row_id, True)
    with pytest.raises(domains.TxtNotFound):
        await _act(call_of, house, domains.verify, row_id)


async def test_one_verified_domain_is_primary(house, call_of, txt):
    ids = []
    for label in ("one", "two", "three"):
        row_id, shown = await _claim(call_of, house, f"{label}.{house.tenant.slug}.example")
        txt.records[shown.name] = [shown.value] if label != "three" else []
        ids.append(row_id)
    for row_id in ids[:2]:
        await _act(call_of, house, domains.verify, row_id)
        await _act(call_of, house, domains.set_primary, row_id)
    with pytest.raises(Conflict):
        await _act(call_of, house, domains.set_primary, ids[2])
    async with call_of(house.tenant, house.owner) as call:
        assert [(await call.load(TenantDomain, row_id)).is_primary for row_id in ids] == [False, True, False]

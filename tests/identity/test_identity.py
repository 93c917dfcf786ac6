"""Log-ins and keys under the true database roles, and what the directory makes of them within a second."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from uuid import uuid4

import pytest
from houses import NOW, PASSWORD, with_cookie, with_key
from sqlalchemy import func, select, update

from partywall import Tenant, system_scope
from partywall.errors import ResolutionError
from rowhouse.core import operations
from rowhouse.core.errors import Forbidden, Invalid, NotFound, RowhouseError, TooMany, Unauthenticated
from rowhouse.core.permissions import Principal, Role
from rowhouse.identity import resources, service_keys, sessions, tenants
from rowhouse.identity.keys import NewKey, Rotation, create_key, rotate
from rowhouse.identity.models import ApiKey, PlatformAudit, User, UserSession, UserStatus
from rowhouse.identity.sessions import Client, LogIn, PasswordChange
from rowhouse.identity.throttle import Subject, count_attempt, network_of


async def test_a_log_in_is_bound_to_the_only_workspace(house, enter, directory):
    opened = await enter(house.owner_email)
    credential = await directory.authenticate(with_cookie(opened.cookie))
    assert credential is not None
    assert (credential.kind, credential.subject_id, credential.tenant_id) == ("session", house.owner.subject_id, house.tenant.id)
    member = await directory.member(credential, house.tenant.id)
    assert member is not None
    assert (member.role, member.subject_id) == ("OWNER", house.owner.subject_id)


async def test_somebody_in_two_workspaces_is_bound_to_the_one_of_the_host_or_to_none(house, other_house, add, enter):
    email = f"mel@{house.tenant.slug}.example"
    await add(house.tenant, email)
    await add(other_house.tenant, email)
    assert (await enter(email)).tenant_id is None
    assert (await enter(email, other_house.tenant)).tenant_id == other_house.tenant.id
    assert {workspace.tenant_id for workspace in (await enter(email)).workspaces} == {house.tenant.id, other_house.tenant.id}


async def test_the_database_holds_no_secret_that_opens_anything(house, enter, database):
    opened = await enter(house.owner_email)
    async with database.people() as session:
        row = (await session.scalars(select(UserSession).where(UserSession.id == opened.session_id))).one()
        user = (await session.scalars(select(User).where(User.id == opened.user_id))).one()
    assert opened.cookie.encode() not in row.secret_hash
    assert user.password_hash.startswith("$argon2id$")


@pytest.mark.parametrize("wrong", ["password", "address", "disabled"])
async def test_every_failed_log_in_has_one_answer(house, enter, database, wrong):
    if wrong == "disabled":
        async with database.people() as session:
            await session.execute(update(User).where(User.id == house.owner.subject_id).values(status=UserStatus.DISABLED))
    email = "nobody@example.com" if wrong == "address" else house.owner_email
    with pytest.raises(Unauthenticated) as refusal:
        await enter(email, password="not this one" if wrong == "password" else PASSWORD)
    assert (refusal.value.code, refusal.value.message) == ("invalid_login", "The e-mail address or the password is wrong.")


@pytest.mark.parametrize("is_known", [True, False])
async def test_the_eleventh_try_waits_a_quarter_of_an_hour_known_or_not(house, enter, is_known):
    email = house.owner_email if is_known else f"{secrets.token_hex(4)}@example.com"
    for second in range(10):
        with pytest.raises(Unauthenticated):
            await enter(email, password="wrong and wrong", now=NOW + timedelta(seconds=second))
    with pytest.raises(TooMany) as refusal:
        await enter(email, now=NOW + timedelta(seconds=9))
    assert refusal.value.retry_after_s == 900
    with pytest.raises(TooMany):
        await enter(email, now=NOW + timedelta(minutes=15))
    if is_known:
        assert await enter(email, now=NOW + timedelta(minutes=16))


async def test_many_tries_at_once_are_held_too(house, enter):
    tries = (enter(house.owner_email, password=f"guess number {n}") for n in range(14))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, Unauthenticated) for outcome in outcomes) == 10
    assert sum(isinstance(outcome, TooMany) for outcome in outcomes) == 4


async def test_a_success_forgets_the_failures_of_the_address(house, enter):
    for _ in range(9):
        with pytest.raises(Unauthenticated):
            await enter(house.owner_email, password="wrong and wrong")
    await enter(house.owner_email)
    for _ in range(9):
        with pytest.raises(Unauthenticated):
            await enter(house.owner_email, password="wrong and wrong")
    assert await enter(house.owner_email)


async def test_a_network_is_held_after_fifty_failures_over_many_addresses(database, settings, house):
    client = Client(ip=f"2001:db8:{secrets.randbelow(65536):x}:{secrets.randbelow(65536):x}::1")
    await _fill_network(database, client.ip, 50)
    with pytest.raises(TooMany):
        await sessions.log_in(database, settings, LogIn(house.owner_email, PASSWORD, client=client), now=NOW)


async def _fill_network(database, ip, count):
    for _ in range(count):
        await count_attempt(database, (Subject(f"ip:{network_of(ip)}", 50),), NOW)


async def test_a_revoked_log_in_is_a_stranger_within_a_second(house, enter, database, directory, clocks):
    opened = await enter(house.owner_email)
    assert await directory.authenticate(with_cookie(opened.cookie)) is not None
    await sessions.revoke_session(database, opened.user_id, opened.session_id, now=NOW)
    clocks.monotonic_s += 0.5
    assert await directory.authenticate(with_cookie(opened.cookie)) is None


async def test_an_ended_membership_stops_log_in_and_key_within_a_second(house, add, enter, call_of, directory, clocks):
    email = f"mel@{house.tenant.slug}.example"
    member = await add(house.tenant, email)
    made = await _key(call_of, house.tenant, member)
    cookie = await directory.authenticate(with_cookie((await enter(email)).cookie))
    key = await directory.authenticate(with_key(made.key))
    assert await directory.member(cookie, house.tenant.id)
    assert await directory.member(key, house.tenant.id)
    async with call_of(house.tenant, house.owner) as call:
        await operations.archive(call, resources.members, member.subject_id)
    clocks.monotonic_s += 0.5
    assert await directory.member(cookie, house.tenant.id) is None
    assert await directory.member(key, house.tenant.id) is None
    assert await directory.memberships(cookie) == ()


async def test_a_suspended_workspace_is_seen_as_such_within_a_second(house, database, directory, clocks):
    assert (await directory.tenant_by_slug(house.tenant.slug)).status == "ACTIVE"
    with system_scope(reason="unpaid since March"):
        await tenants.suspend(database, house.tenant.slug, now=NOW)
    clocks.monotonic_s += 0.5
    assert (await directory.tenant_by_slug(house.tenant.slug)).status == "SUSPENDED"
    assert (await directory.tenant_by_id(house.tenant.id)).status == "SUSPENDED"
    with system_scope(reason="they have paid"):
        await tenants.resume(database, house.tenant.slug, now=NOW)
        async with database.system() as session:
            audit = select(PlatformAudit.operation, PlatformAudit.reason).where(PlatformAudit.tenant_id == house.tenant.id)
            lines = (await session.execute(audit.order_by(PlatformAudit.id))).all()
    assert lines[1:] == [("tenant.suspended", "unpaid since March"), ("tenant.active", "they have paid")]


async def test_moving_to_another_workspace_ends_the_old_cookie(house, other_house, add, enter, database, settings, directory):
    email = f"mel@{house.tenant.slug}.example"
    await add(house.tenant, email)
    await add(other_house.tenant, email)
    before = await enter(email, house.tenant)
    credential = await directory.authenticate(with_cookie(before.cookie))
    after = await sessions.switch_tenant(database, settings, credential, other_house.tenant.id, client=Client(), now=NOW)
    directory.remembered.forget()
    assert await directory.authenticate(with_cookie(before.cookie)) is None
    assert (await directory.authenticate(with_cookie(after.cookie))).tenant_id == other_house.tenant.id
    with pytest.raises(Unauthenticated):
        await sessions.switch_tenant(database, settings, credential, house.tenant.id, client=Client(), now=NOW)
    moved = await directory.authenticate(with_cookie(after.cookie))
    assert not sessions.csrf_matches(settings, moved, sessions.csrf_token(settings, credential))
    assert sessions.csrf_matches(settings, moved, sessions.csrf_token(settings, moved))


async def test_a_foreign_workspace_cannot_be_moved_to_and_the_log_in_stays(
    house, other_house, enter, database, settings, directory
):
    opened = await enter(house.owner_email)
    credential = await directory.authenticate(with_cookie(opened.cookie))
    answers = []
    for tenant_id in (other_house.tenant.id, uuid4()):
        with pytest.raises(NotFound) as refusal:
            await sessions.switch_tenant(database, settings, credential, tenant_id, client=Client(), now=NOW)
        answers.append(str(refusal.value))
    assert answers[0] == answers[1]
    directory.remembered.forget()
    assert await directory.authenticate(with_cookie(opened.cookie)) == credential


async def test_a_log_in_lives_on_while_used_and_ends_unused(house, enter, directory, clocks, settings):
    life = timedelta(hours=settings.session_hours)
    opened = await enter(house.owner_email)
    clocks.now, clocks.monotonic_s = NOW + life - timedelta(minutes=1), 10.0
    assert await directory.authenticate(with_cookie(opened.cookie))
    clocks.now, clocks.monotonic_s = NOW + life + timedelta(minutes=1), 20.0
    assert await directory.authenticate(with_cookie(opened.cookie))
    clocks.now, clocks.monotonic_s = NOW + 3 * life, 30.0
    assert await directory.authenticate(with_cookie(opened.cookie)) is None


async def test_a_new_password_ends_the_other_log_ins(house, enter, database, directory):
    mine, elsewhere = await enter(house.owner_email), await enter(house.owner_email)
    credential = await directory.authenticate(with_cookie(mine.cookie))
    change = PasswordChange(PASSWORD, "another red house entirely")
    await sessions.change_password(database, credential, change, now=NOW)
    assert [view.id for view in await sessions.list_sessions(database, mine.user_id, now=NOW)] == [mine.session_id]
    assert await directory.authenticate(with_cookie(elsewhere.cookie)) is None
    assert await enter(house.owner_email, password="another red house entirely")
    with pytest.raises(Unauthenticated):
        await enter(house.owner_email)


async def test_logging_out_everywhere_leaves_nothing_open(house, enter, database):
    opened = [await enter(house.owner_email) for _ in range(2)]
    await sessions.log_out_everywhere(database, opened[0].user_id, now=NOW)
    assert await sessions.list_sessions(database, opened[0].user_id, now=NOW) == []


async def test_anothers_log_in_is_not_found(house, other_house, enter, database):
    opened = await enter(house.owner_email)
    with pytest.raises(NotFound):
        await sessions.revoke_session(database, other_house.owner.subject_id, opened.session_id, now=NOW)
    assert len(await sessions.list_sessions(database, opened.user_id, now=NOW)) == 1


async def test_a_cookie_sent_twice_is_ignored(house, enter, directory):
    opened = await enter(house.owner_email)
    (header,) = with_cookie(opened.cookie)["headers"]
    assert await directory.authenticate({"headers": [header]}) is not None
    assert await directory.authenticate({"headers": [header, header]}) is None


async def _key(call_of, tenant: Tenant, principal: Principal, *scopes: str):
    async with call_of(tenant, principal) as call:
        return await create_key.run(call, NewKey(name="sync", scopes=list(scopes or ("*",))))


async def test_a_key_works_in_its_workspace_with_its_members_present_role(house, other_house, add, call_of, directory, clocks):
    member = await add(house.tenant, f"mel@{house.tenant.slug}.example")
    made = await _key(call_of, house.tenant, member, "members:list")
    credential = await directory.authenticate(with_key(made.key))
    assert (credential.tenant_id, credential.scopes) == (house.tenant.id, frozenset({"members:list"}))
    assert await directory.member(credential, other_house.tenant.id) is None
    async with call_of(house.tenant, house.owner) as call:
        await operations.update(call, resources.members, member.subject_id, {"role": "VIEWER"})
    clocks.monotonic_s += 0.5
    assert (await directory.member(credential, house.tenant.id)).role == "VIEWER"


@pytest.mark.parametrize("fault", ["secret", "unknown", "malformed", "revoked", "expired", "twice", "basic"])
async def test_every_bad_key_has_one_answer(house, call_of, directory, clocks, fault):
    made = await _key(call_of, house.tenant, house.owner)
    other = await _key(call_of, house.tenant, house.owner)
    scope = with_key(made.key)
    assert await directory.authenticate(scope)
    directory.remembered.forget()
    match fault:
        case "secret":
            scope = with_key(made.key[:-43] + other.key[-43:])
        case "unknown":
            scope = with_key(made.key.replace(made.key_id, "a" * 16))
        case "malformed":
            scope = with_key(made.key + "x")
        case "revoked":
            async with call_of(house.tenant, house.owner) as call:
                await operations.archive(call, resources.api_keys, made.id)
        case "expired":
            clocks.now = made.expires_at
        case "twice":
            scope = {"headers": scope["headers"] * 2}
        case "basic":
            scope = {"headers": [(b"authorization", b"Basic YTpi")]}
    with pytest.raises(ResolutionError) as refusal:
        await directory.authenticate(scope)
    assert (refusal.value.code, refusal.value.status, str(refusal.value)) == (
        "invalid_credential",
        401,
        "This key is not valid; create another one.",
    )


async def test_a_key_and_a_cookie_that_disagree_are_refused(house, other_house, enter, call_of, directory):
    made = await _key(call_of, house.tenant, house.owner)
    own, foreign = await enter(house.owner_email), await enter(other_house.owner_email)
    both = {"headers": with_key(made.key)["headers"] + with_cookie(own.cookie)["headers"]}
    assert (await directory.authenticate(both)).kind == "personal_key"
    with pytest.raises(ResolutionError) as refusal:
        await directory.authenticate({"headers": with_key(made.key)["headers"] + with_cookie(foreign.cookie)["headers"]})
    assert refusal.value.code == "credential_conflict"


async def test_use_is_noted_at_most_once_a_minute(house, call_of, directory, clocks, database):
    made = await _key(call_of, house.tenant, house.owner)
    for seconds in (0, 30, 90):
        clocks.now, clocks.monotonic_s = NOW + timedelta(seconds=seconds), seconds
        await directory.authenticate(with_key(made.key))
        async with database.people() as session:
            used_at = (await session.scalars(select(ApiKey.last_used_at).where(ApiKey.id == made.id))).one()
        assert used_at == NOW + timedelta(seconds=90 if seconds == 90 else 0)


async def test_a_rotated_key_overlaps_with_its_successor_and_ends(house, call_of, directory, clocks):
    made = await _key(call_of, house.tenant, house.owner)
    async with call_of(house.tenant, house.owner) as call:
        after = await rotate.run(call, await call.load(ApiKey, made.id, lock=True), Rotation(overlap_hours=1))
    assert await directory.authenticate(with_key(made.key))
    assert await directory.authenticate(with_key(after.key))
    clocks.now = NOW + timedelta(hours=2)
    assert await directory.authenticate(with_key(after.key))
    with pytest.raises(ResolutionError):
        await directory.authenticate(with_key(made.key))


async def test_anothers_key_can_be_revoked_by_an_administrator_and_used_by_nobody_else(house, add, call_of):
    member = await add(house.tenant, f"mel@{house.tenant.slug}.example")
    made = await _key(call_of, house.tenant, member)
    owners = await _key(call_of, house.tenant, house.owner)
    with pytest.raises(Forbidden):
        async with call_of(house.tenant, house.owner) as call:
            await operations.act(call, resources.api_keys, rotate, {}, row_id=made.id)
    with pytest.raises(Forbidden):
        async with call_of(house.tenant, house.owner) as call:
            await operations.update(call, resources.api_keys, made.id, {"name": "mine now"})
    with pytest.raises(Forbidden):
        async with call_of(house.tenant, member) as call:
            await operations.archive(call, resources.api_keys, owners.id)
    async with call_of(house.tenant, house.owner) as call:
        await operations.archive(call, resources.api_keys, made.id)
    with pytest.raises(RowhouseError) as refusal:
        async with call_of(house.tenant, house.owner) as call:
            await operations.restore(call, resources.api_keys, made.id)
    assert refusal.value.code == "key_ended"


async def test_a_key_cannot_make_keys_and_a_key_is_not_created_blindly(house, call_of):
    by_key = Principal("personal_key", house.owner.subject_id, house.owner.member_id, Role.OWNER, scopes=frozenset({"*"}))
    with pytest.raises(Forbidden):
        await _key(call_of, house.tenant, by_key)
    with pytest.raises(Invalid):
        async with call_of(house.tenant, house.owner) as call:
            await operations.create(call, resources.api_keys, {"name": "blind"})


async def test_a_secret_does_not_enter_the_audit_log(house, call_of):
    made = await _key(call_of, house.tenant, house.owner)
    async with call_of(house.tenant, house.owner) as call:
        lines = await operations.history(call, resources.api_keys, made.id)
    assert lines[0]["verb"] == "create"
    assert made.key[-43:] not in str(lines)


async def test_a_service_key_reaches_the_workspaces_it_is_granted_and_no_other(
    house, other_house, database, workspace_registry, directory, clocks
):
    new = service_keys.NewServiceKey(name="billing", scopes=("workspace:read",), grants={house.tenant.id: Role.VIEWER})
    with system_scope(reason="the billing service"):
        made = await service_keys.create_service_key(database, workspace_registry, new, now=NOW)
    credential = await directory.authenticate(with_key(made.key))
    assert (credential.kind, credential.grants) == ("service_key", frozenset({house.tenant.id}))
    assert (await directory.member(credential, house.tenant.id)).role == "VIEWER"
    assert await directory.member(credential, other_house.tenant.id) is None
    with system_scope(reason="billing left this one"):
        await service_keys.withdraw(database, made.key_id, house.tenant.id, now=NOW)
        after = await service_keys.rotate_service_key(database, made.key_id, now=NOW)
    clocks.monotonic_s += 0.5
    assert await directory.member(credential, house.tenant.id) is None
    with pytest.raises(ResolutionError):
        await directory.authenticate(with_key(made.key))
    assert (await directory.authenticate(with_key(after.key))).grants == frozenset()


async def test_a_label_is_given_once_and_nothing_is_left_of_a_refused_workspace(house, database):
    email = f"second@{house.tenant.slug}.example"
    new = tenants.NewTenant(name="Again", slug=house.tenant.slug, owner_email=email, owner_name="Eve", owner_password=PASSWORD)
    with system_scope(reason="the identity tests"), pytest.raises(tenants.SlugTaken):
        await tenants.create_tenant(database, new, now=NOW)
    async with database.people() as session:
        assert (await session.scalars(select(func.count()).select_from(User).where(User.email_norm == email))).one() == 0


async def test_the_operators_list_counts_active_members(house, add, database):
    await add(house.tenant, f"mel@{house.tenant.slug}.example")
    with system_scope(reason="looking around"):
        found = {summary.tenant.id: summary for summary in await tenants.list_tenants(database)}
    assert found[house.tenant.id].members == 2

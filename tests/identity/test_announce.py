"""Word of a change reaches every process, and a process that cannot hear believes nothing for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import psycopg
import pytest
from houses import NOW, with_cookie
from sqlalchemy import make_url, update

from partywall import system_scope
from rowhouse.core import operations
from rowhouse.core.db import Database
from rowhouse.core.errors import Unauthenticated
from rowhouse.identity import resources, sessions, tenants
from rowhouse.identity.announce import Listener
from rowhouse.identity.directory import IdentityDirectory
from rowhouse.identity.models import User
from rowhouse.identity.remembered import Remembered
from rowhouse.migrate import Addresses
from rowhouse.pipeline import conninfo_of
from rowhouse.settings import Settings


@pytest.fixture
async def hearing(database: Database, settings: Settings, addresses: Addresses) -> AsyncIterator[IdentityDirectory]:
    """The directory of another process, which listens; its memory would keep an answer for an hour."""
    remembered = Remembered(0.0, told_life_s=3600)
    listener = Listener(conninfo_of(addresses.direct["identity"]), [remembered])
    listener.start()
    await until(lambda: remembered.is_told)
    yield IdentityDirectory(database, settings, remembered=remembered, now=lambda: NOW)
    await listener.stop()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  # what is waited for comes from another connection
            await asyncio.sleep(0.01)


async def test_an_answer_is_kept_while_nothing_changes(house, enter, hearing):
    opened = await enter(house.owner_email)
    await hearing.authenticate(with_cookie(opened.cookie))
    asked = len(hearing.remembered._kept)
    assert asked == 1
    hearing.now = lambda: NOW + timedelta(minutes=5)
    assert await hearing.authenticate(with_cookie(opened.cookie))
    assert len(hearing.remembered._kept) == asked


async def test_a_revoked_log_in_is_forgotten_by_another_process(house, enter, hearing, database):
    opened = await enter(house.owner_email)
    assert await hearing.authenticate(with_cookie(opened.cookie)) is not None
    await sessions.revoke_session(database, opened.user_id, opened.session_id, now=NOW)
    await until(lambda: not hearing.remembered._kept)
    assert await hearing.authenticate(with_cookie(opened.cookie)) is None


async def test_an_ended_membership_is_forgotten_and_nobody_elses(house, other_house, add, enter, call_of, hearing):
    email = f"mel@{house.tenant.slug}.example"
    member = await add(house.tenant, email)
    cookie = await hearing.authenticate(with_cookie((await enter(email)).cookie))
    other = await hearing.authenticate(with_cookie((await enter(other_house.owner_email)).cookie))
    assert await hearing.member(cookie, house.tenant.id)
    assert await hearing.member(other, other_house.tenant.id)
    key = ("member", "session", other.subject_id, other.tenant_id, other_house.tenant.id)
    async with call_of(house.tenant, house.owner) as call:
        await operations.archive(call, resources.members, member.subject_id)
    await until(lambda: not any(member.subject_id in kept for kept in hearing.remembered._kept))
    assert await hearing.member(cookie, house.tenant.id) is None
    assert key in hearing.remembered._kept


async def test_a_suspended_workspace_is_forgotten(house, hearing, database):
    assert (await hearing.tenant_by_slug(house.tenant.slug)).status == "ACTIVE"
    with system_scope(reason="unpaid since March"):
        await tenants.suspend(database, house.tenant.slug, now=NOW)
    await until(lambda: not hearing.remembered._kept)
    assert (await hearing.tenant_by_slug(house.tenant.slug)).status == "SUSPENDED"
    with system_scope(reason="they have paid"):
        await tenants.resume(database, house.tenant.slug, now=NOW)


async def test_a_failed_log_in_makes_nobody_forget_anything(house, enter, hearing):
    opened = await enter(house.owner_email)
    await hearing.authenticate(with_cookie(opened.cookie))
    before = hearing.remembered._forgotten
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await enter(house.owner_email, password="wrong and wrong")
    assert await hearing.tenant_by_slug(house.tenant.slug)
    # What was told before this would have come before it.
    opened_later = await enter(house.owner_email)
    await until(lambda: hearing.remembered._forgotten > before)
    assert hearing.remembered._forgotten == before + 1, opened_later


async def test_a_bulk_statement_that_names_nobody_makes_everybody_forget_everything(house, enter, hearing, database):
    opened = await enter(house.owner_email)
    await hearing.authenticate(with_cookie(opened.cookie))
    await hearing.tenant_by_slug(house.tenant.slug)
    assert len(hearing.remembered._kept) == 2
    async with database.people() as session:
        await session.execute(update(User).where(User.id == opened.user_id).values(name="Ada"))
    await until(lambda: not hearing.remembered._kept)
    assert hearing.remembered._kept == {}


async def test_what_is_rolled_back_is_not_told(house, enter, hearing, database):
    opened = await enter(house.owner_email)
    await hearing.authenticate(with_cookie(opened.cookie))
    before = hearing.remembered._forgotten
    async with database.people() as session:
        await session.execute(update(User).where(User.id == opened.user_id).values(name="Ada"))
        await session.rollback()
    await enter(house.owner_email)
    await until(lambda: hearing.remembered._forgotten > before)
    assert hearing.remembered._forgotten == before + 1


async def test_a_listener_that_lost_its_connection_forgets_and_hears_again(house, hearing, addresses):
    await hearing.tenant_by_slug(house.tenant.slug)
    before = hearing.remembered._forgotten
    url = make_url(addresses.admin).set(drivername="postgresql").render_as_string(hide_password=False)

    def end() -> int:
        with psycopg.connect(url, autocommit=True) as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = %s"
            return connection.execute(query, [addresses.roles.identity]).rowcount

    assert await asyncio.to_thread(end) >= 1
    await until(lambda: hearing.remembered._forgotten > before)
    await until(lambda: hearing.remembered.is_told)
    assert not hearing.remembered._kept


async def test_an_answer_asked_before_word_of_a_change_is_not_kept_long():
    time_s = [0.0]
    remembered = Remembered(0.4, told_life_s=3600, monotonic=lambda: time_s[0])
    remembered.is_told = True
    answers = iter((1, 2, 3))

    async def overtaken() -> int:
        remembered.forget_about(["somebody else"])
        return next(answers)

    async def plain() -> int:
        return next(answers)

    assert await remembered.get(("member",), overtaken) == 1
    time_s[0] = 0.5
    assert await remembered.get(("member",), plain) == 2
    time_s[0] = 3000.0
    assert await remembered.get(("member",), plain) == 2
    remembered.is_told = False
    remembered.forget()
    assert await remembered.get(("member",), plain) == 3

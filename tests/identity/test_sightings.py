"""When a credential was last used is written down together, and never brings back what has ended."""

from __future__ import annotations

from datetime import timedelta

from houses import NOW, with_cookie
from sqlalchemy import select

from rowhouse.identity import sessions
from rowhouse.identity.models import UserSession
from rowhouse.identity.sightings import Sightings

LATER = NOW + timedelta(minutes=5)
UNTIL = LATER + timedelta(days=14)


async def seen_at(database, session_id):
    async with database.people() as session:
        return (
            await session.execute(select(UserSession.last_seen_at, UserSession.expires_at).where(UserSession.id == session_id))
        ).one()


async def test_without_a_background_it_is_written_at_once(house, enter, directory, clocks, database):
    opened = await enter(house.owner_email)
    clocks.now = LATER
    assert await directory.authenticate(with_cookie(opened.cookie))
    assert (await seen_at(database, opened.session_id))[0] == LATER


async def test_in_the_background_it_is_written_together_and_at_the_end(house, enter, database):
    opened = [await enter(house.owner_email) for _ in range(3)]
    sightings = Sightings(database)
    sightings.start()
    for one in opened:
        await sightings.note("session", one.session_id, LATER, until=UNTIL)
    assert {(await seen_at(database, one.session_id))[0] for one in opened} == {NOW}
    await sightings.stop()
    assert {await seen_at(database, one.session_id) for one in opened} == {(LATER, UNTIL)}


async def test_a_log_in_that_has_ended_meanwhile_stays_as_it_was(house, enter, database):
    opened = await enter(house.owner_email)
    sightings = Sightings(database)
    sightings.start()
    await sightings.note("session", opened.session_id, LATER, until=UNTIL)
    await sessions.revoke_session(database, opened.user_id, opened.session_id, now=NOW)
    await sightings.stop()
    assert (await seen_at(database, opened.session_id))[0] == NOW

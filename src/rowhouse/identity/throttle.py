"""Counts log-in attempts per address and per network, in the database, so that all processes share the count.

An attempt is counted before the password is looked at, so that many at once are held too. Known and unknown addresses
are treated alike: being held says nothing about who has an account.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

from sqlalchemy import and_, case, delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from partywall import uuid7
from rowhouse.core.db import Database
from rowhouse.core.errors import TooMany
from rowhouse.identity.models import LoginAttempt
from rowhouse.identity.tokens import secret_hash

WINDOW = timedelta(minutes=15)
MOST_PER_ADDRESS, MOST_PER_NETWORK = 10, 50


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose attempts are counted, and how many failures a window allows."""

    name: str
    most: int


def subjects_of(email_norm: str, ip: str) -> tuple[Subject, ...]:
    """Return what an attempt counts against: the address (hashed) and, when known, the network of the caller."""
    address = Subject(f"email:{secret_hash('throttle', email_norm).hex()}", MOST_PER_ADDRESS)
    network = network_of(ip)
    return (address, Subject(f"ip:{network}", MOST_PER_NETWORK)) if network else (address,)


def network_of(ip: str) -> str:
    """Return what counts as one caller: an IPv4 address, or the /64 of an IPv6 one; "" when there is none."""
    try:
        address = ip_address(ip)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)


async def count_attempt(database: Database, subjects: tuple[Subject, ...], now: datetime) -> None:
    """Count an attempt.  Raises TooMany, with the seconds to wait, when one of the subjects is held."""
    async with database.people() as session:
        wait_s = max([await _count(session, subject, now) for subject in subjects])
    if wait_s:
        minutes = -(-wait_s // 60)
        raise TooMany(f"Too many attempts; try again in {minutes} min.", code="too_many_attempts", retry_after_s=wait_s)


async def _count(session: AsyncSession, subject: Subject, now: datetime) -> int:
    """Add one to a subject's count and return the seconds it has to wait, 0 for none."""
    over = LoginAttempt.window_start <= now - WINDOW
    statement = (
        insert(LoginAttempt)
        .values(id=uuid7(), subject=subject.name, window_start=now, count=1)
        .on_conflict_do_update(
            index_elements=[LoginAttempt.subject],
            set_={
                # Capped, so that a subject held for long does not run out of numbers.
                "count": case((over, 1), else_=func.least(LoginAttempt.count + 1, 10_000)),
                "window_start": case((over, now), else_=LoginAttempt.window_start),
            },
        )
        .returning(LoginAttempt.count, LoginAttempt.window_start)
    )
    count, start = (await session.execute(statement)).one()
    return max(1, int((start + WINDOW - now).total_seconds())) if count > subject.most else 0


async def note_failure(session: AsyncSession, subjects: tuple[Subject, ...], now: datetime) -> bool:
    """Note that a counted attempt failed: the one that used up the last try starts the waiting time.

    Returns whether the address is held from now on.
    """
    held: list[str] = []
    for subject in subjects:
        used_up = and_(LoginAttempt.subject == subject.name, LoginAttempt.count == subject.most)
        statement = update(LoginAttempt).where(used_up).values(window_start=now)
        held += (await session.execute(statement.returning(LoginAttempt.subject))).scalars()
    return subjects[0].name in held


async def note_success(session: AsyncSession, subjects: tuple[Subject, ...]) -> None:
    """Forget the address's failures; the network only gets this one attempt back, since it may guess elsewhere too."""
    address, *network = subjects
    await session.execute(delete(LoginAttempt).where(LoginAttempt.subject == address.name))
    for subject in network:
        await session.execute(
            update(LoginAttempt)
            .where(LoginAttempt.subject == subject.name, LoginAttempt.count > 0)
            .values(count=LoginAttempt.count - 1)
        )


async def forget_attempts(database: Database, now: datetime) -> None:
    """Remove counts that no longer hold anybody; the worker runs this daily."""
    async with database.people() as session:
        await session.execute(delete(LoginAttempt).where(LoginAttempt.window_start <= now - WINDOW))

"""Log-ins: opening, listing, moving to another workspace, ending. A cookie's secret is new each time one is opened."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Update, and_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from partywall import Tenant, uuid7
from partywall.resolve import Credential
from rowhouse.core.db import Database
from rowhouse.core.errors import Invalid, NotFound, Unauthenticated
from rowhouse.identity.models import User, UserSession, UserStatus
from rowhouse.identity.passwords import check_password, hash_password, verify_password
from rowhouse.identity.people import Workspace, normalise_email, set_password, workspaces
from rowhouse.identity.throttle import WINDOW, count_attempt, note_failure, note_success, subjects_of
from rowhouse.identity.tokens import keyed_hash, new_secret, secret_hash
from rowhouse.settings import Settings


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request came from, as shown in the list of one's own log-ins."""

    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class LogIn:
    """One attempt to log in. tenant: the workspace of the host it was made at, if any."""

    email: str
    password: str
    tenant: Tenant | None = None
    client: Client = field(default_factory=Client)


@dataclass(frozen=True, slots=True)
class PasswordChange:
    """A person's wish for a new password, with the one they have."""

    current: str
    new: str
    client: Client = field(default_factory=Client)


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A log-in just opened. cookie: its secret, for `tokens.set_cookie`; it is not stored and cannot be shown again."""

    session_id: UUID
    user_id: UUID
    tenant_id: UUID | None
    expires_at: datetime
    cookie: str
    workspaces: tuple[Workspace, ...]


@dataclass(frozen=True, slots=True)
class SessionView:
    """One open log-in, as its owner sees it."""

    id: UUID
    tenant_id: UUID | None
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    ip: str
    user_agent: str


async def log_in(database: Database, settings: Settings, attempt: LogIn, *, now: datetime) -> LoggedIn:
    """Open a log-in, bound to the given workspace if the person is a member, else to their only one, else to none.

    Raises Unauthenticated with one text for every reason, TooMany after 10 failures for the address or 50 from the
    network within 15 minutes.
    """
    user_id = await prove_password(database, attempt, now=now)
    async with database.people() as session:
        seen = update(User).where(User.id == user_id).values(last_login_at=now)
        await session.execute(seen.execution_options(announces=()))
        found = await workspaces(session, user_id)
        seat = _Seat(user_id, _choose(found, attempt.tenant), attempt.client, tuple(found))
        return await _open(session, settings, seat, now)


async def prove_password(database: Database, attempt: LogIn, *, now: datetime) -> UUID:
    """Return the person an address and a password belong to; throttled, and the same work for an unknown address.

    Raises Unauthenticated, TooMany.
    """
    try:
        email_norm = normalise_email(attempt.email)
    except Invalid:
        # Counted and hashed like every other, under what was sent.
        email_norm = attempt.email[:254].lower()
    subjects = subjects_of(email_norm, attempt.client.ip)
    await count_attempt(database, subjects, now)
    async with database.people() as session:
        user = (await session.scalars(select(User).where(User.email_norm == email_norm))).one_or_none()
    is_right, fresh_hash = await verify_password(attempt.password, user.password_hash if user else None)
    async with database.people() as session:
        if user is None or not is_right or user.status != UserStatus.ACTIVE:
            is_held = await note_failure(session, subjects, now)
            # For the operator to see; what holds an address, known or not, is its count.
            seen = {"failed_count": User.failed_count + 1, **({"locked_until": now + WINDOW} if is_held else {})}
            statement = update(User).where(User.email_norm == email_norm).values(seen)
            await session.execute(statement.execution_options(announces=()))
        else:
            await note_success(session, subjects)
            cleared = {"failed_count": 0, "locked_until": None, **({"password_hash": fresh_hash} if fresh_hash else {})}
            statement = update(User).where(User.id == user.id).values(cleared)
            await session.execute(statement.execution_options(announces=()))
            return user.id
    raise Unauthenticated("The e-mail address or the password is wrong.", code="invalid_login")


def _choose(found: Sequence[Workspace], tenant: Tenant | None) -> UUID | None:
    ids = [workspace.tenant_id for workspace in found]
    if tenant is not None and tenant.id in ids:
        return tenant.id
    return ids[0] if len(ids) == 1 else None


async def switch_tenant(
    database: Database, settings: Settings, credential: Credential, tenant_id: UUID, *, client: Client, now: datetime
) -> LoggedIn:
    """Move a log-in to another of the person's workspaces: the old one ends, a new one opens.

    Raises Unauthenticated when the log-in has ended, NotFound for a workspace that is unknown or not the person's.
    """
    async with database.people() as session:
        this = credential.credential_id
        ended = await session.scalars(_end(UserSession.id == this, now, about=this).returning(UserSession.user_id))
        user_id = ended.one_or_none()
        if user_id is None or credential.kind != "session":
            raise Unauthenticated("Sign in again.", code="session_ended")
        found = await workspaces(session, user_id)
        if tenant_id not in {workspace.tenant_id for workspace in found}:
            raise NotFound("This workspace does not exist, or you are not a member of it.", code="tenant_not_found")
        return await _open(session, settings, _Seat(user_id, tenant_id, client, tuple(found)), now)


async def log_out(database: Database, credential: Credential, *, now: datetime) -> None:
    """End the log-in of a request; ending it again changes nothing."""
    async with database.people() as session:
        await session.execute(_end(UserSession.id == credential.credential_id, now, about=credential.credential_id))


async def log_out_everywhere(database: Database, user_id: UUID, *, keep: UUID | None = None, now: datetime) -> None:
    """End every log-in of a person, but one if it is named."""
    async with database.people() as session:
        await _end_all(session, user_id, keep, now)


async def list_sessions(database: Database, user_id: UUID, *, now: datetime) -> list[SessionView]:
    """Return a person's open log-ins, the one used last first."""
    statement = (
        select(UserSession)
        .where(UserSession.user_id == user_id, UserSession.revoked_at.is_(None), UserSession.expires_at > now)
        .order_by(UserSession.last_seen_at.desc(), UserSession.id)
    )
    async with database.people() as session:
        rows = (await session.scalars(statement)).all()
    return [
        SessionView(row.id, row.tenant_id, row.created_at, row.last_seen_at, row.expires_at, row.ip, row.user_agent)
        for row in rows
    ]


async def revoke_session(database: Database, user_id: UUID, session_id: UUID, *, now: datetime) -> None:
    """End one of a person's log-ins.  Raises NotFound for one that is not theirs or has ended."""
    async with database.people() as session:
        mine = and_(UserSession.id == session_id, UserSession.user_id == user_id)
        if (await session.scalars(_end(mine, now, about=session_id).returning(UserSession.id))).one_or_none() is None:
            raise NotFound("There is no such log-in.")


async def change_password(database: Database, credential: Credential, change: PasswordChange, *, now: datetime) -> None:
    """Set a person's own new password and end their other log-ins.

    Raises Unauthenticated for a wrong current password (throttled like log-in), Invalid for a new one that is too weak.
    """
    async with database.people() as session:
        email = (await session.scalars(select(User.email).where(User.id == credential.subject_id))).one()
    check_password(change.new, email=email, field="new")
    await prove_password(database, LogIn(email, change.current, client=change.client), now=now)
    new_hash = await hash_password(change.new)
    async with database.people() as session:
        await set_password(session, credential.subject_id, new_hash)
        await _end_all(session, credential.subject_id, credential.credential_id, now)


async def reset_password(database: Database, email: str, password: str, *, now: datetime) -> UUID:
    """Set a person's password on the operator's word that the address is theirs, end their log-ins, return their id.

    Raises NotFound for an unknown address, Invalid for a weak password.
    """
    email_norm = normalise_email(email)
    check_password(password, email=email_norm)
    new_hash = await hash_password(password)
    async with database.people() as session:
        values = {"password_hash": new_hash, "email_proven_at": now, "failed_count": 0, "locked_until": None}
        statement = update(User).where(User.email_norm == email_norm).values(values).returning(User.id)
        user_id = (await session.scalars(statement, execution_options={"announces": ()})).one_or_none()
        if user_id is None:
            raise NotFound(f"There is no account for {email_norm}.")
        await note_success(session, subjects_of(email_norm, ""))
        await _end_all(session, user_id, None, now)
    return user_id


def csrf_token(settings: Settings, credential: Credential) -> str:
    """Return the token a page sends with every change; it belongs to one log-in and ends with it."""
    return keyed_hash(settings.secret, "csrf", str(credential.credential_id)).hex()


def csrf_matches(settings: Settings, credential: Credential, offered: str) -> bool:
    """Return whether the offered token is the one of this log-in."""
    return hmac.compare_digest(csrf_token(settings, credential).encode(), offered.encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class _Seat:
    user_id: UUID
    tenant_id: UUID | None
    client: Client
    workspaces: tuple[Workspace, ...]


async def _open(session: AsyncSession, settings: Settings, seat: _Seat, now: datetime) -> LoggedIn:
    cookie = new_secret()
    row = UserSession(
        id=uuid7(),
        secret_hash=secret_hash("session", cookie),
        user_id=seat.user_id,
        tenant_id=seat.tenant_id,
        created_at=now,
        last_seen_at=now,
        expires_at=now + timedelta(hours=settings.session_hours),
        ip=seat.client.ip[:45],
        user_agent=seat.client.user_agent[:300].replace("\0", ""),
    )
    session.add(row)
    await session.flush()
    return LoggedIn(row.id, row.user_id, row.tenant_id, row.expires_at, cookie, seat.workspaces)


def _end(which: ColumnElement[bool], now: datetime, *, about: UUID) -> Update:
    """Return the ending of log-ins. about: the log-in or the person, as other processes remember them."""
    open_ones = and_(which, UserSession.revoked_at.is_(None), UserSession.expires_at > now)
    return update(UserSession).where(open_ones).values(revoked_at=now).execution_options(announces=(about,))


async def _end_all(session: AsyncSession, user_id: UUID, keep: UUID | None, now: datetime) -> None:
    others = UserSession.user_id == user_id
    await session.execute(_end(others if keep is None else and_(others, UserSession.id != keep), now, about=user_id))

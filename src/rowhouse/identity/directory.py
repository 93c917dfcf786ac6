"""Who is calling, and which workspaces they may reach: the look-ups behind every request.

Answers are remembered for less than half a second, each under the whole of what was asked, so that a revoked log-in,
key or membership and a suspended workspace stop within a second in every process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Update, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from partywall import Tenant
from partywall.errors import ResolutionError, TenantMismatch
from partywall.resolve import Credential, Member
from rowhouse.core import clock
from rowhouse.core.db import Database
from rowhouse.core.permissions import Capability, Principal, Role
from rowhouse.identity.models import (
    ApiKey,
    Membership,
    ServiceKey,
    ServiceKeyGrant,
    TenantRow,
    User,
    UserSession,
    UserStatus,
    VerifiedDomain,
)
from rowhouse.identity.people import SERVED, tenant_of
from rowhouse.identity.remembered import Remembered
from rowhouse.identity.tokens import COOKIE, KeyText, is_cookie_value, read_key, same, secret_hash
from rowhouse.settings import Settings

SEEN_AT_MOST_EVERY = timedelta(seconds=60)

_T = TypeVar("_T")

# ASGI leaves the values of scopes open.
Scope = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Proof:
    """A credential as the database holds it, and until when it counts."""

    credential: Credential
    expires_at: datetime


class IdentityDirectory:
    """The look-ups of `partywall.resolve.Directory`, and the authenticator of `TenantMiddleware`."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        remembered: Remembered | None = None,
        now: Callable[[], datetime] = clock.utc_now,
    ) -> None:
        self.database, self.settings, self.now = database, settings, now
        self.remembered = remembered or Remembered()

    async def tenant_by_slug(self, slug: str) -> Tenant | None:
        """Return the workspace with this slug, whatever its status."""
        return await self._ask(("slug", slug), lambda session: _tenant(session, TenantRow.slug == slug))

    async def tenant_by_id(self, tenant_id: UUID) -> Tenant | None:
        """Return the workspace with this id, whatever its status."""
        return await self._ask(("id", tenant_id), lambda session: _tenant(session, TenantRow.id == tenant_id))

    async def tenant_by_domain(self, domain: str) -> Tenant | None:
        """Return the workspace that has proven this domain."""
        owner = select(VerifiedDomain.tenant_id).where(VerifiedDomain.domain == domain).scalar_subquery()
        return await self._ask(("domain", domain), lambda session: _tenant(session, TenantRow.id == owner))

    async def memberships(self, credential: Credential) -> Sequence[UUID]:
        """Return the served workspaces the caller is a member of, oldest membership first, or is granted."""
        key = ("memberships", credential.kind, credential.subject_id, credential.tenant_id, credential.grants)
        return await self._ask(key, lambda session: _memberships(session, credential))

    async def member(self, credential: Credential, tenant_id: UUID) -> Member | None:
        """Return the caller's membership of, or grant for, a workspace, as it is now."""
        key = ("member", credential.kind, credential.subject_id, credential.tenant_id, tenant_id)
        return await self._ask(key, lambda session: _member(session, credential, tenant_id))

    async def authenticate(self, scope: Scope) -> Credential | None:
        """Return who is calling: by key (Authorization: Bearer rh_…) or by the cookie of a log-in; None for a stranger.

        A cookie that is no longer good makes a stranger, who can log in again.  Raises ResolutionError
        "invalid_credential" (401), the same for every fault of a key, and "credential_conflict" (400) for a key and a
        cookie of different people or workspaces.
        """
        headers = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        session = await self._session_of(scope)
        if not headers:
            return session
        key = await self._key_of(headers)
        if session is not None and (session.subject_id != key.subject_id or session.tenant_id not in (None, key.tenant_id)):
            raise ResolutionError("credential_conflict", "The key and the cookie name different callers; send one.", status=400)
        return key

    async def _session_of(self, scope: Scope) -> Credential | None:
        value = _cookie(scope)
        if value is None:
            return None
        offered = secret_hash("session", value)
        proof = await self._ask(("session", offered), lambda session: self._session(session, offered))
        return proof.credential if proof is not None and proof.expires_at > self.now() else None

    async def _session(self, session: AsyncSession, offered: bytes) -> _Proof | None:
        now = self.now()
        statement = (
            select(UserSession)
            .join(User, User.id == UserSession.user_id)
            .where(UserSession.secret_hash == offered, UserSession.revoked_at.is_(None), UserSession.expires_at > now)
            .where(User.status == UserStatus.ACTIVE)
        )
        row = (await session.scalars(statement)).one_or_none()
        if row is None or not same(row.secret_hash, offered):
            return None
        if row.last_seen_at < now - SEEN_AT_MOST_EVERY:
            row.last_seen_at, row.expires_at = now, now + timedelta(hours=self.settings.session_hours)
            values = {"last_seen_at": row.last_seen_at, "expires_at": row.expires_at}
            # Not through the row: an end written meanwhile by another process must stay.
            session.expunge(row)
            still_open = (UserSession.id == row.id, UserSession.revoked_at.is_(None))
            await session.execute(update(UserSession).where(*still_open).values(values))
        return _Proof(Credential("session", row.user_id, row.id, row.tenant_id), row.expires_at)

    async def _key_of(self, headers: Sequence[bytes]) -> Credential:
        text = headers[0].decode("latin-1")
        scheme, _, value = text.partition(" ")
        key = read_key(value.strip()) if len(headers) == 1 and scheme.lower() == "bearer" else None
        if key is None:
            raise _invalid_credential()
        offered = secret_hash("key", key.secret)
        look_up = self._personal_key if key.kind == "pk" else self._service_key
        proof = await self._ask(("key", key.kind, key.key_id, offered), lambda session: look_up(session, key, offered))
        if proof is None or proof.expires_at <= self.now():
            raise _invalid_credential()
        return proof.credential

    async def _personal_key(self, session: AsyncSession, key: KeyText, offered: bytes) -> _Proof | None:
        now = self.now()
        statement = (
            select(ApiKey)
            .join(User, User.id == ApiKey.member_id)
            .where(ApiKey.key_id == key.key_id, ApiKey.archived_at.is_(None), ApiKey.expires_at > now)
            .where(User.status == UserStatus.ACTIVE)
        )
        # The column is unique per workspace only, so the secret decides between workspaces.
        for row in (await session.scalars(statement)).all():
            if same(row.secret_hash, offered):
                if _is_stale(row.last_used_at, now):
                    mine = (ApiKey.tenant_id == row.tenant_id, ApiKey.id == row.id)
                    await session.execute(_touch(ApiKey, mine, now))
                scopes = frozenset(row.scopes)
                return _Proof(Credential("personal_key", row.member_id, row.id, row.tenant_id, scopes=scopes), row.expires_at)
        return None

    async def _service_key(self, session: AsyncSession, key: KeyText, offered: bytes) -> _Proof | None:
        now = self.now()
        statement = select(ServiceKey).where(
            ServiceKey.key_id == key.key_id, ServiceKey.revoked_at.is_(None), ServiceKey.expires_at > now
        )
        row = (await session.scalars(statement)).one_or_none()
        if row is None or not same(row.secret_hash, offered):
            return None
        if _is_stale(row.last_used_at, now):
            await session.execute(_touch(ServiceKey, (ServiceKey.id == row.id,), now))
        grants = select(ServiceKeyGrant.tenant_id).where(
            ServiceKeyGrant.service_key_id == row.id, ServiceKeyGrant.revoked_at.is_(None)
        )
        granted = frozenset((await session.scalars(grants)).all())
        return _Proof(Credential("service_key", row.id, row.id, None, granted, frozenset(row.scopes)), row.expires_at)

    async def _ask(self, key: tuple[Any, ...], question: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
        async def ask() -> _T:
            async with self.database.people() as session:
                return await question(session)

        return await self.remembered.get(key, ask)


def principal_of(credential: Credential, member: Member) -> Principal:
    """Return the caller of a workspace's operations: the membership's rights, narrowed by a key's scopes.

    Raises TenantMismatch when the membership is not the credential's.
    """
    if member.subject_id != credential.subject_id or credential.tenant_id not in (None, member.tenant_id):
        raise TenantMismatch(f"the membership of {member.subject_id} is not that of credential {credential.credential_id}")
    return Principal(
        kind=credential.kind,
        subject_id=credential.subject_id,
        member_id=None if credential.kind == "service_key" else credential.subject_id,
        role=Role(member.role),
        capabilities=frozenset(known for known in Capability if known in member.capabilities),
        scopes=None if credential.kind == "session" else credential.scopes,
        credential_id=credential.credential_id,
    )


def _cookie(scope: Scope) -> str | None:
    """Return the log-in's cookie; None when there is none, several, or one that cannot be ours."""
    found: list[str] = []
    for name, value in scope["headers"]:
        if name.lower() == b"cookie":
            pairs = (part.strip().partition("=") for part in value.decode("latin-1").split(";"))
            found += [text for cookie, _, text in pairs if cookie == COOKIE]
    return found[0] if len(found) == 1 and is_cookie_value(found[0]) else None


def _invalid_credential() -> ResolutionError:
    return ResolutionError("invalid_credential", "This key is not valid; create another one.", status=401)


def _is_stale(last_used_at: datetime | None, now: datetime) -> bool:
    return last_used_at is None or last_used_at < now - SEEN_AT_MOST_EVERY


def _touch(model: type[ApiKey] | type[ServiceKey], which: Sequence[ColumnElement[bool]], now: datetime) -> Update:
    return update(model).where(*which).values(last_used_at=now).execution_options(synchronize_session=False)


async def _tenant(session: AsyncSession, which: ColumnElement[bool]) -> Tenant | None:
    row = (await session.scalars(select(TenantRow).where(which))).one_or_none()
    return tenant_of(row) if row is not None else None


async def _memberships(session: AsyncSession, credential: Credential) -> Sequence[UUID]:
    statement = select(TenantRow.id).where(TenantRow.status.in_(SERVED))
    if credential.kind == "service_key":
        statement = statement.where(TenantRow.id.in_(credential.grants)).order_by(TenantRow.id)
    else:
        statement = (
            statement.join(Membership, Membership.tenant_id == TenantRow.id)
            .where(Membership.id == credential.subject_id, Membership.archived_at.is_(None))
            .order_by(Membership.created_at, TenantRow.id)
        )
    if credential.tenant_id is not None:
        statement = statement.where(TenantRow.id == credential.tenant_id)
    return tuple((await session.scalars(statement)).all())


async def _member(session: AsyncSession, credential: Credential, tenant_id: UUID) -> Member | None:
    if credential.tenant_id not in (None, tenant_id):
        return None
    if credential.kind == "service_key":
        granted = select(ServiceKeyGrant.role).where(
            ServiceKeyGrant.service_key_id == credential.subject_id,
            ServiceKeyGrant.tenant_id == tenant_id,
            ServiceKeyGrant.revoked_at.is_(None),
        )
        role = (await session.scalars(granted)).one_or_none()
        return Member(credential.subject_id, tenant_id, role) if role is not None else None
    statement = select(Membership).where(
        Membership.tenant_id == tenant_id, Membership.id == credential.subject_id, Membership.archived_at.is_(None)
    )
    row = (await session.scalars(statement)).one_or_none()
    return Member(row.id, row.tenant_id, row.role, frozenset(row.capabilities)) if row is not None else None

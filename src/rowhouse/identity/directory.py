"""Who is calling, and which workspaces they may reach: the look-ups behind every request.

Answers are remembered, each under the whole of what was asked, and forgotten when word of a change comes (`announce`), so
that a revoked log-in, key or membership and a suspended workspace stop within a second in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from partywall import Tenant
from partywall.errors import ResolutionError, TenantMismatch
from partywall.resolve import Credential, Member
from rowhouse import clock
from rowhouse.core.db import Database
from rowhouse.core.permissions import Capability, Principal, Role
from rowhouse.exchange import of_people
from rowhouse.identity import lookups
from rowhouse.identity.people import SERVED
from rowhouse.identity.remembered import Remembered
from rowhouse.identity.sightings import Sightings
from rowhouse.identity.tokens import COOKIE, KeyText, is_cookie_value, read_key, same, secret_hash
from rowhouse.settings import Settings

SEEN_AT_MOST_EVERY = timedelta(seconds=60)

_NONE: frozenset[Capability] = frozenset()

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
        self.sightings = Sightings(database)

    async def tenant_by_slug(self, slug: str) -> Tenant | None:
        """Return the workspace with this slug, whatever its status."""
        return await self.remembered.get(("slug", slug), lambda: self._tenant(lookups.TENANT_BY_SLUG, slug=slug))

    async def tenant_by_id(self, tenant_id: UUID) -> Tenant | None:
        """Return the workspace with this id, whatever its status."""
        return await self.remembered.get(("id", tenant_id), lambda: self._tenant(lookups.TENANT_BY_ID, tenant_id=tenant_id))

    async def tenant_by_domain(self, domain: str) -> Tenant | None:
        """Return the workspace that has proven this domain."""
        return await self.remembered.get(("domain", domain), lambda: self._tenant(lookups.TENANT_BY_DOMAIN, domain=domain))

    async def memberships(self, credential: Credential) -> Sequence[UUID]:
        """Return the served workspaces the caller is a member of, oldest membership first, or is granted."""
        key = ("memberships", credential.kind, credential.subject_id, credential.tenant_id, credential.grants)
        return await self.remembered.get(key, lambda: self._memberships(credential))

    async def member(self, credential: Credential, tenant_id: UUID) -> Member | None:
        """Return the caller's membership of, or grant for, a workspace, as it is now."""
        key = ("member", credential.kind, credential.subject_id, credential.tenant_id, tenant_id)
        return await self.remembered.get(key, lambda: self._member(credential, tenant_id))

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
        proof = await self.remembered.get(("session", offered), lambda: self._session(offered))
        return proof.credential if proof is not None and proof.expires_at > self.now() else None

    async def _session(self, offered: bytes) -> _Proof | None:
        now = self.now()
        found = await self._rows(lookups.SESSION, secret=offered, now=now)
        if not found:
            return None
        session_id, user_id, tenant_id, expires_at, last_seen_at = found[0]
        if last_seen_at < now - SEEN_AT_MOST_EVERY:
            expires_at = now + timedelta(hours=self.settings.session_hours)
            await self.sightings.note("session", session_id, now, until=expires_at)
        return _Proof(Credential("session", user_id, session_id, tenant_id), expires_at)

    async def _key_of(self, headers: Sequence[bytes]) -> Credential:
        text = headers[0].decode("latin-1")
        scheme, _, value = text.partition(" ")
        key = read_key(value.strip()) if len(headers) == 1 and scheme.lower() == "bearer" else None
        if key is None:
            raise _invalid_credential()
        offered = secret_hash("key", key.secret)
        look_up = self._personal_key if key.kind == "pk" else self._service_key
        proof = await self.remembered.get(("key", key.kind, key.key_id, offered), lambda: look_up(key, offered))
        if proof is None or proof.expires_at <= self.now():
            raise _invalid_credential()
        return proof.credential

    async def _personal_key(self, key: KeyText, offered: bytes) -> _Proof | None:
        now = self.now()
        # The column is unique per workspace only, so the secret decides between workspaces.
        for row in await self._rows(lookups.PERSONAL_KEYS, key_id=key.key_id, now=now):
            key_id, tenant_id, member_id, secret, scopes, expires_at, last_used_at = row
            if same(secret, offered):
                if _is_stale(last_used_at, now):
                    await self.sightings.note("personal_key", key_id, now, of_tenant=tenant_id)
                return _Proof(Credential("personal_key", member_id, key_id, tenant_id, scopes=frozenset(scopes)), expires_at)
        return None

    async def _service_key(self, key: KeyText, offered: bytes) -> _Proof | None:
        now = self.now()
        rows = await self._rows(lookups.SERVICE_KEY, key_id=key.key_id, now=now)
        if not rows or not same(rows[0][1], offered):
            return None
        key_id, _, scopes, expires_at, last_used_at = rows[0]
        if _is_stale(last_used_at, now):
            await self.sightings.note("service_key", key_id, now)
        grants = frozenset(tenant_id for (tenant_id,) in await self._rows(lookups.GRANTS, service_key_id=key_id))
        return _Proof(Credential("service_key", key_id, key_id, None, grants, frozenset(scopes)), expires_at)

    async def _tenant(self, wanted: lookups.LookUp, **values: Any) -> Tenant | None:
        rows = await self._rows(wanted, **values)
        return Tenant(*rows[0]) if rows else None

    async def _memberships(self, credential: Credential) -> Sequence[UUID]:
        if credential.kind == "service_key":
            found = await self._rows(lookups.GRANTED_TENANTS, served=SERVED, granted=sorted(credential.grants))
        else:
            found = await self._rows(lookups.TENANTS_OF_MEMBER, served=SERVED, member_id=credential.subject_id)
        return tuple(tenant_id for (tenant_id,) in found if credential.tenant_id in (None, tenant_id))

    async def _member(self, credential: Credential, tenant_id: UUID) -> Member | None:
        if credential.tenant_id not in (None, tenant_id):
            return None
        if credential.kind == "service_key":
            roles = await self._rows(lookups.GRANT, service_key_id=credential.subject_id, tenant_id=tenant_id)
            return Member(credential.subject_id, tenant_id, roles[0][0]) if roles else None
        rows = await self._rows(lookups.MEMBER, tenant_id=tenant_id, member_id=credential.subject_id)
        return Member(*rows[0][:3], frozenset(rows[0][3])) if rows else None  # type: ignore[call-arg]  # three of a row

    async def _rows(self, wanted: lookups.LookUp, **values: Any) -> list[tuple[Any, ...]]:
        return await of_people(self.database.look_ups, wanted.ask(values))


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
        capabilities=frozenset(known for known in Capability if known in member.capabilities) if member.capabilities else _NONE,
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

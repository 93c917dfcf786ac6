"""Keys of the platform's own services, made by the operator; each tenant they reach is granted by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from partywall import uuid7
from rowhouse.core.db import AsyncSystemSession, Database
from rowhouse.core.errors import Conflict, Invalid, NotFound
from rowhouse.core.permissions import Role
from rowhouse.core.resource import Registry
from rowhouse.identity.keys import LONGEST_DAYS, checked_scopes
from rowhouse.identity.models import ServiceKey, ServiceKeyGrant
from rowhouse.identity.tenants import write_platform_audit
from rowhouse.identity.tokens import new_key_id, new_secret, secret_hash, write_key


@dataclass(frozen=True, slots=True, kw_only=True)
class NewServiceKey:
    """A service key to make. grants: the role it has in each tenant it may work for."""

    name: str
    scopes: tuple[str, ...]
    grants: Mapping[UUID, Role]
    days: int = LONGEST_DAYS


@dataclass(frozen=True, slots=True)
class ServiceKeyMade:
    """A service key just made. key: shown this once."""

    id: UUID
    key_id: str
    key: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ServiceKeyView:
    """One service key, as the operator sees it."""

    id: UUID
    key_id: str
    name: str
    scopes: tuple[str, ...]
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


async def create_service_key(database: Database, registry: Registry, new: NewServiceKey, *, now: datetime) -> ServiceKeyMade:
    """Make a service key with its grants and return it once.  Needs a system scope.  Raises Invalid."""
    scopes = checked_scopes(new.scopes, registry)
    if not scopes or not 1 <= new.days <= LONGEST_DAYS or not 1 <= len(new.name) <= 100:
        raise Invalid(f"A service key has a name, scopes, and a life of 1 to {LONGEST_DAYS} days.", code="invalid_key")
    row = ServiceKey(id=uuid7(), name=new.name, scopes=scopes, created_at=now, expires_at=now + timedelta(days=new.days))
    async with database.system() as session:
        key = _new_secret(row)
        session.add(row)
        await session.flush()
        for tenant_id, role in new.grants.items():
            session.add(ServiceKeyGrant(service_key_id=row.id, tenant_id=tenant_id, role=role.value))
            write_platform_audit(session, "service_key.grant", tenant_id, now, {"key_id": row.key_id, "role": role.value})
        write_platform_audit(session, "service_key.create", None, now, {"key_id": row.key_id, "name": row.name})
    return ServiceKeyMade(row.id, row.key_id, key, row.expires_at)


async def rotate_service_key(database: Database, key_id: str, *, now: datetime) -> ServiceKeyMade:
    """Give a service key a new secret, id and life, keeping its grants; the old one ends at once.  Needs a system scope.

    Raises NotFound, Conflict for a revoked key.
    """
    async with database.system() as session:
        row = await _row(session, key_id)
        if row.revoked_at is not None:
            raise Conflict("This key is revoked; create a new one.", code="key_ended")
        life = row.expires_at - row.created_at
        key = _new_secret(row)
        row.created_at, row.expires_at = now, now + life
        write_platform_audit(session, "service_key.rotate", None, now, {"was": key_id, "key_id": row.key_id})
    return ServiceKeyMade(row.id, row.key_id, key, row.expires_at)


async def revoke_service_key(database: Database, key_id: str, *, now: datetime) -> None:
    """End a service key.  Needs a system scope.  Raises NotFound."""
    async with database.system() as session:
        row = await _row(session, key_id)
        row.revoked_at = row.revoked_at or now
        write_platform_audit(session, "service_key.revoke", None, now, {"key_id": key_id})


async def grant(database: Database, key_id: str, tenant_id: UUID, role: Role, *, now: datetime) -> None:
    """Let a service key work for one more tenant, or in another role there.  Needs a system scope.  Raises NotFound."""
    async with database.system() as session:
        row = await _row(session, key_id)
        values = {"role": role.value, "revoked_at": None}
        statement = insert(ServiceKeyGrant).values(service_key_id=row.id, tenant_id=tenant_id, **values)
        keys = [ServiceKeyGrant.service_key_id, ServiceKeyGrant.tenant_id]
        statement = statement.on_conflict_do_update(index_elements=keys, set_=values)
        await session.execute(statement.execution_options(announces=(row.id,)))
        write_platform_audit(session, "service_key.grant", tenant_id, now, {"key_id": key_id, "role": role.value})


async def withdraw(database: Database, key_id: str, tenant_id: UUID, *, now: datetime) -> None:
    """Take a tenant from a service key.  Needs a system scope.  Raises NotFound."""
    async with database.system() as session:
        row = await _row(session, key_id)
        mine = (ServiceKeyGrant.service_key_id == row.id, ServiceKeyGrant.tenant_id == tenant_id)
        statement = update(ServiceKeyGrant).where(*mine).values(revoked_at=now)
        await session.execute(statement.execution_options(announces=(row.id,)))
        write_platform_audit(session, "service_key.withdraw", tenant_id, now, {"key_id": key_id})


async def list_service_keys(database: Database) -> Sequence[ServiceKeyView]:
    """Return every service key, newest first.  Needs a system scope."""
    async with database.system() as session:
        rows = (await session.scalars(select(ServiceKey).order_by(ServiceKey.created_at.desc(), ServiceKey.id))).all()
    return [
        ServiceKeyView(row.id, row.key_id, row.name, tuple(row.scopes), row.expires_at, row.last_used_at, row.revoked_at)
        for row in rows
    ]


def _new_secret(row: ServiceKey) -> str:
    secret = new_secret()
    row.key_id, row.secret_hash = new_key_id(), secret_hash("key", secret)
    return write_key("sk", row.key_id, secret)


async def _row(session: AsyncSystemSession, key_id: str) -> ServiceKey:
    row = (await session.scalars(select(ServiceKey).where(ServiceKey.key_id == key_id).with_for_update())).one_or_none()
    if row is None:
        raise NotFound(f"There is no service key {key_id[:24]}.")
    return row

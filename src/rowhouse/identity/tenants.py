"""Workspaces as the operator sees them: opening, listing, suspending. Every act is written to the platform's audit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from partywall import Tenant, uuid7
from partywall.context import current_system_scope
from partywall.resolve import RESERVED_SLUGS
from rowhouse.core.db import AsyncSystemSession, Database
from rowhouse.core.errors import Conflict, Invalid, NotFound
from rowhouse.core.permissions import Role
from rowhouse.identity.models import Membership, PlatformAudit, TenantRow, TenantStatus
from rowhouse.identity.passwords import check_password, hash_password
from rowhouse.identity.people import NewAccount, may_be_added, normalise_email, open_account, tenant_of
from rowhouse.values.text import clean_text

_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9])+")
# Such a label would be read as an id in X-Tenant-ID.
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class SlugTaken(Conflict):
    """Another workspace has this label, or had it."""

    code = "slug_taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTenant:
    """A workspace to open, with its first owner.

    owner_password: set only if the owner's address has no account with a password yet; None to let them be invited.
    """

    name: str
    slug: str
    owner_email: str
    owner_name: str
    owner_password: str | None = None
    currency: str = "USD"
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """One workspace in the operator's list."""

    tenant: Tenant
    created_at: datetime
    suspension_reason: str | None
    members: int


async def create_tenant(database: Database, new: NewTenant, *, now: datetime) -> Tenant:
    """Open a workspace with its owner, whose address the operator vouches for; nothing else is in it yet.

    Needs a system scope.  Raises SlugTaken, Invalid for a bad slug, name, currency, time zone, address or password,
    AddressUnproven when the owner's account was opened by a stranger (reset its password first).
    """
    _check(new)
    password_hash = await hash_password(new.owner_password) if new.owner_password is not None else None
    owner = NewAccount(new.owner_email, clean_text(new.owner_name), password_hash, vouched=True)
    row = TenantRow(
        id=uuid7(), slug=new.slug, name=clean_text(new.name), timezone=new.timezone, currency=new.currency, created_at=now
    )
    try:
        async with database.system() as session:
            session.add(row)
            await session.flush()
            account = await open_account(session, owner, now)
            may_be_added(account)
            session.add(_ownership(row, account.id, owner, now))
            write_platform_audit(session, "tenant.create", row.id, now, {"slug": new.slug, "owner_id": str(account.id)})
    except IntegrityError as error:
        if "uq_tenant_slug" in str(error.orig):
            raise SlugTaken(f"The label {new.slug} is taken.", field="slug") from error
        raise
    return tenant_of(row)


async def list_tenants(database: Database) -> list[TenantSummary]:
    """Return every workspace, oldest first.  Needs a system scope."""
    members = (
        select(Membership.tenant_id, func.count().label("members"))
        .where(Membership.archived_at.is_(None))
        .group_by(Membership.tenant_id)
        .subquery()
    )
    statement = (
        select(TenantRow, func.coalesce(members.c.members, 0))
        .outerjoin(members, members.c.tenant_id == TenantRow.id)
        .order_by(TenantRow.created_at, TenantRow.id)
    )
    async with database.system() as session:
        rows = (await session.execute(statement)).all()
    return [TenantSummary(tenant_of(row), row.created_at, row.suspension_reason, count) for row, count in rows]


async def find_tenant(database: Database, slug: str) -> Tenant:
    """Return the workspace with this slug, whatever its status.  Needs a system scope.  Raises NotFound."""
    async with database.system() as session:
        return tenant_of(await _row(session, slug))


async def suspend(database: Database, slug: str, *, now: datetime) -> Tenant:
    """Stop a workspace within a second, for the reason of the running system scope.

    Raises NotFound, Conflict unless it is active.
    """
    reason = current_system_scope().reason
    return await _move(database, slug, (TenantStatus.ACTIVE, TenantStatus.SUSPENDED), reason[:500], now)


async def resume(database: Database, slug: str, *, now: datetime) -> Tenant:
    """Open a suspended workspace again.  Needs a system scope.  Raises NotFound, Conflict unless it is suspended."""
    return await _move(database, slug, (TenantStatus.SUSPENDED, TenantStatus.ACTIVE), None, now)


def check_slug(slug: str, *, reserved: frozenset[str] = RESERVED_SLUGS) -> None:
    """Raise Invalid unless a label is 2 to 50 lower-case letters, digits and single inner hyphens, and is free to use."""
    if not 2 <= len(slug) <= 50 or not _SLUG.fullmatch(slug) or _UUID.fullmatch(slug):
        raise Invalid("A label has 2 to 50 lower-case letters, digits and single hyphens.", code="invalid_slug", field="slug")
    if slug in reserved:
        raise Invalid(f"The label {slug} is reserved; choose another.", code="slug_reserved", field="slug")


def _check(new: NewTenant) -> None:
    check_slug(new.slug)
    if not 2 <= len(clean_text(new.name)) <= 100:
        raise Invalid("A name has 2 to 100 characters.", field="name")
    if not 1 <= len(clean_text(new.owner_name)) <= 200:
        raise Invalid("A name has 1 to 200 characters.", field="owner_name")
    if not re.fullmatch(r"[A-Z]{3}", new.currency):
        raise Invalid("A currency is three capital letters, such as EUR.", field="currency")
    if new.timezone not in available_timezones():
        raise Invalid("A time zone is a name such as Europe/Berlin.", field="timezone")
    email = normalise_email(new.owner_email, field="owner_email")
    if new.owner_password is not None:
        check_password(new.owner_password, email=email, field="owner_password")


def _ownership(row: TenantRow, account_id: UUID, owner: NewAccount, now: datetime) -> Membership:
    # Stamped by hand: the audit listeners belong to a tenant's own sessions; the platform's audit records this one.
    return Membership(
        tenant_id=row.id,
        id=account_id,
        name=owner.name,
        email=normalise_email(owner.email),
        role=Role.OWNER.value,
        capabilities=[],
        created_at=now,
        updated_at=now,
    )


async def _move(
    database: Database, slug: str, states: tuple[TenantStatus, TenantStatus], reason: str | None, now: datetime
) -> Tenant:
    before, after = states
    async with database.system() as session:
        row = await _row(session, slug)
        if row.status != before:
            raise Conflict(f"{slug} is {row.status}, not {before.value}.", code="tenant_state")
        row.status, row.suspension_reason = after.value, reason
        write_platform_audit(session, f"tenant.{after.value.lower()}", row.id, now, {"slug": slug})
        return tenant_of(row)


async def _row(session: AsyncSystemSession, slug: str) -> TenantRow:
    row = (await session.scalars(select(TenantRow).where(TenantRow.slug == slug).with_for_update())).one_or_none()
    if row is None:
        raise NotFound(f"There is no workspace {slug[:50]}.", code="tenant_not_found")
    return row


def write_platform_audit(
    session: AsyncSystemSession, operation: str, tenant_id: UUID | None, now: datetime, about: dict[str, Any]
) -> None:
    """Add an entry to the platform's audit, with the reason of the running system scope."""
    reason = current_system_scope().reason[:500]
    session.add(PlatformAudit(operation=operation, reason=reason, tenant_id=tenant_id, about=about, created_at=now))

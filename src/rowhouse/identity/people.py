"""People: their addresses, their one account in the deployment, and the workspaces they belong to.

An account may have been opened by somebody who wrote another person's address. Until the operator vouches for the
address (`email_proven_at`), such an account gets into a workspace only by an invitation that its holder accepts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from partywall import Tenant
from partywall.errors import ResolutionError
from partywall.resolve import normalise_host
from rowhouse.core.errors import Conflict, Invalid
from rowhouse.identity.models import Membership, TenantRow, TenantStatus, User, UserStatus
from rowhouse.values.text import clean_text

SERVED = (TenantStatus.ACTIVE.value, TenantStatus.SUSPENDED.value)

_LOCAL_PART = re.compile(r"[^\s@\"(),:;<>\[\]\\]{1,64}")


class AddressUnproven(Conflict):
    """The address has an account that its holder must bring in by accepting an invitation."""

    code = "invitation_required"

    def __init__(self) -> None:
        super().__init__("Invite this address instead; its holder joins by accepting the invitation.")


@dataclass(frozen=True, slots=True)
class Account:
    """What other services need to know of a person's account."""

    id: UUID
    has_password: bool
    is_proven: bool


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to open where the address has none.

    password_hash: None for a person who chooses a password later.  vouched: the operator says the address is theirs.
    """

    email: str
    name: str
    password_hash: str | None = None
    vouched: bool = False


@dataclass(frozen=True, slots=True)
class Workspace:
    """One workspace a person belongs to, for the chooser after log-in."""

    tenant_id: UUID
    slug: str
    name: str
    role: str
    status: str


def normalise_email(email: str, *, field: str = "email") -> str:
    """Return the form of an address that tells one account from another: lower case, its domain in A-labels.

    Raises Invalid, naming the field, for what is no address.
    """
    fault = Invalid("Give an e-mail address, such as ada@example.com.", code="invalid_email", field=field)
    try:
        local, _, host = clean_text(email).rpartition("@")
        domain = normalise_host(host)
    except (ValueError, ResolutionError):
        raise fault from None
    normal = f"{local.lower()}@{domain}"
    if not _LOCAL_PART.fullmatch(local) or ":" in host or "." not in domain or len(normal) > 254:
        raise fault
    return normal


async def open_account(session: AsyncSession, new: NewAccount, now: datetime) -> Account:
    """Return the account of an address, opened if there was none.

    The password is set only where the account has none yet.  Raises Invalid for a bad address.
    """
    email_norm = normalise_email(new.email)
    # A person is seen by several workspaces, so the id must not tell when the first of them came.
    values = {"id": uuid4(), "email": new.email.strip(), "email_norm": email_norm, "name": new.name, "created_at": now}
    statement = insert(User).values(**values, status=UserStatus.ACTIVE.value, failed_count=0).on_conflict_do_nothing()
    # Nobody can remember anything about a person who was not there.
    await session.execute(statement.execution_options(announces=()))
    user = (await session.scalars(select(User).where(User.email_norm == email_norm).with_for_update())).one()
    if user.password_hash is None:
        user.password_hash = new.password_hash
        # An address is vouched for together with its password: a first one set later may be somebody else's choice.
        if new.vouched and new.password_hash is not None:
            user.email_proven_at = now
    await session.flush()
    return Account(user.id, user.password_hash is not None, user.email_proven_at is not None)


def may_be_added(account: Account) -> None:
    """Raise AddressUnproven for an account that somebody opened, with a password, for an address nobody vouched for."""
    if account.has_password and not account.is_proven:
        raise AddressUnproven


def tenant_of(row: TenantRow) -> Tenant:
    """Return a workspace as the running work knows it."""
    return Tenant(row.id, row.slug, row.name, row.status, row.timezone, row.currency, row.open_edit)


async def workspaces(session: AsyncSession, user_id: UUID) -> list[Workspace]:
    """Return the workspaces a person can choose from, oldest membership first."""
    rows = (
        await session.execute(
            select(TenantRow.id, TenantRow.slug, TenantRow.name, Membership.role, TenantRow.status)
            .join(Membership, Membership.tenant_id == TenantRow.id)
            .where(Membership.id == user_id, Membership.archived_at.is_(None), TenantRow.status.in_(SERVED))
            .order_by(Membership.created_at, TenantRow.id)
        )
    ).all()
    return [Workspace(row.id, row.slug, row.name, row.role, row.status) for row in rows]


async def belongs_only_to(session: AsyncSession, user_id: UUID, tenant_id: UUID) -> bool:
    """Return whether a person has, or had, no membership but that of one workspace."""
    others = select(func.count()).select_from(Membership).where(Membership.id == user_id, Membership.tenant_id != tenant_id)
    return (await session.execute(others)).scalar_one() == 0


async def set_password(session: AsyncSession, user_id: UUID, password_hash: str) -> None:
    """Store a new password."""
    statement = update(User).where(User.id == user_id).values(password_hash=password_hash)
    await session.execute(statement.execution_options(announces=(user_id,)))

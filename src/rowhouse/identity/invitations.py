"""Invitations: an offer of membership, taken up by whoever holds its token and, if it exists, the account's password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import select

from partywall import Tenant, get_tenant_id, has_tenant_context
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database
from rowhouse.core.errors import Conflict, Forbidden, NotFound
from rowhouse.core.permissions import Capability, Principal, Role
from rowhouse.core.resource import Change, Input, NoInput, Registry, action
from rowhouse.identity.grants import check_capabilities, check_role
from rowhouse.identity.models import Invitation, Membership, TenantRow, TenantStatus, User
from rowhouse.identity.passwords import check_password, hash_password
from rowhouse.identity.people import NewAccount, belongs_only_to, normalise_email, open_account, tenant_of
from rowhouse.identity.sessions import Client, LogIn, prove_password
from rowhouse.identity.tokens import new_secret, secret_hash

LIFE = timedelta(days=7)


class Invite(Input):
    """Whom to invite, as what."""

    email: Annotated[str, StringConstraints(min_length=3, max_length=254)]
    name: Annotated[str, StringConstraints(max_length=200)] | None = None
    role: Role = Role.MEMBER
    capabilities: list[Capability] = Field(default=[], max_length=50)


class InvitedAddress(Input):
    """The address, for an invitation made without asking for its token."""

    email: Annotated[str, StringConstraints(min_length=3, max_length=254)]


class Invited(BaseModel):
    """An invitation just made. token: shown this once; it belongs into the mail to the invited person."""

    id: UUID
    email: str
    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What comes back with a token.

    user_id: the logged-in person, if any; else a password: the account's own, or a new one if it has none yet.
    """

    token: str
    user_id: UUID | None = None
    name: str = ""
    password: str = ""
    client: Client = field(default_factory=Client)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Who has joined which workspace."""

    user_id: UUID
    tenant: Tenant


@action(input=Invite, output=Invited, on="collection", role=Role.ADMIN, capability=Capability.MEMBERS_MANAGE, shown_once=True)
async def invite(call: Call, data: Invite) -> Invited:
    """Invite an address and return the token once; an open invitation of the address is renewed.

    The answer is the same whether or not the address has an account, here or elsewhere.
    Raises Forbidden for a role above the caller's own.
    """
    values = {"email": data.email, "name": data.name, "role": data.role, "capabilities": data.capabilities}
    row, token = await _offer(call, values)
    await call.flush()
    return Invited(id=row.id, email=row.email, token=token, expires_at=row.expires_at)


@action(output=Invited, role=Role.ADMIN, capability=Capability.MEMBERS_MANAGE, shown_once=True)
async def renew(call: Call, row: Invitation, _data: NoInput) -> Invited:
    """Replace an open invitation's token and return the new one once; the old one stops working."""
    check_role(call, Role(row.role))
    if row.accepted_at is not None or row.archived_at is not None:
        raise Conflict("This invitation is closed; make a new one.", code="invitation_closed")
    return Invited(id=row.id, email=row.email, token=_new_token(call, row), expires_at=row.expires_at)


async def create_invitation(call: Call, values: Mapping[str, Any]) -> Invitation:
    """Make an invitation without showing its token; `renew` shows one."""
    return (await _offer(call, values))[0]


async def check_invitation(call: Call, change: Change) -> None:
    """Check a write to an invitation: no role above one's own, before or after, and none once it was taken up."""
    row: Invitation = change.row
    check_role(call, Role(change.before.get("role", row.role)))
    check_role(call, Role(row.role))
    check_capabilities(call, row.capabilities, held=change.before.get("capabilities", row.capabilities))
    if row.accepted_at is not None and change.verb in ("update", "restore"):
        raise Conflict("This invitation was accepted; change the membership instead.", code="invitation_closed")


async def accept_invitation(database: Database, acceptance: Acceptance, *, now: datetime) -> Accepted:
    """Make the invited person a member and return who joined what; a membership that exists keeps its role.

    A first password is set only for an account that belongs to no other workspace: a token may have been read by
    whoever made the invitation, so it proves nothing towards other workspaces.
    Raises NotFound for a token that is unknown, expired or used, or of another workspace than the running scope's;
    Forbidden when somebody else is logged in; Unauthenticated and TooMany as log-in does; Conflict (account_elsewhere).
    """
    token_hash = secret_hash("invitation", acceptance.token)
    offer, tenant = await _open_offer(database, token_hash, now)
    user_id = await _person(database, offer, acceptance, now)
    principal = Principal(kind="session", subject_id=user_id, member_id=user_id, role=Role(offer.role))
    about = {"now": now, "operation": "invitations:accept", "ip": acceptance.client.ip}
    async with open_call(database, Registry(()), tenant, principal, **about) as call:
        row = await call.load(Invitation, offer.id, lock=True)
        if row.token_hash != token_hash or not _is_open(row, now):
            raise _no_such_invitation()
        await _join(call, row, user_id, acceptance.name)
        row.accepted_at = now
    return Accepted(user_id, tenant)


async def _offer(call: Call, values: Mapping[str, Any]) -> tuple[Invitation, str]:
    role = Role(values.get("role") or Role.MEMBER)
    capabilities = sorted({str(capability) for capability in values.get("capabilities") or ()})
    check_role(call, role)
    check_capabilities(call, capabilities)
    email = normalise_email(values["email"])
    statement = select(Invitation).where(
        Invitation.email_norm == email, Invitation.accepted_at.is_(None), Invitation.archived_at.is_(None)
    )
    row = (await call.session.scalars(statement.with_for_update().execution_options(populate_existing=True))).one_or_none()
    if row is None:
        row = Invitation(email=values["email"].strip(), email_norm=email)
    else:
        check_role(call, Role(row.role))
    row.name, row.role, row.capabilities = values.get("name"), role.value, capabilities
    token = _new_token(call, row)
    call.session.add(row)
    return row, token


def _new_token(call: Call, row: Invitation) -> str:
    token = new_secret()
    row.token_hash, row.expires_at = secret_hash("invitation", token), call.now + LIFE
    return token


async def _open_offer(database: Database, token_hash: bytes, now: datetime) -> tuple[Invitation, Tenant]:
    async with database.people() as session:
        found = select(Invitation, TenantRow).join(TenantRow, TenantRow.id == Invitation.tenant_id)
        row = (await session.execute(found.where(Invitation.token_hash == token_hash))).one_or_none()
    if row is None or not _is_open(row[0], now) or row[1].status != TenantStatus.ACTIVE:
        raise _no_such_invitation()
    # At the address of another workspace the invitation does not exist, like everything else of this one.
    if has_tenant_context() and get_tenant_id() != row[1].id:
        raise _no_such_invitation()
    return row[0], tenant_of(row[1])


def _is_open(row: Invitation, now: datetime) -> bool:
    return row.accepted_at is None and row.archived_at is None and row.expires_at > now


def _no_such_invitation() -> NotFound:
    return NotFound("This invitation is not valid any more; ask for a new one.", code="invitation_invalid")


async def _person(database: Database, offer: Invitation, acceptance: Acceptance, now: datetime) -> UUID:
    async with database.people() as session:
        user = (await session.scalars(select(User).where(User.email_norm == offer.email_norm))).one_or_none()
    if acceptance.user_id is not None:
        if user is None or user.id != acceptance.user_id:
            raise Forbidden("This invitation is for another address; sign out and open it again.", code="other_address")
        return user.id
    if user is not None and user.password_hash is not None:
        attempt = LogIn(offer.email_norm, acceptance.password, client=acceptance.client)
        return await prove_password(database, attempt, now=now)
    return await _first_password(database, offer, acceptance, now)


async def _first_password(database: Database, offer: Invitation, acceptance: Acceptance, now: datetime) -> UUID:
    check_password(acceptance.password, email=offer.email_norm)
    password_hash = await hash_password(acceptance.password)
    name = acceptance.name or offer.name or offer.email.partition("@")[0]
    async with database.people() as session:
        account = await open_account(session, NewAccount(offer.email, name), now)
        if account.has_password:
            raise _no_such_invitation()
        if not await belongs_only_to(session, account.id, offer.tenant_id):
            raise Conflict(
                "Another workspace knows this address, so its first password has to be set by the operator.",
                code="account_elsewhere",
            )
        await open_account(session, NewAccount(offer.email, name, password_hash), now)
    return account.id


async def _join(call: Call, offer: Invitation, user_id: UUID, name: str) -> None:
    member = await call.find(Membership, user_id, lock=True)
    if member is not None and member.archived_at is None:
        return
    if member is None:
        member = Membership(id=user_id, email=offer.email_norm, name=name or offer.name or offer.email.partition("@")[0])
        call.session.add(member)
    member.archived_at = member.archived_by_id = None
    member.role, member.capabilities = offer.role, list(offer.capabilities)
    call.emit("workspace.membership_created", id=str(user_id))

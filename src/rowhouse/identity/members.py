"""Members of a workspace: adding, changing, ending memberships. The last owner stays one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any
from uuid import UUID

from pydantic import StringConstraints
from sqlalchemy import select

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, Forbidden
from rowhouse.core.permissions import Principal, Role
from rowhouse.core.resource import Change, Input
from rowhouse.identity.grants import check_capabilities, check_role
from rowhouse.identity.models import Membership
from rowhouse.identity.passwords import check_password, hash_password
from rowhouse.identity.people import AddressUnproven, NewAccount, belongs_only_to, may_be_added, normalise_email, open_account
from rowhouse.identity.turns import take_turn


class LastOwner(Conflict):
    """A workspace keeps at least one active owner."""

    code = "last_owner"

    def __init__(self) -> None:
        super().__init__("This is the last owner; make another member an owner first.")


class MemberAddress(Input):
    """What a new member is recognised by, beside the columns of the membership."""

    email: Annotated[str, StringConstraints(min_length=3, max_length=254)]
    external_id: Annotated[str, StringConstraints(max_length=100)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMember:
    """A person to add to a workspace. password: for seeds and the operator; it is set only on an account without one."""

    email: str
    name: str = ""
    role: Role = Role.MEMBER
    capabilities: tuple[str, ...] = ()
    title: str | None = None
    external_id: str | None = None
    password: str | None = None


def system_principal() -> Principal:
    """Return the caller of work nobody asked for by hand: the operator's commands, seeds, the worker."""
    return Principal(kind="system", subject_id=None, member_id=None, role=Role.OWNER)


async def add_member(call: Call, person: NewMember) -> Membership:
    """Return the membership of an address, made if there was none; its account too. Adding again changes nothing.

    The account is written by the identity role in a transaction of its own: if the call fails later, an account without
    password and membership stays behind, which is harmless.  Raises Forbidden for a role above the caller's, Invalid
    for a bad address or password, AddressUnproven for an account that has to be invited.
    """
    check_role(call, person.role)
    check_capabilities(call, person.capabilities)
    account_id = await _account_of(call, person)
    member = await call.find(Membership, account_id)
    if member is not None:
        return member
    email = normalise_email(person.email)
    member = Membership(
        id=account_id,
        email=email,
        name=person.name or email.partition("@")[0],
        role=person.role.value,
        capabilities=sorted({str(capability) for capability in person.capabilities}),
        title=person.title,
        external_id=person.external_id,
    )
    call.session.add(member)
    await call.flush()
    return member


async def _account_of(call: Call, person: NewMember) -> UUID:
    email = normalise_email(person.email)
    vouched = call.principal.kind == "system"
    new = NewAccount(email, person.name or email.partition("@")[0], vouched=vouched)
    if person.password is not None:
        check_password(person.password, email=email)
        new = replace(new, password_hash=await hash_password(person.password))
    async with call.database.people() as session:
        account = await open_account(session, replace(new, password_hash=None), call.now)
        # Nobody is enrolled in a second workspace without consent; the operator's own commands and seeds vouch for it.
        if not vouched and not await belongs_only_to(session, account.id, call.tenant.id):
            raise AddressUnproven
        if account.has_password:
            may_be_added(account)
        elif vouched or await belongs_only_to(session, account.id, call.tenant.id):
            # Otherwise one workspace would choose the password that opens another.
            await open_account(session, new, call.now)
    return account.id


async def create_member(call: Call, values: Mapping[str, Any]) -> Membership:
    """Add a member from an import, the API or a page.  Raises Conflict (duplicate, archived) for a member known already."""
    given = {name: value for name, value in values.items() if value is not None}
    person = NewMember(**{**given, "capabilities": tuple(given.get("capabilities", ()))})
    known = select(Membership.id).where(Membership.email == normalise_email(person.email))
    if (await call.session.scalars(known)).first() is not None or _is_added(call, normalise_email(person.email)):
        raise Conflict("This address is a member already; change or restore that membership.", code="duplicate", field="email")
    return await add_member(call, person)


def _is_added(call: Call, email: str) -> bool:
    return any(isinstance(row, Membership) and row.email == email for row in call.session.new)


async def check_member(call: Call, change: Change) -> None:
    """Check a write to a membership: who may give which role, no change of one's own rights, the last owner stays."""
    row: Membership = change.row
    was, now = Role(change.before.get("role", row.role)), Role(row.role)
    check_role(call, was)
    check_role(call, now)
    held = [] if change.verb == "create" else change.before.get("capabilities", row.capabilities)
    check_capabilities(call, row.capabilities, held=held)
    is_self = row.id == call.member_id
    if change.verb == "delete":
        raise Conflict("A membership is kept as the target of what the person owned; archive it instead.", code="archive_instead")
    if change.verb == "archive" and is_self:
        raise Forbidden("You cannot end your own membership; ask another administrator.", code="own_membership")
    if change.verb == "update" and is_self and {"role", "capabilities"} & set(change.before) and was is not Role.OWNER:
        raise Forbidden("You cannot change your own rights; ask another administrator.", code="own_membership")
    if was is Role.OWNER and (change.verb == "archive" or (change.verb == "update" and now is not Role.OWNER)):
        await _keep_an_owner(call, row)


async def _keep_an_owner(call: Call, leaving: Membership) -> None:
    await take_turn(call, "owners")
    # Ids and not rows: what this session loaded before its turn may be outdated.
    active = select(Membership.id).where(Membership.role == Role.OWNER.value, Membership.archived_at.is_(None))
    others = set((await call.session.scalars(active)).all()) - {leaving.id}
    for owner_id in list(others):
        pending = call.session.sync_session.known_row(Membership, owner_id)
        if pending is not None and (pending.role != Role.OWNER or pending.archived_at is not None):
            others.discard(owner_id)
    if not others:
        raise LastOwner

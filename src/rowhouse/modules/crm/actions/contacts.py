"""What holds for every person: a name, a comparable address, one primary per account, a lifecycle that goes forward."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, Forbidden, Invalid
from rowhouse.core.operations import assign
from rowhouse.core.permissions import Role
from rowhouse.core.resource import Change, Input, action
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.actions.known import take_over
from rowhouse.modules.crm.models import Account, CRMContact
from rowhouse.modules.crm.states import Lifecycle


class ChangeLifecycle(Input):
    """Where a person stands now; a reason is needed unless that is further along."""

    to: Lifecycle
    reason: str | None = Field(None, max_length=500)


@action(input=ChangeLifecycle)
async def change_lifecycle(call: Call, contact: CRMContact, data: ChangeLifecycle) -> CRMContact:
    """Bring a person to another lifecycle stage; the reason is kept in the audit log and the event.

    Raises Invalid (reason_required) for a step back, or into or out of CHURNED, without a reason.
    """
    if data.to == contact.lifecycle:
        return contact
    if not rules.is_forward(contact.lifecycle, data.to) and not data.reason:
        raise Invalid(f"Say why the person goes from {contact.lifecycle} to {data.to}.", code="reason_required", field="reason")
    call.reason = data.reason or call.reason
    call.emit(
        "crm.contact_lifecycle_changed",
        contact_id=str(contact.id),
        before=str(contact.lifecycle),
        after=str(data.to),
        reason=data.reason or "",
    )
    contact.lifecycle = data.to
    return contact


async def check_contact(call: Call, change: Change) -> None:
    """Fill in what follows from the input and keep one primary person per account.

    Raises Invalid (name_required, invalid_email, account_required, reason_required), Forbidden, Conflict (merged).
    """
    contact: CRMContact = change.row
    if change.verb == "restore" and contact.merged_into_id is not None:
        raise Conflict("This person was merged into another; undo the merge instead of restoring it.", code="merged")
    if change.verb == "archive":
        contact.is_primary = False
    if change.verb not in {"create", "update"}:
        return
    _check_changed(call, contact, change)
    assign(contact, derived_of_contact(contact))
    if change.verb == "create" and contact.owner_user_id is None:
        contact.owner_user_id = call.member_id
    if contact.is_primary:
        await _take_over(call, contact)


def _check_changed(call: Call, contact: CRMContact, change: Change) -> None:
    before = change.before
    if before.get("lead_source") is not None and not call.principal.role.at_least(Role.ADMIN):
        raise Forbidden("Where a person came from is set once; ask an administrator to change it.", field="lead_source")
    if "lifecycle" in before and not rules.is_forward(before["lifecycle"], contact.lifecycle):
        raise Invalid("A step back needs a reason; use contacts:change-lifecycle.", code="reason_required", field="lifecycle")
    if "email" in before and not {"consent_email", "consent_at"} & set(before):
        # Consent was given for the old address.
        contact.consent_email, contact.consent_at, contact.consent_source = False, None, None


def derived_of_contact(contact: Any) -> dict[str, object]:
    """Return the columns that follow from a person's others.  Raises Invalid (name_required, invalid_email)."""
    full_name = " ".join(part for part in (contact.first_name, contact.last_name) if part)
    name = full_name or contact.email
    if not name:
        raise Invalid("Give a first name, a last name or an e-mail address.", code="name_required", field="last_name")
    try:
        email = rules.email_norm(contact.email) if contact.email else None
    except ValueError as error:
        raise Invalid(f"The e-mail address cannot be used: {error}.", code="invalid_email", field="email") from error
    return {
        "name": name,
        # An address is no name: two people without one are not alike because of it.
        "name_norm": rules.name_norm(full_name) if full_name else "",
        "email_norm": email,
        "phone_norm": rules.phone_norm(contact.phone or contact.mobile),
        "tags": rules.tags_norm(contact.tags or []),
        "lifecycle": contact.lifecycle or Lifecycle.LEAD,
    }


async def _take_over(call: Call, contact: CRMContact) -> None:
    if contact.account_id is None:
        raise Invalid("Only a person of an account can be its primary one.", code="account_required", field="account_id")
    # Two people becoming primary at once wait for each other here.
    account = await call.load(Account, contact.account_id, lock=True)
    await take_over(call, account, contact, among=CRMContact.account_id == contact.account_id)

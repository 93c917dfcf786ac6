"""What holds for every account: comparable forms, and a hierarchy without cycles."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, Invalid
from rowhouse.core.operations import assign
from rowhouse.core.resource import Change
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.models import Account
from rowhouse.modules.crm.states import AccountType


async def check_account(call: Call, change: Change) -> None:
    """Fill in what follows from the input, and keep the hierarchy a tree of at most ten levels.

    Raises Invalid (invalid_website), Conflict (hierarchy_cycle, hierarchy_too_deep, merged).
    """
    account: Account = change.row
    if change.verb == "restore" and account.merged_into_id is not None:
        raise Conflict("This account was merged into another; undo the merge instead of restoring it.", code="merged")
    if change.verb not in {"create", "update"}:
        return
    assign(account, derived_of_account(account))
    if account.annual_revenue_minor is not None and account.currency is None:
        account.currency = call.tenant.currency
    if change.verb == "create" and account.owner_user_id is None:
        account.owner_user_id = call.member_id
    if account.parent_account_id is not None and (change.verb == "create" or "parent_account_id" in change.before):
        await check_depth(call, account, is_new=change.verb == "create")


def derived_of_account(account: Any) -> dict[str, object]:
    """Return the columns that follow from an account's others.  Raises Invalid (invalid_website)."""
    try:
        domain = rules.domain_norm(account.website) if account.website else None
    except ValueError as error:
        raise Invalid(f"The website cannot be used: {error}.", code="invalid_website", field="website") from error
    band = rules.employee_band(account.employee_count) if account.employee_count is not None else account.employee_band
    return {
        "name_norm": rules.name_norm(account.name),
        "domain_norm": domain,
        "phone_norm": rules.phone_norm(account.phone),
        "tags": rules.tags_norm(account.tags or []),
        "type": account.type or AccountType.PROSPECT,
        "employee_band": band,
    }


async def check_depth(call: Call, account: Account, *, is_new: bool = False) -> None:
    """Raise Conflict (hierarchy_cycle, hierarchy_too_deep) unless an account and all below it stand in a tree of ten levels.

    Every ancestor is locked, since two moves at once could otherwise close a cycle that neither saw.
    """
    height = 1 if is_new else await _height(call, account.id)
    levels = height + await _levels_above(call, account)
    if levels > rules.DEEPEST_HIERARCHY:
        raise Conflict(
            f"The hierarchy would be {levels} levels deep; {rules.DEEPEST_HIERARCHY} are allowed.",
            code="hierarchy_too_deep",
            field="parent_account_id",
        )


async def _levels_above(call: Call, account: Account) -> int:
    depth, above = 0, account.parent_account_id
    while above is not None and depth <= rules.DEEPEST_HIERARCHY:
        if above == account.id:
            raise Conflict("An account cannot stand below itself.", code="hierarchy_cycle", field="parent_account_id")
        depth += 1
        above = (await call.load(Account, above, lock=True)).parent_account_id
    return depth


async def _height(call: Call, account_id: UUID) -> int:
    """Return the number of levels from an account down; one for an account that nothing stands below."""
    unwritten = [row for row in (*call.session.new, *call.session.dirty) if isinstance(row, Account)]
    height, level = 1, {account_id}
    while height <= rules.DEEPEST_HIERARCHY:
        written = await call.session.scalars(select(Account.id).where(Account.parent_account_id.in_(level)))
        below = set(written) - {row.id for row in unwritten}
        level = below | {row.id for row in unwritten if row.parent_account_id in level}
        if not level:
            return height
        height += 1
    return height

"""Who may give which rights: nobody more than their own role, only owners to owners, and nobody to themselves."""

from __future__ import annotations

from collections.abc import Sequence

from rowhouse.core.call import Call
from rowhouse.core.errors import Forbidden, Invalid
from rowhouse.core.permissions import Capability, Role


def check_role(call: Call, role: Role) -> None:
    """Raise Forbidden for a role above the caller's own."""
    if not call.principal.role.at_least(role):
        raise Forbidden(
            f"You are {call.principal.role} here and cannot give, change or take the role {role}.", code="role_above_own"
        )


def check_capabilities(call: Call, capabilities: Sequence[str], *, held: Sequence[str] = ()) -> None:
    """Raise Invalid for a capability that does not exist, Forbidden for one the caller could not use and is giving away.

    held: those the person has already, which may stay.
    """
    unknown = sorted(set(capabilities) - {str(known) for known in Capability})
    if unknown:
        raise Invalid(f"There is no capability {unknown[0][:50]}.", code="unknown_capability", field="capabilities")
    given = set(map(str, capabilities)) - set(map(str, held)) - call.principal.capabilities
    if given and not call.principal.role.at_least(Role.OWNER):
        raise Forbidden(f"You do not have {min(given)} and cannot give it; ask an owner.", code="capability_above_own")

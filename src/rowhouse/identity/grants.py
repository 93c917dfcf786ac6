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


def check_capabilities(capabilities: Sequence[str]) -> None:
    """Raise Invalid for a capability that does not exist."""
    unknown = sorted(set(capabilities) - {str(known) for known in Capability})
    if unknown:
        raise Invalid(f"There is no capability {unknown[0][:50]}.", code="unknown_capability", field="capabilities")

"""Who may do what. A permission is `resource:verb`; roles and capabilities grant, key scopes only narrow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from uuid import UUID


class Role(StrEnum):
    """A member's role in one tenant, weakest first."""

    VIEWER = "VIEWER"
    MEMBER = "MEMBER"
    ADMIN = "ADMIN"
    OWNER = "OWNER"

    def at_least(self, other: Role) -> bool:
        """Return whether this role includes the rights of another."""
        return _RANKS[self] >= _RANKS[other]


_RANKS = {role: rank for rank, role in enumerate(Role)}


class Capability(StrEnum):
    """A right granted to single members beside their role."""

    FINANCE_READ = "finance.read"
    FINANCE_WRITE = "finance.write"
    FINANCE_APPROVE = "finance.approve"
    FINANCE_ADMIN = "finance.admin"
    AUDIT_READ = "audit.read"
    BILLING_MANAGE = "billing.manage"
    INTEGRATIONS_MANAGE = "integrations.manage"
    API_KEYS_MANAGE = "api_keys.manage"
    MEMBERS_MANAGE = "members.manage"
    EXPORT_DATA = "export.data"
    AI_USE = "ai.use"
    AI_ADMIN = "ai.admin"
    LEADS_ASSIGN = "leads.assign"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, in one tenant.

    member_id: the person's id, None for a service key or the system.  scopes: what a key is limited to, None for a
    session (no limit); entries are "*", "group:read", "group:write", "resource:verb" or "resource:*".
    """

    kind: Literal["session", "personal_key", "service_key", "system"]
    subject_id: UUID | None
    member_id: UUID | None
    role: Role
    capabilities: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    credential_id: UUID | None = None


READS = frozenset({"list", "get", "count", "history", "report"})


@dataclass(frozen=True, slots=True)
class Permission:
    """What one verb of one resource asks of the caller.

    role: the weakest role that has it.  capability: grants it to any weaker role, when given; for OWNER it is implied.
    """

    resource: str
    group: str
    verb: str
    role: Role
    capability: Capability | None = None

    def __str__(self) -> str:
        return f"{self.resource}:{self.verb}"


def allows(principal: Principal, permission: Permission, *, reads: bool = False) -> bool:
    """Return whether the principal holds the permission.

    reads: the verb changes nothing, so a "group:read" scope is enough.
    """
    granted = principal.role.at_least(permission.role)
    if permission.capability is not None:
        granted = granted or permission.capability in principal.capabilities
    return granted and _in_scope(principal.scopes, permission, reads)


def _in_scope(scopes: frozenset[str] | None, permission: Permission, reads: bool) -> bool:
    if scopes is None or "*" in scopes:
        return True
    needed = {f"{permission.group}:write", str(permission), f"{permission.resource}:*"}
    if reads:
        needed.add(f"{permission.group}:read")
    return bool(scopes & needed)

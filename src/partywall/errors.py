"""Errors of the kernel. Each says what went wrong, which thing it is about, and the way out.

PartywallError
├── NoTenant            work was attempted outside every tenant scope
├── TenantMismatch      two sources of the tenant disagree (context, session, row, credential, host)
├── GuardRefusal        a statement or write that the guard cannot prove to be scoped
├── Unclassified        a table without a tenancy class
├── UnsafeRole          the database role could bypass the policies
└── ResolutionError     a request that cannot be placed in a tenant; carries the HTTP status and a stable code
"""

from __future__ import annotations


class PartywallError(Exception):
    """Base of every error the kernel raises."""


class NoTenant(PartywallError):
    """No tenant scope is active."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or "no tenant scope is active; wrap the work in partywall.tenant_scope(tenant)")


class TenantMismatch(PartywallError):
    """Two independent sources of the tenant disagree; nothing was read or written."""


class GuardRefusal(PartywallError):
    """The statement or write could reach rows of another tenant, so it was not sent."""


class Unclassified(PartywallError):
    """A table has no tenancy class."""


class UnsafeRole(PartywallError):
    """The connected database role owns tables, bypasses row-level security or is a superuser."""


class ResolutionError(PartywallError):
    """The request cannot be placed in a tenant.

    status: the HTTP status to answer with.  code: a stable machine-readable name.
    """

    def __init__(self, code: str, message: str, *, status: int = 404) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

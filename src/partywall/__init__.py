"""Partywall: the wall between tenants that share one database and one deployment.

A request is placed in a tenant (`resolve`, `asgi`), the tenant travels with the work (`context`), every table says
whose it is (`tables`), a session serves one tenant for life (`guard`), and the database holds the same line on its
own (`rls`). `verify` compares the live catalogue with the declaration.
"""

from partywall.context import (
    Tenant,
    current_tenant,
    get_tenant_id,
    has_tenant_context,
    system_scope,
    tenant_scope,
)
from partywall.errors import (
    GuardRefusal,
    NoTenant,
    PartywallError,
    ResolutionError,
    TenantMismatch,
    Unclassified,
    UnsafeRole,
)
from partywall.guard import AsyncTenantSession, TenantSession, reviewed
from partywall.ids import uuid7
from partywall.tables import (
    IdentityTable,
    OperatorTable,
    Shared,
    TableClass,
    TenantScoped,
    classify,
    tenant_index,
    tenant_reference,
    tenant_unique,
)

__all__ = [
    "AsyncTenantSession",
    "GuardRefusal",
    "IdentityTable",
    "NoTenant",
    "OperatorTable",
    "PartywallError",
    "ResolutionError",
    "Shared",
    "TableClass",
    "Tenant",
    "TenantMismatch",
    "TenantScoped",
    "TenantSession",
    "Unclassified",
    "UnsafeRole",
    "classify",
    "current_tenant",
    "get_tenant_id",
    "has_tenant_context",
    "reviewed",
    "system_scope",
    "tenant_index",
    "tenant_reference",
    "tenant_scope",
    "tenant_unique",
    "uuid7",
]

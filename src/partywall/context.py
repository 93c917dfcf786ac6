"""The tenant of the running work, carried by a context variable.

The value is only ever set by `tenant_scope` and `system_scope`; there is no default and no setter. A scope is closed
by the task that opened it. Threads started by hand do not inherit it (`asyncio.to_thread` and tasks do).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID

from partywall.errors import NoTenant, TenantMismatch


@dataclass(frozen=True, slots=True)
class Tenant:
    """One customer organisation, as the running work knows it.

    id: never reused.  slug: its label below a base domain.  timezone: IANA name.  currency: ISO 4217, three letters.
    """

    id: UUID
    slug: str
    name: str = ""
    status: str = "ACTIVE"
    timezone: str = "UTC"
    currency: str = "USD"
    open_edit: bool = True


@dataclass(frozen=True, slots=True)
class SystemScope:
    """Why work that belongs to no tenant is running."""

    reason: str


_tenant: ContextVar[Tenant | None] = ContextVar("partywall_tenant", default=None)
_system: ContextVar[SystemScope | None] = ContextVar("partywall_system", default=None)


def current_tenant() -> Tenant:
    """Return the tenant of the running work.

    Raises NoTenant outside every scope.
    """
    tenant = _tenant.get()
    if tenant is None:
        raise NoTenant
    return tenant


def get_tenant_id() -> UUID:
    """Return the id of the tenant of the running work.

    Raises NoTenant outside every scope.
    """
    return current_tenant().id


def has_tenant_context() -> bool:
    """Return whether a tenant scope is active. Never use it to decide whether to filter."""
    return _tenant.get() is not None


@contextmanager
def tenant_scope(tenant: Tenant) -> Iterator[Tenant]:
    """Run the enclosed work for one tenant.

    Scopes of the same tenant nest.  Raises TenantMismatch inside a scope of another tenant or inside a system scope:
    work for a second tenant must first leave the first.
    """
    active = _tenant.get()
    if active is not None and active.id != tenant.id:
        raise TenantMismatch(f"a scope of tenant {active.slug} is active; leave it before entering {tenant.slug}")
    if _system.get() is not None:
        raise TenantMismatch(f"a system scope is active; leave it before entering tenant {tenant.slug}")
    token = _tenant.set(tenant)
    try:
        yield tenant
    finally:
        _tenant.reset(token)


@contextmanager
def system_scope(*, reason: str) -> Iterator[SystemScope]:
    """Run work that belongs to no tenant (operator commands, sweeps), with the reason that the audit will show.

    reason: at least three characters.  Raises TenantMismatch inside a tenant scope, ValueError without a reason.
    """
    if len(reason.strip()) < 3:
        raise ValueError("system_scope needs a reason of at least three characters; it is written to the audit log")
    active = _tenant.get()
    if active is not None:
        raise TenantMismatch(f"a scope of tenant {active.slug} is active; leave it before entering a system scope")
    token = _system.set(SystemScope(reason.strip()))
    try:
        yield SystemScope(reason.strip())
    finally:
        _system.reset(token)


def current_system_scope() -> SystemScope:
    """Return the active system scope.

    Raises NoTenant when none is active.
    """
    scope = _system.get()
    if scope is None:
        raise NoTenant("no system scope is active; wrap the work in partywall.system_scope(reason=...)")
    return scope

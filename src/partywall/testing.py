"""pytest plugin: two tenants to test with, and an assertion that cannot pass on an empty answer.

The fixtures are overridden by defining one of the same name, for example to write the tenant's row first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest

from partywall.context import Tenant, tenant_scope
from partywall.ids import uuid7
from partywall.tables import TENANT_COLUMN

# `with act_as(tenant_a): …`; a test leaves one tenant before it enters the next, as the program does.
act_as = tenant_scope


@pytest.fixture
def tenant_a() -> Tenant:
    """Return a tenant that no other test has."""
    return Tenant(uuid7(), "tenant-a", "Tenant A")


@pytest.fixture
def tenant_b() -> Tenant:
    """Return another tenant that no other test has."""
    return Tenant(uuid7(), "tenant-b", "Tenant B")


def assert_isolated(read: Callable[[], Iterable[Any]], *tenants: Tenant) -> None:
    """Assert that `read`, run for each tenant, gives rows of that tenant and of no other.

    A row is an object or a mapping with a tenant_id. An answer without rows fails too: it would prove nothing.
    """
    for tenant in tenants:
        with act_as(tenant):
            owners = [row[TENANT_COLUMN] if isinstance(row, dict) else getattr(row, TENANT_COLUMN) for row in read()]
        assert owners, f"tenant {tenant.slug} saw no row of its own; write one before the assertion"
        foreign = [owner for owner in owners if str(owner) != str(tenant.id)]
        assert not foreign, f"tenant {tenant.slug} saw {len(foreign)} rows of another tenant, first of {foreign[0]}"


def assert_no_trace(output: str | bytes, *, own: Collection[object], foreign: Collection[object]) -> None:
    """Assert that a page, file or message holds every one of the own marks and none of the foreign ones.

    Marks are ids, names or planted words, compared as text.  Raises ValueError if either collection is empty.
    """
    if not own or not foreign:
        raise ValueError("give marks of both tenants; without either the assertion proves nothing")
    words = output.decode("utf-8", "replace") if isinstance(output, bytes) else output
    missing = [mark for mark in own if str(mark) not in words]
    assert not missing, f"the output lacks {missing[0]!r} of its own tenant, so that it lacks the others proves nothing"
    leaked = [mark for mark in foreign if str(mark) in words]
    assert not leaked, f"the output holds {leaked[0]!r} of another tenant"

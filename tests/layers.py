"""Take one layer of isolation away, in a test run only: `ROWHOUSE_WITHOUT=guard`, `policies` or both.

The product has no such setting. What is taken away is taken by this file, from the outside.
"""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import NullPool, Select, create_engine, event, text

from partywall import TableClass, classify, guard
from rowhouse.core.db import Base
from rowhouse.migrate import Addresses

MISSING = frozenset(filter(None, os.environ.get("ROWHOUSE_WITHOUT", "").split(",")))


def take_away(addresses: Addresses) -> None:
    """Remove the layers named by the environment."""
    if "guard" in MISSING:
        event.remove(guard.TenantSession, "do_orm_execute", guard._scope_statement)
        event.remove(guard.TenantSession, "before_flush", guard._check_flush)
        event.remove(guard.TenantSession, "before_attach", guard._check_attach)
        event.listen(guard.TenantSession, "before_flush", _stamp_only)
        guard.scoped = _as_it_is
    if "policies" in MISSING:
        with create_engine(addresses.owner, poolclass=NullPool).begin() as connection:
            for name, found in classify(Base.registry).items():
                if found.table_class is TableClass.TENANT:
                    connection.execute(text(f'ALTER TABLE "{name}" DISABLE ROW LEVEL SECURITY'))


def _as_it_is(statement: Select[Any]) -> Select[Any]:
    return statement


def _stamp_only(session: guard.TenantSession, _context: object, _instances: object) -> None:
    # Without a tenant no row can be written at all, so the stamp stays; what it refuses is gone.
    for row in session.new:
        if getattr(row, "tenant_id", None) is None:
            row.tenant_id = session.tenant_id

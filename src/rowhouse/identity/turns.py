"""Work of one workspace that must be done one call at a time."""

from __future__ import annotations

from sqlalchemy import func, select

from rowhouse.core.call import Call


async def take_turn(call: Call, what: str) -> None:
    """Wait until no other call of this workspace is in the same stretch of work; the turn ends with the transaction.

    Locking the rows concerned would deadlock: two calls may each hold the row the other wants to look at.
    """
    key = func.hashtextextended(f"{call.tenant.id}:{what}", 0)
    await call.session.execute(select(func.pg_advisory_xact_lock(key)))

"""Human numbers (OPP-42), counted per tenant and kind in a row of the tenant's own; no sequence is shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped

from partywall import TenantScoped, reviewed, tenant_unique, uuid7
from rowhouse.core.db import Base, short_text

if TYPE_CHECKING:
    from rowhouse.core.call import Call

_BLOCK = 100


class TenantCounter(TenantScoped, Base):
    """The next number of one kind in one tenant."""

    __tablename__ = "tenant_counter"
    __table_args__ = (tenant_unique("kind"),)

    kind: Mapped[str] = short_text(50)
    next: Mapped[int]


async def next_number(call: Call, kind: str) -> int:
    """Return the next number of a kind in the call's tenant, from 1.

    A rolled-back call leaves no gap; calls that collect writes take blocks of 100 and may leave one.
    """
    block = call.numbers.setdefault(kind, [])
    if not block:
        size = _BLOCK if call.is_deferred else 1
        last = await _advance(call, kind, size)
        block.extend(range(last - size + 1, last + 1))
    return block.pop(0)


async def _advance(call: Call, kind: str, size: int) -> int:
    row = insert(TenantCounter)
    statement = row.on_conflict_do_update(
        index_elements=["tenant_id", "kind"], set_={"next": TenantCounter.next + row.excluded.next}
    ).returning(TenantCounter.next)
    last = await call.session.scalar(
        reviewed(statement, reason="one upsert on the tenant's own key (tenant_id, kind)"),
        {"tenant_id": call.tenant.id, "id": uuid7(), "kind": kind, "next": size},
    )
    assert last is not None
    return last

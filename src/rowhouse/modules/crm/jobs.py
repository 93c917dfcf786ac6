"""Work of the CRM that nobody waits for."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import select

from rowhouse.core.call import Call
from rowhouse.core.errors import Invalid
from rowhouse.core.jobs import Task, job, report_progress
from rowhouse.core.resource import NoInput
from rowhouse.modules.crm.actions.worth import settle
from rowhouse.modules.crm.models import Opportunity
from rowhouse.modules.crm.states import StageType

_CHUNK = 500


class Refreshed(BaseModel):
    """How many open deals in foreign currencies there are, have another value now, and have no exchange rate."""

    deals: int = 0
    changed: int = 0
    without_rate: int = 0


@job("crm.refresh_amounts", retries=3, cron="10 3 * * *")
async def refresh_amounts(call: Call, args: NoInput) -> Refreshed:
    """Bring the open deals in foreign currencies to today's exchange rates; a deal without a rate keeps its value."""
    done = Refreshed()
    after: UUID | None = None
    while deals := await _open_foreign(call, after):
        for deal in deals:
            before = deal.amount_base_minor
            try:
                await settle(call, deal)
            except Invalid:
                done.without_rate += 1
            done.changed += deal.amount_base_minor != before
        done.deals += len(deals)
        after = deals[-1].id
        await call.flush()
        for deal in deals:
            call.session.expunge(deal)
        await report_progress(call, 0, f"{done.deals} deals")
    return done


async def _open_foreign(call: Call, after: UUID | None) -> Sequence[Opportunity]:
    statement = select(Opportunity).where(Opportunity.status == StageType.OPEN, Opportunity.currency != call.tenant.currency)
    if after is not None:
        statement = statement.where(Opportunity.id > after)
    return (await call.session.scalars(statement.order_by(Opportunity.id).limit(_CHUNK).with_for_update())).all()


TASKS: tuple[Task, ...] = (refresh_amounts,)

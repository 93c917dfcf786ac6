"""What one call has already read of pipelines, rates, ranks and lines, so that thousands of deals cost no look-up each."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import func, inspect, select

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, ReferenceNotFound
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.models import (
    ExchangeRate,
    Opportunity,
    OpportunityContact,
    OpportunityLineItem,
    Pipeline,
    PipelineStage,
)
from rowhouse.modules.crm.states import StageType


@dataclass(slots=True)
class Known:
    """The memory of one session. The rows are kept here because the session itself holds them only weakly.

    primaries: the primary person of a deal (OpportunityContact) or of an account (CRMContact), by the id of either.
    """

    pipelines: dict[UUID, Pipeline] = field(default_factory=dict)
    stages: dict[UUID, PipelineStage] = field(default_factory=dict)
    rates: dict[str, list[tuple[date, Decimal]]] = field(default_factory=dict)
    ranks: dict[UUID, str] = field(default_factory=dict)
    lines: dict[UUID, list[OpportunityLineItem]] = field(default_factory=dict)
    primaries: dict[UUID, Any] = field(default_factory=dict)


def known(call: Call) -> Known:
    """Return the memory of the call's session."""
    memory: Known = call.session.sync_session.info.setdefault("crm.known", Known())
    return memory


def forget_pipelines(call: Call) -> None:
    """Read pipelines and stages afresh the next time; called by whatever changes them."""
    known(call).pipelines.clear()


async def pipelines(call: Call) -> dict[UUID, Pipeline]:
    """Return every pipeline of the tenant, archived ones and those added by this call included."""
    memory = known(call)
    # A rolled-back item of a bulk call detaches all rows.
    if not memory.pipelines or any(row not in call.session for row in memory.pipelines.values()):
        memory.pipelines = {row.id: row for row in await _all(call, Pipeline)}
        memory.stages = {row.id: row for row in await _all(call, PipelineStage)}
    return memory.pipelines


async def default_pipeline(call: Call) -> Pipeline:
    """Return the tenant's default pipeline.  Raises Conflict (no_pipeline) when there is none."""
    for row in (await pipelines(call)).values():
        if row.is_default:
            return row
    raise Conflict("This workspace has no default pipeline; create one under pipelines first.", code="no_pipeline")


async def stages_of(call: Call, pipeline_id: UUID) -> list[PipelineStage]:
    """Return a pipeline's stages in order."""
    await pipelines(call)
    found = [row for row in known(call).stages.values() if row.pipeline_id == pipeline_id]
    return sorted(found, key=lambda row: row.position)


async def stage_of(call: Call, pipeline_id: UUID, stage_id: UUID, field: str) -> PipelineStage:
    """Return a stage of a pipeline.  Raises ReferenceNotFound alike for a stage of another pipeline or tenant."""
    await pipelines(call)
    stage = known(call).stages.get(stage_id)
    if stage is None or stage.pipeline_id != pipeline_id:
        raise ReferenceNotFound(field)
    return stage


async def first_stage(call: Call, pipeline_id: UUID, kind: StageType) -> PipelineStage:
    """Return a pipeline's first stage of a type.  Raises Conflict (no_open_stage, no_won_stage, no_lost_stage)."""
    for stage in await stages_of(call, pipeline_id):
        if stage.type == kind:
            return stage
    raise Conflict(f"This pipeline has no {kind} stage; add one first.", code=f"no_{kind.lower()}_stage")


async def rate_on(call: Call, currency: str, day: date) -> Decimal | None:
    """Return what one unit of a currency was worth in the tenant's on a day; None when no rate is known."""
    memory = known(call)
    if currency not in memory.rates:
        statement = select(ExchangeRate).where(ExchangeRate.currency == currency, ExchangeRate.archived_at.is_(None))
        rows = [*(await call.session.scalars(statement)).all()]
        rows += [row for row in call.session.new if isinstance(row, ExchangeRate) and row.currency == currency]
        memory.rates[currency] = sorted((row.as_of, row.rate) for row in rows)
    return rules.rate_on(memory.rates[currency], day)


async def last_rank(call: Call, stage_id: UUID) -> str:
    """Return a rank behind every card of a stage, and remember it as taken."""
    memory = known(call)
    if stage_id not in memory.ranks:
        highest = await call.session.scalar(select(func.max(Opportunity.board_rank)).where(Opportunity.stage_id == stage_id))
        memory.ranks[stage_id] = rules.rank_between(highest, None)
    else:
        memory.ranks[stage_id] = rules.rank_between(memory.ranks[stage_id], None)
    return memory.ranks[stage_id]


async def lines_of(call: Call, deal: Opportunity) -> list[OpportunityLineItem]:
    """Return a deal's lines in order; the list itself, which whoever adds or removes a line keeps up to date."""
    memory = known(call)
    found = memory.lines.get(deal.id)
    if found is None or any(line not in call.session for line in found):
        found = []
        if not inspect(deal).pending:
            order = (OpportunityLineItem.position, OpportunityLineItem.id)
            statement = select(OpportunityLineItem).where(OpportunityLineItem.opportunity_id == deal.id).order_by(*order)
            found = [line for line in await call.session.scalars(statement) if line not in call.session.deleted]
        memory.lines[deal.id] = found
    return found


async def primary_contact(call: Call, deal: Opportunity) -> UUID | None:
    """Return the id of a deal's primary contact, or None."""
    holder = known(call).primaries.get(deal.id)
    if holder is not None and holder.is_primary:
        return UUID(str(holder.contact_id))
    if inspect(deal).pending:
        return None
    statement = select(OpportunityContact.contact_id).where(
        OpportunityContact.opportunity_id == deal.id, OpportunityContact.is_primary
    )
    return await call.session.scalar(statement)


async def take_over(call: Call, owner: Any, row: Any, *, among: Any) -> None:
    """Make a row the one primary person of its owner, a deal or an account, and the one before it none.

    among: the condition that finds the others; those of an owner that is not flushed yet are remembered instead.
    """
    memory = known(call)
    others = [other for other in (memory.primaries.get(owner.id),) if other is not None]
    if not inspect(owner).pending:
        others += (await call.session.scalars(select(type(row)).where(among, type(row).is_primary))).all()
    for other in others:
        if other is not row and other.is_primary:
            other.is_primary = False
    memory.primaries[owner.id] = row


async def _all(call: Call, model: type[Any]) -> list[Any]:
    rows = [row for row in await call.session.scalars(select(model)) if row not in call.session.deleted]
    return rows + [row for row in call.session.new if isinstance(row, model)]

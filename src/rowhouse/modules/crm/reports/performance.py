"""How well deals go through their stages, and who wins them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from rowhouse.core.call import Call
from rowhouse.core.errors import Invalid, ReferenceNotFound
from rowhouse.core.resource import Input, report
from rowhouse.exchange import one_of
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.models import Opportunity, OpportunityStageHistory, Pipeline, PipelineStage
from rowhouse.modules.crm.states import StageType

_USUAL_DAYS = 90


class PeriodParams(Input):
    """From a day, to the day before another; the ninety days up to today unless given."""

    period_start: date | None = None
    period_end: date | None = None


class FunnelParams(PeriodParams):
    """Which pipeline; the default one unless named."""

    pipeline_id: UUID | None = None


class FunnelRow(BaseModel):
    """A stage in a period. entered: deals that came in.  reached_next: those that got further since, or were won.

    The times are those of stays that ended in the period; null when none did.
    """

    stage_id: UUID
    name: str
    type: StageType
    entered: int
    reached_next: int
    conversion: float | None
    mean_seconds: int | None
    median_seconds: int | None


class WinRateRow(BaseModel):
    """A member's closed deals of a period; the values in the tenant's currency. mean_cycle_days: of the won ones."""

    owner_user_id: UUID | None
    won_count: int
    lost_count: int
    won_minor: int
    lost_minor: int
    rate_by_count: float | None
    rate_by_value: float | None
    mean_cycle_days: float | None


@report(output=FunnelRow, params=FunnelParams)
async def funnel(call: Call, params: FunnelParams) -> list[FunnelRow]:
    """Return the stages of a pipeline in order: how many deals entered each in the period and how many got further.

    Raises ReferenceNotFound for a pipeline that is not there, Invalid for a period that ends before it starts.
    """
    begin, end = _period(call, params)
    wanted = Pipeline.id == params.pipeline_id if params.pipeline_id else Pipeline.is_default
    statement = select(PipelineStage).join(Pipeline, Pipeline.id == PipelineStage.pipeline_id).where(wanted)
    stages = [stage for (stage,) in await call.rows(statement.order_by(PipelineStage.position))]
    if not stages and params.pipeline_id:
        raise ReferenceNotFound("pipeline_id")
    ids = [stage.id for stage in stages]
    entered_rows, left_rows = await call.fetch(_entries(ids, begin, end), _times(ids, begin, end))
    entries = {stage_id: (entered, reached) for stage_id, entered, reached in entered_rows}
    times = {stage_id: (int(mean), int(median)) for stage_id, mean, median in left_rows}
    rows = []
    for stage in stages:
        entered, reached = entries.get(stage.id, (0, 0))
        mean, median = times.get(stage.id, (None, None))
        rows.append(
            FunnelRow(
                stage_id=stage.id,
                name=stage.name,
                type=StageType(stage.type),
                entered=entered,
                reached_next=reached,
                conversion=rules.ratio(reached, entered) if stage.type == StageType.OPEN else None,
                mean_seconds=mean,
                median_seconds=median,
            )
        )
    return rows


@report(output=WinRateRow, params=PeriodParams)
async def win_rate(call: Call, params: PeriodParams) -> list[WinRateRow]:
    """Return each owner's share of closed deals that was won, the greatest won value first."""
    begin, end = _period(call, params)
    deal = Opportunity
    won, lost = deal.status == StageType.WON, deal.status == StageType.LOST
    cycle = func.extract("epoch", deal.closed_at - deal.opened_at)
    statement = (
        select(
            deal.owner_user_id,
            func.count(deal.id).filter(won),
            func.count(deal.id).filter(lost),
            func.coalesce(func.sum(deal.amount_base_minor).filter(won), 0),
            func.coalesce(func.sum(deal.amount_base_minor).filter(lost), 0),
            func.avg(cycle).filter(won),
        )
        .where(deal.closed_at >= begin, deal.closed_at < end, deal.archived_at.is_(None))
        .group_by(deal.owner_user_id)
    )
    rows = [_win_rate_row(row) for row in await call.rows(statement)]
    return sorted(rows, key=lambda row: (-row.won_minor, str(row.owner_user_id)))


def _entries(stage_ids: list[UUID], begin: datetime, end: datetime) -> Any:
    here, stage = aliased(OpportunityStageHistory), aliased(PipelineStage)
    later, further = aliased(OpportunityStageHistory), aliased(PipelineStage)
    got_further = (
        select(later.id)
        .join(further, further.id == later.to_stage_id)
        .where(
            later.opportunity_id == here.opportunity_id,
            later.changed_at >= here.changed_at,
            further.pipeline_id == stage.pipeline_id,
            further.type != StageType.LOST,
            further.position > stage.position,
        )
        .exists()
    )
    deals = func.count(func.distinct(here.opportunity_id))
    return (
        select(here.to_stage_id, deals, deals.filter(got_further))
        .join(stage, stage.id == here.to_stage_id)
        .join(Opportunity, Opportunity.id == here.opportunity_id)
        .where(
            one_of(here.to_stage_id, stage_ids),
            here.changed_at >= begin,
            here.changed_at < end,
            Opportunity.archived_at.is_(None),
        )
        .group_by(here.to_stage_id)
    )


def _times(stage_ids: list[UUID], begin: datetime, end: datetime) -> Any:
    left = OpportunityStageHistory
    seconds = left.seconds_in_previous
    return (
        select(left.from_stage_id, func.avg(seconds), func.percentile_cont(0.5).within_group(seconds))
        .join(Opportunity, Opportunity.id == left.opportunity_id)
        .where(one_of(left.from_stage_id, stage_ids), left.changed_at >= begin, left.changed_at < end, seconds.is_not(None))
        .where(Opportunity.archived_at.is_(None))
        .group_by(left.from_stage_id)
    )


def _win_rate_row(row: Any) -> WinRateRow:
    owner_id, won, lost, won_minor, lost_minor, cycle = row
    return WinRateRow(
        owner_user_id=owner_id,
        won_count=won,
        lost_count=lost,
        won_minor=int(won_minor),
        lost_minor=int(lost_minor),
        rate_by_count=rules.win_rate(won, lost),
        rate_by_value=rules.win_rate(int(won_minor), int(lost_minor)),
        mean_cycle_days=round(float(cycle) / 86_400, 1) if cycle is not None else None,
    )


def _period(call: Call, params: PeriodParams) -> tuple[datetime, datetime]:
    end = params.period_end or call.today + timedelta(days=1)
    start = params.period_start or end - timedelta(days=_USUAL_DAYS)
    if start >= end:
        raise Invalid("The period ends before it starts.", code="period_range", field="period_end")
    return rules.day_start(start, call.tenant.timezone), rules.day_start(end, call.tenant.timezone)

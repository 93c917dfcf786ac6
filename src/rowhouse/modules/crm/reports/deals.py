"""Deals as they stand: the board, the totals, and the lists that ask for attention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, and_, func, select

from rowhouse.core.call import Call
from rowhouse.core.errors import ReferenceNotFound
from rowhouse.core.resource import Input, NoInput, report
from rowhouse.exchange import one_of
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.models import Account, Opportunity, OpportunityStageHistory, Pipeline, PipelineStage
from rowhouse.modules.crm.states import StageType

_MOST_LINES = 100


class BoardParams(Input):
    """Which pipeline (the default one unless named), whose deals, and how many cards per column."""

    pipeline_id: UUID | None = None
    owner_user_id: UUID | None = None
    cards: int = Field(25, ge=0, le=100)


class DealLine(BaseModel):
    """A deal in a list. days_in_stage: whole days since it entered its stage."""

    id: UUID
    number: int
    name: str
    account_id: UUID | None
    account_name: str | None
    stage_id: UUID
    stage_name: str
    owner_user_id: UUID | None
    amount_minor: int | None
    currency: str
    amount_base_minor: int | None
    probability: int
    expected_close_date: date | None
    next_step: str | None
    next_step_due_on: date | None
    last_activity_at: datetime | None
    stage_entered_at: datetime
    days_in_stage: int
    is_stale: bool
    version: int


class BoardColumn(BaseModel):
    """A stage with the sums of all its deals and the first of its cards, in the tenant's currency."""

    stage_id: UUID
    pipeline_id: UUID
    name: str
    type: StageType
    probability: int
    color: str | None
    count: int
    amount_minor: int
    weighted_minor: int
    cards: list[DealLine]


class TotalsParams(Input):
    """Which deals to count; all of them unless limited."""

    status: StageType | None = None
    owner_user_id: UUID | None = None
    pipeline_id: UUID | None = None


class Totals(BaseModel):
    """Counts and values in the tenant's currency. win_rate: by count, null while nothing is closed."""

    currency: str
    count: int
    open_count: int
    open_minor: int
    weighted_minor: int
    won_count: int
    won_minor: int
    lost_count: int
    lost_minor: int
    win_rate: float | None


class OwnerParams(Input):
    """Whose deals; everybody's unless named."""

    owner_user_id: UUID | None = None


class ClosingSoonParams(OwnerParams):
    """How many days ahead."""

    days: int = Field(30, ge=1, le=366)


class Stay(BaseModel):
    """One stay of a deal in a stage. left_at: null while it lasts."""

    stage_id: UUID
    stage_name: str
    entered_at: datetime
    left_at: datetime | None
    seconds: int


@report(output=BoardColumn, params=BoardParams)
async def board(call: Call, params: BoardParams) -> list[BoardColumn]:
    """Return the stages of a pipeline in order, with sums and the first cards of each.

    Raises ReferenceNotFound for a pipeline that is not there.
    """
    wanted = Pipeline.id == params.pipeline_id if params.pipeline_id else Pipeline.is_default
    statement = select(PipelineStage).join(Pipeline, Pipeline.id == PipelineStage.pipeline_id).where(wanted)
    stages = [stage for (stage,) in await call.rows(statement.order_by(PipelineStage.position))]
    if not stages and params.pipeline_id:
        raise ReferenceNotFound("pipeline_id")
    shown = [one_of(Opportunity.stage_id, [stage.id for stage in stages]), *_of_owner(params.owner_user_id)]
    summed, placed = await call.fetch(_sums_by_stage(shown), _cards(shown, params.cards))
    sums = {stage_id: (count, int(value or 0), int(weighted or 0)) for stage_id, count, value, weighted in summed}
    cards = [_line(call, row) for row in placed]
    return [
        BoardColumn(
            stage_id=stage.id,
            pipeline_id=stage.pipeline_id,
            name=stage.name,
            type=StageType(stage.type),
            probability=stage.probability,
            color=stage.color,
            **dict(zip(("count", "amount_minor", "weighted_minor"), sums.get(stage.id, (0, 0, 0)), strict=True)),
            cards=[card for card in cards if card.stage_id == stage.id],
        )
        for stage in stages
    ]


@report(output=Totals, params=TotalsParams, many=False)
async def totals(call: Call, params: TotalsParams) -> Totals:
    """Return how many deals there are and what they are worth, by outcome."""
    chosen = [Opportunity.archived_at.is_(None), *_of_owner(params.owner_user_id)]
    if params.status is not None:
        chosen.append(Opportunity.status == params.status)
    if params.pipeline_id is not None:
        chosen.append(Opportunity.pipeline_id == params.pipeline_id)
    value, count = func.coalesce(func.sum(Opportunity.amount_base_minor), 0), func.count(Opportunity.id)
    weighted = func.coalesce(func.sum(Opportunity.weighted_minor), 0)
    statement = select(Opportunity.status, count, value, weighted).where(*chosen).group_by(Opportunity.status)
    found = {status: (n, int(v or 0), int(w or 0)) for status, n, v, w in await call.rows(statement)}
    opened, won, lost = (found.get(status, (0, 0, 0)) for status in (StageType.OPEN, StageType.WON, StageType.LOST))
    return Totals(
        currency=call.tenant.currency,
        count=opened[0] + won[0] + lost[0],
        open_count=opened[0],
        open_minor=opened[1],
        weighted_minor=opened[2],
        won_count=won[0],
        won_minor=won[1],
        lost_count=lost[0],
        lost_minor=lost[1],
        win_rate=rules.win_rate(won[0], lost[0]),
    )


@report(output=DealLine, params=ClosingSoonParams)
async def closing_soon(call: Call, params: ClosingSoonParams) -> list[DealLine]:
    """Return the open deals expected to close from today on within some days, soonest first; at most a hundred."""
    due = Opportunity.expected_close_date
    until = call.today + timedelta(days=params.days)
    return await _open_lines(call, params.owner_user_id, due.between(call.today, until), order=due)


@report(output=DealLine, params=OwnerParams)
async def overdue(call: Call, params: OwnerParams) -> list[DealLine]:
    """Return the open deals whose expected closing date has passed, longest first; at most a hundred."""
    due = Opportunity.expected_close_date
    return await _open_lines(call, params.owner_user_id, due < call.today, order=due)


@report(output=DealLine, params=OwnerParams)
async def stale(call: Call, params: OwnerParams) -> list[DealLine]:
    """Return the open deals left alone for longer than their stage allows, longest first; at most a hundred."""
    touched = func.greatest(Opportunity.stage_entered_at, Opportunity.last_activity_at)
    limit = call.now - func.make_interval(0, 0, 0, PipelineStage.rotten_days)
    return await _open_lines(
        call, params.owner_user_id, and_(PipelineStage.rotten_days.is_not(None), touched < limit), order=touched
    )


@report(output=Stay, params=NoInput, on="row")
async def journey(call: Call, opportunity: Opportunity, params: NoInput) -> list[Stay]:
    """Return a deal's stays in stages, oldest first; together they last as long as the deal is old, or was when closed."""
    statement = (
        select(OpportunityStageHistory.to_stage_id, PipelineStage.name, OpportunityStageHistory.changed_at)
        .join(PipelineStage, PipelineStage.id == OpportunityStageHistory.to_stage_id)
        .where(OpportunityStageHistory.opportunity_id == opportunity.id)
        .order_by(OpportunityStageHistory.changed_at, OpportunityStageHistory.id)
    )
    found = await call.rows(statement)
    end = opportunity.closed_at or max(call.now, opportunity.stage_entered_at)
    entries = [((stage_id, name, entered), entered) for stage_id, name, entered in found]
    stays = rules.stage_durations(entries, end)
    return [
        Stay(
            stage_id=stage_id,
            stage_name=name,
            entered_at=entered,
            left_at=entered + lasted if index + 1 < len(stays) else None,
            seconds=int(lasted.total_seconds()),
        )
        for index, ((stage_id, name, entered), lasted) in enumerate(stays)
    ]


def _sums_by_stage(conditions: Sequence[ColumnElement[bool]]) -> Any:
    value, weighted = (
        func.coalesce(func.sum(Opportunity.amount_base_minor), 0),
        func.coalesce(func.sum(Opportunity.weighted_minor), 0),
    )
    live = (*conditions, Opportunity.archived_at.is_(None))
    return select(Opportunity.stage_id, func.count(Opportunity.id), value, weighted).where(*live).group_by(Opportunity.stage_id)


def _cards(conditions: Sequence[ColumnElement[bool]], most: int) -> Any:
    place = func.row_number().over(partition_by=Opportunity.stage_id, order_by=(Opportunity.board_rank, Opportunity.id))
    placed = (
        select(Opportunity.id.label("id"), place.label("place")).where(*conditions, Opportunity.archived_at.is_(None)).subquery()
    )
    statement = _lines().join(placed, placed.c.id == Opportunity.id).where(placed.c.place <= most)
    return statement.order_by(Opportunity.board_rank, Opportunity.id)


async def _open_lines(call: Call, owner_id: UUID | None, *conditions: ColumnElement[bool], order: Any) -> list[DealLine]:
    chosen = (Opportunity.status == StageType.OPEN, Opportunity.archived_at.is_(None), *_of_owner(owner_id), *conditions)
    statement = _lines().where(*chosen).order_by(order, Opportunity.id).limit(_MOST_LINES)
    return [_line(call, row) for row in await call.rows(statement)]


def _lines() -> Any:
    return (
        select(Opportunity, Account.name, PipelineStage.name, PipelineStage.rotten_days)
        .outerjoin(Account, Account.id == Opportunity.account_id)
        .join(PipelineStage, PipelineStage.id == Opportunity.stage_id)
    )


def _line(call: Call, row: Any) -> DealLine:
    deal, account_name, stage_name, rotten_days = row
    own = {name: getattr(deal, name) for name in DealLine.model_fields if hasattr(deal, name)}
    touched = max(deal.stage_entered_at, deal.last_activity_at or deal.stage_entered_at)
    return DealLine(
        **own,
        account_name=account_name,
        stage_name=stage_name,
        days_in_stage=max(0, (call.now - deal.stage_entered_at).days),
        is_stale=deal.status == StageType.OPEN and rules.is_stale(touched, rotten_days, call.now),
    )


def _of_owner(owner_id: UUID | None) -> list[ColumnElement[bool]]:
    return [] if owner_id is None else [Opportunity.owner_user_id == owner_id]

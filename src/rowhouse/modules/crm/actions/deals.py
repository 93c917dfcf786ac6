"""What is done to a deal: moving it, winning, losing and reopening it, handing it over."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, Forbidden, Invalid, ReferenceNotFound
from rowhouse.core.permissions import Role
from rowhouse.core.references import references
from rowhouse.core.resource import Input, action
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.actions.known import first_stage, pipelines, stage_of
from rowhouse.modules.crm.actions.stages import enter_stage, rank_between
from rowhouse.modules.crm.models import Account, Opportunity, PipelineStage
from rowhouse.modules.crm.states import StageChange, StageType
from rowhouse.values.text import PointInTime


class Move(Input):
    """Where a deal goes; the two cards it is put between are optional."""

    to_stage_id: UUID
    after_id: UUID | None = None
    before_id: UUID | None = None
    note: str | None = Field(None, max_length=2000)
    lost_reason: str | None = Field(None, max_length=100)


class Win(Input):
    """How a deal was won: in the pipeline's first WON stage and now, unless said otherwise."""

    stage_id: UUID | None = None
    closed_at: PointInTime | None = None
    note: str | None = Field(None, max_length=2000)


class Lose(Input):
    """Why a deal was lost, to whom, and when."""

    reason: str = Field(min_length=1, max_length=100)
    detail: str | None = Field(None, max_length=2000)
    competitor_account_id: UUID | None = None
    stage_id: UUID | None = None
    closed_at: PointInTime | None = None


class Reopen(Input):
    """Which stage a deal returns to; the pipeline's first open one unless said otherwise."""

    stage_id: UUID | None = None
    note: str | None = Field(None, max_length=2000)


class ChangePipeline(Input):
    """The pipeline a deal goes on in, and the stage there."""

    pipeline_id: UUID
    stage_id: UUID | None = None
    note: str | None = Field(None, max_length=2000)


class Reassign(Input):
    """The member who takes the deal over."""

    owner_user_id: UUID | None


@action(input=Move)
async def move(call: Call, opportunity: Opportunity, data: Move) -> Opportunity:
    """Put a deal into a stage of its pipeline, or to another place on the board.

    The same stage changes the place alone and writes no history.
    Raises ReferenceNotFound, Invalid (stage_requirements, lost_reason_required), Conflict (no_such_move), Forbidden.
    """
    stage = await stage_of(call, opportunity.pipeline_id, data.to_stage_id, "to_stage_id")
    same = stage.id == opportunity.stage_id
    if not same:
        if stage.type == StageType.LOST and not data.lost_reason:
            raise Invalid("Say why the deal was lost.", code="lost_reason_required", field="lost_reason")
        await change_stage(call, opportunity, stage, at=call.now, note=data.note)
        opportunity.lost_reason = data.lost_reason if stage.type == StageType.LOST else opportunity.lost_reason
    if not same or data.after_id is not None or data.before_id is not None:
        opportunity.board_rank = await rank_between(call, stage, after_id=data.after_id, before_id=data.before_id)
    return opportunity


@action(input=Win)
async def win(call: Call, opportunity: Opportunity, data: Win) -> Opportunity:
    """Close a deal as won; its account becomes a customer.

    Raises Conflict (deal_closed, account_required, no_won_stage), Invalid (stage_requirements, closed_at_range).
    """
    stage = await _closing_stage(call, opportunity, StageType.WON, data.stage_id)
    await change_stage(call, opportunity, stage, at=data.closed_at or call.now, note=data.note)
    opportunity.board_rank = await rank_between(call, stage, after_id=None, before_id=None)
    return opportunity


@action(input=Lose)
async def lose(call: Call, opportunity: Opportunity, data: Lose) -> Opportunity:
    """Close a deal as lost, with the reason.

    Raises Conflict (deal_closed, no_lost_stage), ReferenceNotFound, Invalid (closed_at_range).
    """
    stage = await _closing_stage(call, opportunity, StageType.LOST, data.stage_id)
    await call.reference(Account, data.competitor_account_id, "competitor_account_id")
    await change_stage(call, opportunity, stage, at=data.closed_at or call.now, note=data.detail)
    opportunity.lost_reason, opportunity.lost_detail = data.reason, data.detail
    opportunity.competitor_account_id = data.competitor_account_id or opportunity.competitor_account_id
    opportunity.board_rank = await rank_between(call, stage, after_id=None, before_id=None)
    return opportunity


@action(input=Reopen)
async def reopen(call: Call, opportunity: Opportunity, data: Reopen) -> Opportunity:
    """Put a closed deal back into an open stage; only its owner or an administrator.

    Raises Conflict (deal_open), Invalid (not_open_stage), Forbidden.
    """
    if opportunity.status == StageType.OPEN:
        raise Conflict("The deal is open already.", code="deal_open")
    if data.stage_id is None:
        stage = await first_stage(call, opportunity.pipeline_id, StageType.OPEN)
    else:
        stage = await stage_of(call, opportunity.pipeline_id, data.stage_id, "stage_id")
    _must_be(stage, StageType.OPEN)
    await change_stage(call, opportunity, stage, at=call.now, note=data.note)
    opportunity.board_rank = await rank_between(call, stage, after_id=None, before_id=None)
    return opportunity


@action(input=ChangePipeline)
async def change_pipeline(call: Call, opportunity: Opportunity, data: ChangePipeline) -> Opportunity:
    """Let an open deal go on in another pipeline, in its first open stage unless another is named.

    Raises Conflict (deal_closed, same_pipeline), ReferenceNotFound, Invalid (not_open_stage, stage_requirements).
    """
    if opportunity.status != StageType.OPEN:
        raise Conflict(f"The deal is {opportunity.status}; reopen it before changing its pipeline.", code="deal_closed")
    if data.pipeline_id == opportunity.pipeline_id:
        raise Conflict("The deal is in this pipeline already; move it instead.", code="same_pipeline")
    stage = await place(call, data.pipeline_id, data.stage_id)
    _must_be(stage, StageType.OPEN)
    await enter_stage(call, opportunity, stage=stage, kind=StageChange.PIPELINE_CHANGED, at=call.now, note=data.note)
    opportunity.board_rank = await rank_between(call, stage, after_id=None, before_id=None)
    return opportunity


@action(input=Reassign)
async def reassign(call: Call, opportunity: Opportunity, data: Reassign) -> Opportunity:
    """Hand a deal over to another member, or to nobody.  Raises ReferenceNotFound."""
    await call.reference(references(Opportunity)["owner_user_id"], data.owner_user_id, "owner_user_id")
    before, opportunity.owner_user_id = opportunity.owner_user_id, data.owner_user_id
    if before != data.owner_user_id:
        call.emit("crm.opportunity_reassigned", opportunity_id=str(opportunity.id), owner_user_id=str(data.owner_user_id or ""))
    return opportunity


async def change_stage(call: Call, deal: Opportunity, stage: PipelineStage, *, at: datetime, note: str | None) -> None:
    """Take a deal to another stage of its pipeline if the table of moves has the way, and the caller may go it.

    Raises Conflict (no_such_move), Forbidden for a closed deal of somebody else.
    """
    kind = rules.move_kind(deal.status, stage.type)
    if kind is None:
        raise Conflict(f"The deal is {deal.status} already; reopen it first.", code="no_such_move")
    is_admin = call.principal.role.at_least(Role.ADMIN)
    if deal.status != StageType.OPEN and not is_admin and (stage.type != StageType.OPEN or deal.owner_user_id != call.member_id):
        raise Forbidden("A closed deal is reopened by its owner or an administrator; only an administrator changes its outcome.")
    await enter_stage(call, deal, stage=stage, kind=kind, at=at, note=note)


async def place(call: Call, pipeline_id: UUID, stage_id: UUID | None) -> PipelineStage:
    """Return the stage of an active pipeline, its first open one when none is named.

    Raises ReferenceNotFound for a pipeline or stage that is not there, Conflict (pipeline_inactive).
    """
    pipeline = (await pipelines(call)).get(pipeline_id)
    if pipeline is None or pipeline.archived_at is not None:
        raise ReferenceNotFound("pipeline_id")
    if pipeline.is_active is False:
        raise Conflict(f"The pipeline {pipeline.name} is not active; activate it first.", code="pipeline_inactive")
    if stage_id is not None:
        return await stage_of(call, pipeline_id, stage_id, "stage_id")
    return await first_stage(call, pipeline_id, StageType.OPEN)


async def _closing_stage(call: Call, deal: Opportunity, kind: StageType, stage_id: UUID | None) -> PipelineStage:
    if deal.status == kind:
        raise Conflict(f"The deal is {deal.status} already; reopen it first.", code="deal_closed")
    if stage_id is None:
        return await first_stage(call, deal.pipeline_id, kind)
    stage = await stage_of(call, deal.pipeline_id, stage_id, "stage_id")
    _must_be(stage, kind)
    return stage


def _must_be(stage: PipelineStage, kind: StageType) -> None:
    if stage.type != kind:
        raise Invalid(
            f"{stage.name} is a stage of type {stage.type}, not {kind}.", code=f"not_{kind.lower()}_stage", field="stage_id"
        )

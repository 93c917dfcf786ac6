"""Pipelines and their stages: always complete, one of them the default, and provided to a new tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field
from sqlalchemy import func, or_, select

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, Invalid
from rowhouse.core.operations import assign
from rowhouse.core.permissions import Role
from rowhouse.core.resource import Change, Input, NoInput, action
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.actions.known import forget_pipelines, pipelines, stages_of
from rowhouse.modules.crm.models import Opportunity, OpportunityStageHistory, Pipeline, PipelineStage
from rowhouse.modules.crm.states import ForecastCategory, StageType
from rowhouse.values.text import clean_text

_CATEGORIES = {
    StageType.OPEN: ForecastCategory.PIPELINE,
    StageType.WON: ForecastCategory.CLOSED,
    StageType.LOST: ForecastCategory.OMITTED,
}
_PROBABILITIES = {StageType.WON: 100, StageType.LOST: 0}


class StageInput(Input):
    """A stage given with its pipeline; its place is its place in the list."""

    name: Annotated[str, AfterValidator(clean_text)] = Field(min_length=1, max_length=100)
    type: StageType = StageType.OPEN
    probability: int | None = Field(None, ge=0, le=100)
    forecast_category: ForecastCategory | None = None
    rotten_days: int | None = Field(None, ge=1, le=3650)
    required_fields: list[str] = Field(default=[], max_length=len(rules.REQUIRABLE))
    color: str | None = Field(None, max_length=20)


class PipelineCreate(Input):
    """A new pipeline; without stages it gets the usual six."""

    name: Annotated[str, AfterValidator(clean_text)] = Field(min_length=1, max_length=100)
    stages: list[StageInput] | None = Field(None, max_length=50)


class ReorderStages(Input):
    """Every stage of the pipeline, in the new order."""

    stage_ids: list[UUID] = Field(min_length=1, max_length=200)


_USUAL_STAGES = (
    StageInput(name="Lead", probability=10, rotten_days=14),
    StageInput(name="Qualified", probability=25, rotten_days=21),
    StageInput(name="Proposal", probability=50, rotten_days=21, forecast_category=ForecastCategory.BEST_CASE),
    StageInput(name="Negotiation", probability=75, rotten_days=30, forecast_category=ForecastCategory.COMMIT),
    StageInput(name="Closed Won", type=StageType.WON),
    StageInput(name="Closed Lost", type=StageType.LOST),
)


async def provision(call: Call) -> Pipeline:
    """Return the tenant's default pipeline, made with the usual six stages if there is none yet."""
    for row in (await pipelines(call)).values():
        if row.is_default:
            return row
    return await create_pipeline(call, {"name": "Sales", "description": "The way from a lead to a customer."})


async def create_pipeline(call: Call, data: dict[str, Any]) -> Pipeline:
    """Add a pipeline with its stages; a tenant's first one is its default.

    Raises Invalid (stage_probability, unknown_required_field), Conflict (pipeline_incomplete).
    """
    columns = {name: value for name, value in data.items() if name != "stages" and value is not None}
    has_default = any(row.is_default for row in (await pipelines(call)).values())
    row = Pipeline(**{"is_active": True, **columns})
    row.is_default = bool(row.is_active) and not has_default
    call.session.add(row)
    inputs = [StageInput.model_validate(stage) for stage in data.get("stages") or _USUAL_STAGES]
    stages = [_stage(row, position, given) for position, given in enumerate(inputs, start=1)]
    call.session.add_all(stages)
    if row.is_active:
        _must_be_complete(row, stages)
    forget_pipelines(call)
    return row


@action(input=ReorderStages, role=Role.ADMIN)
async def reorder_stages(call: Call, pipeline: Pipeline, data: ReorderStages) -> Pipeline:
    """Put a pipeline's stages into the order given.  Raises Invalid (stages_differ) unless all of them are named once."""
    stages = {stage.id: stage for stage in await stages_of(call, pipeline.id)}
    if len(data.stage_ids) != len(stages) or set(data.stage_ids) != set(stages):
        raise Invalid("Name every stage of the pipeline once.", code="stages_differ", field="stage_ids")
    for position, stage_id in enumerate(data.stage_ids, start=1):
        assign(stages[stage_id], {"position": position})
    return pipeline


@action(role=Role.ADMIN)
async def make_default(call: Call, pipeline: Pipeline, data: NoInput) -> Pipeline:
    """Make a pipeline the one new deals begin in.  Raises Conflict (archived, pipeline_inactive)."""
    if pipeline.archived_at is not None:
        raise Conflict("The pipeline is archived; restore it first.", code="archived")
    if not pipeline.is_active:
        raise Conflict("The pipeline is not active; activate it first.", code="pipeline_inactive")
    for other in (await pipelines(call)).values():
        if other.is_default and other.id != pipeline.id:
            other.is_default = False
    # The old default must be gone from the index before the new one enters it.
    await call.flush()
    pipeline.is_default = True
    return pipeline


async def check_pipeline(call: Call, change: Change) -> None:
    """Keep the default pipeline in use, and pipelines with open deals where they are.

    Raises Conflict (default_pipeline, has_dependents, pipeline_incomplete).
    """
    pipeline: Pipeline = change.row
    forget_pipelines(call)
    closes = change.verb in {"archive", "delete"} or ("is_active" in change.before and not pipeline.is_active)
    if closes and pipeline.is_default:
        raise Conflict("This is the default pipeline; make another one the default first.", code="default_pipeline")
    if closes:
        await _must_be_unused(call, Opportunity.pipeline_id == pipeline.id, Opportunity.status == StageType.OPEN)
    elif change.before.get("is_active") is False:
        _must_be_complete(pipeline, await stages_of(call, pipeline.id))


async def check_stage(call: Call, change: Change) -> None:
    """Keep a stage's numbers in line with its type, its position free, and its pipeline complete.

    Raises Invalid (stage_probability, unknown_required_field), Conflict (duplicate, has_dependents, pipeline_incomplete).
    """
    stage: PipelineStage = change.row
    if change.verb != "delete":
        _complete(stage, change)
        if "type" in change.before:
            await _must_be_unused(call, Opportunity.stage_id == stage.id)
    else:
        await _must_be_unused(call, Opportunity.stage_id == stage.id)
        await _must_be_unmentioned(call, stage)
    pipeline = await call.load(Pipeline, stage.pipeline_id, lock=True)
    forget_pipelines(call)
    others = [row for row in await stages_of(call, pipeline.id) if row is not stage]
    if change.verb != "delete" and any(row.position == stage.position for row in others):
        # The database would notice only at the commit.
        raise Conflict(f"Another stage stands at position {stage.position}.", code="duplicate", field="position")
    if pipeline.is_active and (change.verb == "delete" or "type" in change.before):
        _must_be_complete(pipeline, [*others, *([] if change.verb == "delete" else [stage])])


def _stage(pipeline: Pipeline, position: int, given: StageInput) -> PipelineStage:
    stage = PipelineStage(pipeline_id=pipeline.id, position=position, **given.model_dump())
    _complete(stage, Change(stage, "create"))
    return stage


def _complete(stage: PipelineStage, change: Change) -> None:
    """Fill in what a stage's type says; a stage that changes its type takes over the new type's numbers."""
    kind = StageType(stage.type or StageType.OPEN)
    changed = "type" in change.before
    fixed = _PROBABILITIES.get(kind)
    if fixed is not None and ((changed and "probability" not in change.before) or stage.probability is None):
        stage.probability = fixed
    if fixed is not None and stage.probability != fixed:
        raise Invalid(f"A {kind} stage has the probability {fixed}.", code="stage_probability", field="probability")
    if kind is not StageType.OPEN or changed or stage.forecast_category is None:
        category = _CATEGORIES[kind] if kind is not StageType.OPEN or not stage.forecast_category else stage.forecast_category
        assign(stage, {"forecast_category": category})
    assign(stage, {"type": kind, "probability": stage.probability or 0, "required_fields": stage.required_fields or []})
    unknown = [name for name in stage.required_fields if name not in rules.REQUIRABLE]
    if unknown:
        raise Invalid(
            f"A stage can ask for {', '.join(rules.REQUIRABLE)}; not for {', '.join(unknown)}.",
            code="unknown_required_field",
            field="required_fields",
        )


def _must_be_complete(pipeline: Pipeline, stages: Sequence[PipelineStage]) -> None:
    missing = sorted(set(StageType) - {StageType(stage.type) for stage in stages})
    if missing:
        raise Conflict(
            f"The active pipeline {pipeline.name} would have no {' and no '.join(missing)} stage; add one, or deactivate it.",
            code="pipeline_incomplete",
        )


async def _must_be_unused(call: Call, *conditions: Any) -> None:
    count = await call.session.scalar(select(func.count(Opportunity.id)).where(*conditions))
    if count:
        raise Conflict(f"{count} deals stand here; move them first.", code="has_dependents")


async def _must_be_unmentioned(call: Call, stage: PipelineStage) -> None:
    mentions = or_(OpportunityStageHistory.from_stage_id == stage.id, OpportunityStageHistory.to_stage_id == stage.id)
    if await call.session.scalar(select(func.count(OpportunityStageHistory.id)).where(mentions)):
        raise Conflict("The history of deals names this stage, so it stays.", code="has_dependents")

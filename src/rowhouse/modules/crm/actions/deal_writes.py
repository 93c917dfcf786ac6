"""Creating and updating a deal with its lines and people in one step, so that an import is one row and repeatable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field
from sqlalchemy import inspect, select

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, Invalid, ReferenceNotFound
from rowhouse.core.numbers import next_number
from rowhouse.core.operations import assign
from rowhouse.core.resource import Change, Input
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.actions.deals import change_stage, place
from rowhouse.modules.crm.actions.known import default_pipeline, first_stage, known, last_rank, pipelines, stage_of, take_over
from rowhouse.modules.crm.actions.stages import advance_contact, check_requirements, enter_stage, write_created
from rowhouse.modules.crm.actions.worth import LineInput, settle, write_lines
from rowhouse.modules.crm.models import CRMContact, Opportunity, OpportunityContact, PipelineStage
from rowhouse.modules.crm.states import AmountSource, ContactRole, ForecastCategory, Lifecycle, StageChange, StageType
from rowhouse.values.text import PointInTime, clean_text

_MANY_LINES = 200
_MANY_PEOPLE = 50


class DealContactInput(Input):
    """A person given with the deal; the first is the primary one unless another says so."""

    contact_id: UUID
    role: ContactRole = ContactRole.OTHER
    role_note: str | None = Field(None, max_length=200)
    is_primary: bool = False


class DealExtra(Input):
    """What may be said of a deal beside its own columns.

    stage_id: also a closed one, with closed_at; the history then has a line for each.  opened_at: when the deal began.
    lines: all of them, in order.  contacts: those named are added or changed, others stay.
    """

    pipeline_id: UUID | None = None
    stage_id: UUID | None = None
    currency: str | None = Field(None, pattern=r"^[A-Z]{3}$")
    probability: int | None = Field(None, ge=0, le=100)
    forecast_category: ForecastCategory | None = None
    lines: list[LineInput] | None = Field(None, max_length=_MANY_LINES)
    contacts: list[DealContactInput] | None = Field(None, max_length=_MANY_PEOPLE)
    opened_at: PointInTime | None = None
    closed_at: PointInTime | None = None


class DealCreate(DealExtra):
    """What a new deal needs and may bring."""

    name: Annotated[str, AfterValidator(clean_text)] = Field(min_length=1, max_length=200)


@dataclass(frozen=True, slots=True)
class _Extra:
    """The extra values of one write; None where nothing was said."""

    pipeline_id: UUID | None
    stage_id: UUID | None
    currency: str | None
    probability: int | None
    forecast_category: ForecastCategory | None
    lines: list[LineInput] | None
    contacts: list[DealContactInput] | None
    opened_at: datetime | None
    closed_at: datetime | None


async def create_opportunity(call: Call, data: dict[str, Any]) -> Opportunity:
    """Add a deal with its lines, people and history.

    By default in the default pipeline's first open stage, owned by the caller, begun now, in the tenant's currency.
    Raises ReferenceNotFound, Invalid (stage_requirements, no_exchange_rate, closed_at_range), Conflict (no_pipeline).
    """
    columns, extra = _split(data)
    pipeline_id = extra.pipeline_id or await _pipeline_of(call, extra.stage_id) or (await default_pipeline(call)).id
    target = await place(call, pipeline_id, extra.stage_id)
    start = target if target.type == StageType.OPEN else await first_stage(call, pipeline_id, StageType.OPEN)
    deal = await _new_deal(call, columns, extra, start)
    await write_lines(call, deal, extra.lines or [])
    _check_amount(deal, columns)
    await settle(call, deal)
    primary = await _write_people(call, deal, extra.contacts or [], existing=[])
    write_created(call, deal, start)
    if target is start:
        _must_not_be_closed(extra)
        check_requirements(deal, target)
        await advance_contact(call, primary, Lifecycle.OPPORTUNITY)
    else:
        _must_say_why(target, columns)
        kind = StageChange(target.type)
        await enter_stage(call, deal, stage=target, kind=kind, at=extra.closed_at or call.now)
        assign(deal, {name: columns[name] for name in ("lost_reason", "lost_detail") if name in columns})
    return deal


async def update_opportunity(call: Call, deal: Opportunity, data: dict[str, Any]) -> Opportunity:
    """Change a deal, its lines and its people; what is the same already stays untouched.

    A different stage is a move like any other, with its history.
    Raises as the move does, and Conflict (amount_from_lines, closed_at_fixed, deal_closed).
    """
    columns, extra = _split(data)
    before = _value_of(deal)
    if extra.lines is not None:
        await write_lines(call, deal, extra.lines)
    _check_amount(deal, columns)
    assign(deal, columns)
    _overwrite(deal, extra)
    primary = None
    if extra.contacts:
        primary = await _write_people(call, deal, extra.contacts, existing=await _people_of(call, deal))
    if _value_of(deal) != before:
        await settle(call, deal)
    await _follow_stage(call, deal, extra, columns)
    # Last, since it locks the person and so sends what is pending.
    await advance_contact(call, primary if deal.status == StageType.OPEN else None, Lifecycle.OPPORTUNITY)
    return deal


async def check_opportunity_contact(call: Call, change: Change) -> None:
    """Let the primary person of a deal be one: naming another takes it from the first."""
    person: OpportunityContact = change.row
    if change.verb == "delete" or not person.is_primary:
        return
    same_deal = OpportunityContact.opportunity_id == person.opportunity_id
    await take_over(call, await call.load(Opportunity, person.opportunity_id), person, among=same_deal)
    await advance_contact(call, person.contact_id, Lifecycle.OPPORTUNITY)


def _split(data: dict[str, Any]) -> tuple[dict[str, Any], _Extra]:
    columns = {name: value for name, value in data.items() if name not in DealExtra.model_fields}
    if "tags" in columns:
        columns["tags"] = rules.tags_norm(columns["tags"] or [])
    return columns, _Extra(**{name: data.get(name) for name in DealExtra.model_fields})


async def _pipeline_of(call: Call, stage_id: UUID | None) -> UUID | None:
    if stage_id is None:
        return None
    await pipelines(call)
    stage = known(call).stages.get(stage_id)
    if stage is None:
        raise ReferenceNotFound("stage_id")
    return stage.pipeline_id


async def _new_deal(call: Call, columns: dict[str, Any], extra: _Extra, start: PipelineStage) -> Opportunity:
    opened_at = extra.opened_at or min(call.now, extra.closed_at or call.now)
    if opened_at > call.now:
        raise Invalid("A deal cannot begin in the future.", code="opened_at_range", field="opened_at")
    deal = Opportunity(
        number=await next_number(call, "opportunity"),
        pipeline_id=start.pipeline_id,
        stage_id=start.id,
        status=StageType.OPEN,
        currency=extra.currency or call.tenant.currency,
        amount_source=AmountSource.MANUAL,
        probability=start.probability if extra.probability is None else extra.probability,
        probability_overridden=extra.probability not in (None, start.probability),
        weighted_minor=0,
        forecast_category=extra.forecast_category or start.forecast_category,
        opened_at=opened_at,
        stage_entered_at=opened_at,
        board_rank=await last_rank(call, extra.stage_id or start.id),
        **{"tags": [], "owner_user_id": call.member_id, **columns},
    )
    call.session.add(deal)
    return deal


def _overwrite(deal: Opportunity, extra: _Extra) -> None:
    if extra.currency is not None:
        assign(deal, {"currency": extra.currency})
    if extra.opened_at is not None:
        if extra.opened_at > deal.stage_entered_at and extra.opened_at != deal.opened_at:
            raise Invalid("A deal begins before it enters its stage.", code="opened_at_range", field="opened_at")
        assign(deal, {"opened_at": extra.opened_at})
    if deal.status == StageType.OPEN and extra.probability not in (None, deal.probability):
        deal.probability, deal.probability_overridden = extra.probability or 0, True
    if deal.status == StageType.OPEN and extra.forecast_category is not None:
        assign(deal, {"forecast_category": extra.forecast_category})


def _check_amount(deal: Opportunity, columns: dict[str, Any]) -> None:
    if deal.amount_source != AmountSource.LINE_ITEMS or "amount_minor" not in columns:
        return
    amount = columns.pop("amount_minor")
    lines = deal.amount_minor
    if amount is not None and amount != lines:
        raise Conflict(
            f"The deal's lines make {lines}, not {amount}; change the lines, or remove them to set the amount.",
            code="amount_from_lines",
            field="amount_minor",
        )


async def _follow_stage(call: Call, deal: Opportunity, extra: _Extra, columns: dict[str, Any]) -> None:
    pipeline_id = extra.pipeline_id or await _pipeline_of(call, extra.stage_id) or deal.pipeline_id
    if pipeline_id != deal.pipeline_id:
        await _change_pipeline(call, deal, await place(call, pipeline_id, extra.stage_id))
        return
    if extra.stage_id is None or extra.stage_id == deal.stage_id:
        if extra.closed_at not in (None, deal.closed_at):
            raise Conflict(
                "When a deal was closed stays; reopen it and close it again.", code="closed_at_fixed", field="closed_at"
            )
        return
    stage = await stage_of(call, pipeline_id, extra.stage_id, "stage_id")
    if stage.type == StageType.OPEN:
        _must_not_be_closed(extra)
    _must_say_why(stage, columns)
    await change_stage(call, deal, stage, at=extra.closed_at or call.now, note=None)
    assign(deal, {name: columns[name] for name in ("lost_reason", "lost_detail") if name in columns})
    deal.board_rank = await last_rank(call, stage.id)


async def _change_pipeline(call: Call, deal: Opportunity, stage: PipelineStage) -> None:
    if deal.status != StageType.OPEN or stage.type != StageType.OPEN:
        raise Conflict("Only an open deal changes its pipeline, into an open stage.", code="deal_closed", field="pipeline_id")
    await enter_stage(call, deal, stage=stage, kind=StageChange.PIPELINE_CHANGED, at=call.now)
    deal.board_rank = await last_rank(call, stage.id)


def _must_say_why(stage: PipelineStage, columns: dict[str, Any]) -> None:
    if stage.type == StageType.LOST and not columns.get("lost_reason"):
        raise Invalid("Say why the deal was lost.", code="lost_reason_required", field="lost_reason")


def _must_not_be_closed(extra: _Extra) -> None:
    if extra.closed_at is not None:
        raise Invalid(
            "A deal in an open stage has no closing date; name a WON or LOST stage.", code="not_closed", field="closed_at"
        )


async def _write_people(
    call: Call, deal: Opportunity, inputs: Sequence[DealContactInput], *, existing: Sequence[OpportunityContact]
) -> UUID | None:
    given = {person.contact_id: person for person in map(DealContactInput.model_validate, inputs)}
    if not given:
        return None
    rows = {row.contact_id: row for row in existing}
    named = next((person.contact_id for person in given.values() if person.is_primary), None)
    primary = named or next((row.contact_id for row in existing if row.is_primary), next(iter(given)))
    for index, (contact_id, person) in enumerate(given.items()):
        if contact_id not in rows:
            await call.reference(CRMContact, contact_id, f"contacts.{index}.contact_id")
            rows[contact_id] = OpportunityContact(opportunity_id=deal.id, contact_id=contact_id)
            call.session.add(rows[contact_id])
        assign(rows[contact_id], {"role": person.role, "role_note": person.role_note})
    for contact_id, row in rows.items():
        assign(row, {"is_primary": contact_id == primary})
    known(call).primaries[deal.id] = rows.get(primary)
    return primary


async def _people_of(call: Call, deal: Opportunity) -> Sequence[OpportunityContact]:
    if inspect(deal).pending:
        return [row for row in call.session.new if isinstance(row, OpportunityContact) and row.opportunity_id == deal.id]
    return (await call.session.scalars(select(OpportunityContact).where(OpportunityContact.opportunity_id == deal.id))).all()


def _value_of(deal: Opportunity) -> tuple[int | None, str, int]:
    return deal.amount_minor, deal.currency, deal.probability

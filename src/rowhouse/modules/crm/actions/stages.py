"""The one way a deal enters a stage: requirements, history, status, value, and what follows from it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, Fault, Invalid
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.actions.known import last_rank, primary_contact
from rowhouse.modules.crm.actions.worth import settle
from rowhouse.modules.crm.models import Account, CRMContact, Opportunity, OpportunityStageHistory, PipelineStage
from rowhouse.modules.crm.states import AccountType, Lifecycle, StageChange, StageType

_EVENTS = {
    StageChange.WON: "crm.opportunity_won",
    StageChange.LOST: "crm.opportunity_lost",
    StageChange.REOPENED: "crm.opportunity_reopened",
    StageChange.MOVED: "crm.opportunity_stage_changed",
    StageChange.PIPELINE_CHANGED: "crm.opportunity_stage_changed",
}


async def enter_stage(
    call: Call, deal: Opportunity, *, stage: PipelineStage, kind: StageChange, at: datetime, note: str | None = None
) -> None:
    """Put a deal into a stage: history, status, probability, value, event, and for a win its account and contact.

    at: when it counts as having happened.  Its place on the board is the caller's.
    Raises Invalid (stage_requirements, closed_at_range, no_exchange_rate), Conflict (account_required).
    """
    check_requirements(deal, stage)
    if stage.type == StageType.WON and deal.account_id is None:
        raise Conflict("A deal needs an account before it can be won; set account_id first.", code="account_required")
    if at > call.now or at < deal.opened_at:
        raise Invalid("The date lies before the deal began or in the future.", code="closed_at_range", field="closed_at")
    _write_history(call, deal, stage=stage, kind=kind, at=at, note=note)
    _stand_in(deal, stage, at)
    await settle(call, deal)
    call.emit(_EVENTS[kind], opportunity_id=str(deal.id), stage_id=str(stage.id))
    if stage.type == StageType.WON:
        await _make_customer(call, deal)


def write_created(call: Call, deal: Opportunity, stage: PipelineStage) -> None:
    """Add the first line of a deal's history, dated when the deal began."""
    call.session.add(
        OpportunityStageHistory(
            opportunity_id=deal.id,
            kind=StageChange.CREATED,
            to_stage_id=stage.id,
            to_probability=deal.probability,
            amount_at=deal.amount_minor,
            currency=deal.currency,
            changed_by_id=call.member_id,
            changed_at=deal.opened_at,
        )
    )


def check_requirements(deal: Opportunity, stage: PipelineStage) -> None:
    """Raise Invalid (stage_requirements), one fault per field the stage asks for and the deal lacks."""
    missing = rules.missing_fields(stage.required_fields or (), {name: getattr(deal, name) for name in rules.REQUIRABLE})
    if missing:
        faults = tuple(Fault(name, "stage_requirements", f"{stage.name} needs this field.") for name in missing)
        raise Invalid(f"Fill in {', '.join(missing)} before entering {stage.name}.", code="stage_requirements", faults=faults)


async def rank_between(call: Call, stage: PipelineStage, *, after_id: UUID | None, before_id: UUID | None) -> str:
    """Return the board rank behind one card and before another; without both, behind the last.

    Raises Invalid (not_in_stage) for a card of another stage, Conflict (board_changed) for cards in the wrong order.
    """
    if after_id is None and before_id is None:
        return await last_rank(call, stage.id)
    await call.flush()
    low = await _card_rank(call, stage, after_id, "after_id")
    high = await _card_rank(call, stage, before_id, "before_id")
    column = Opportunity.board_rank
    if high is None:
        high = await call.session.scalar(select(func.min(column)).where(Opportunity.stage_id == stage.id, column > low))
    elif low is None:
        low = await call.session.scalar(select(func.max(column)).where(Opportunity.stage_id == stage.id, column < high))
    if low is not None and high is not None and low >= high:
        raise Conflict("The board changed meanwhile; read it again and repeat the move.", code="board_changed")
    return rules.rank_between(low, high)


async def advance_contact(call: Call, contact_id: UUID | None, lifecycle: Lifecycle) -> None:
    """Bring a person forward to a lifecycle stage; never back."""
    contact = await call.find(CRMContact, contact_id, lock=True) if contact_id else None
    if contact is not None and rules.is_forward(contact.lifecycle or Lifecycle.LEAD, lifecycle):
        contact.lifecycle = lifecycle


async def _card_rank(call: Call, stage: PipelineStage, card_id: UUID | None, field: str) -> str | None:
    card = await call.reference(Opportunity, card_id, field)
    if card is None:
        return None
    if card.stage_id != stage.id:
        raise Invalid(f"This card does not stand in {stage.name}.", code="not_in_stage", field=field)
    return card.board_rank


def _write_history(
    call: Call, deal: Opportunity, *, stage: PipelineStage, kind: StageChange, at: datetime, note: str | None
) -> None:
    call.session.add(
        OpportunityStageHistory(
            opportunity_id=deal.id,
            kind=kind,
            from_stage_id=deal.stage_id,
            to_stage_id=stage.id,
            from_probability=deal.probability,
            to_probability=_probability(deal, stage),
            amount_at=deal.amount_minor,
            currency=deal.currency,
            changed_by_id=call.member_id,
            changed_at=at,
            seconds_in_previous=max(0, int((at - deal.stage_entered_at).total_seconds())),
            note=note,
        )
    )


def _stand_in(deal: Opportunity, stage: PipelineStage, at: datetime) -> None:
    closed = stage.type != StageType.OPEN
    deal.probability = _probability(deal, stage)
    # A closed deal's probability is a fact; what a person had guessed does not come back with a reopening.
    deal.probability_overridden = deal.probability_overridden and not closed
    if deal.status == StageType.LOST:
        deal.lost_reason = deal.lost_detail = None
    deal.pipeline_id, deal.stage_id = stage.pipeline_id, stage.id
    deal.status, deal.forecast_category = stage.type, stage.forecast_category
    deal.stage_entered_at, deal.closed_at = at, at if closed else None


def _probability(deal: Opportunity, stage: PipelineStage) -> int:
    return deal.probability if deal.probability_overridden and stage.type == StageType.OPEN else stage.probability


async def _make_customer(call: Call, deal: Opportunity) -> None:
    account = await call.load(Account, deal.account_id, lock=True) if deal.account_id else None
    if account is not None and account.type in (AccountType.PROSPECT, AccountType.CHURNED):
        account.type = AccountType.CUSTOMER
    await advance_contact(call, await primary_contact(call, deal), Lifecycle.CUSTOMER)

"""What a deal is worth: its lines, its amount, the tenant's currency, and the weighted value."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field
from sqlalchemy import select

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, Invalid
from rowhouse.core.operations import assign
from rowhouse.core.permissions import Role
from rowhouse.core.resource import Change, Input, NoInput, action
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.actions.known import known, lines_of, rate_on
from rowhouse.modules.crm.models import ExchangeRate, Opportunity, OpportunityLineItem
from rowhouse.modules.crm.states import AmountSource, Recurrence, StageType

# What a column of minor units can hold.
_LARGEST = 2**63 - 1


class LineInput(Input):
    """A line given with its deal."""

    name: str = Field(min_length=1, max_length=200)
    product_code: str | None = Field(None, max_length=100)
    description: str | None = Field(None, max_length=2000)
    quantity: Decimal = Field(Decimal(1), gt=0, max_digits=12, decimal_places=3)
    unit_price_minor: int = Field(ge=0, le=_LARGEST)
    discount_percent: Decimal = Field(Decimal(0), ge=0, le=100, decimal_places=2)
    discount_minor: int = Field(0, ge=0, le=_LARGEST)
    tax_percent: Decimal = Field(Decimal(0), ge=0, le=100, decimal_places=2)
    recurrence: Recurrence = Recurrence.ONE_TIME
    term_months: int | None = Field(None, ge=1, le=1200)


class Revalued(BaseModel):
    """How many deals have another value now."""

    changed: int


async def settle(call: Call, deal: Opportunity) -> None:
    """Recompute a deal's value in the tenant's currency and its weighted value.

    Open deals use today's rate, closed ones that of the day they were closed.  Raises Invalid (no_exchange_rate).
    """
    base = await _base_minor(call, deal)
    assign(deal, {"amount_base_minor": base, "weighted_minor": rules.weighted_minor(base, deal.probability)})


async def _base_minor(call: Call, deal: Opportunity) -> int | None:
    if deal.amount_minor is None or deal.currency == call.tenant.currency:
        return deal.amount_minor
    day = deal.closed_at.astimezone(ZoneInfo(call.tenant.timezone)).date() if deal.closed_at else call.today
    rate = await rate_on(call, deal.currency, day)
    if rate is None:
        raise Invalid(
            f"No exchange rate from {deal.currency} to {call.tenant.currency} is known for {day}; "
            "add one under exchange-rates, valid from that day or earlier.",
            code="no_exchange_rate",
            field="currency",
        )
    return rules.convert_minor(deal.amount_minor, rate, currency=deal.currency, into=call.tenant.currency)


@action(input=NoInput, output=Revalued, on="collection", role=Role.ADMIN)
async def revalue(call: Call, data: NoInput) -> Revalued:
    """Bring the open deals in foreign currencies to today's exchange rates."""
    statement = select(Opportunity).where(Opportunity.status == StageType.OPEN, Opportunity.currency != call.tenant.currency)
    deals = (await call.session.scalars(statement)).all()
    before = {deal.id: deal.amount_base_minor for deal in deals}
    for deal in deals:
        await settle(call, deal)
    return Revalued(changed=sum(before[deal.id] != deal.amount_base_minor for deal in deals))


async def write_lines(call: Call, deal: Opportunity, inputs: list[LineInput]) -> None:
    """Make a deal's lines those given, compared by their order; an unchanged line stays untouched.

    Raises Conflict (deal_closed) when a closed deal's lines would change.
    """
    lines = await lines_of(call, deal)
    given = [_line_values(line) for line in inputs]
    same = [_differs(line, values) is False for line, values in zip(lines, given, strict=False)]
    if len(lines) == len(given) and all(same):
        return
    _must_be_open(deal)
    for line, values in zip(lines, given, strict=False):
        assign(line, values)
        price(line)
    for line in lines[len(given) :]:
        await call.session.delete(line)
    last = lines[-1].position if lines else 0
    del lines[len(given) :]
    for offset, values in enumerate(given[len(lines) :], start=1):
        line = OpportunityLineItem(opportunity_id=deal.id, position=last + offset, **values)
        price(line)
        call.session.add(line)
        lines.append(line)
    sum_lines(deal, lines)


def sum_lines(deal: Opportunity, lines: list[OpportunityLineItem]) -> None:
    """Set a deal's amount from its lines; without lines the amount stays and is a person's again."""
    if lines:
        total = sum(line.total_minor for line in lines)
        assign(deal, {"amount_source": AmountSource.LINE_ITEMS, "amount_minor": total})
    else:
        assign(deal, {"amount_source": AmountSource.MANUAL})


def price(line: OpportunityLineItem) -> None:
    """Compute a line's net and total.  Raises Invalid for a discount above the price or a missing term."""
    # The database's defaults come with the flush; the price is wanted before it.
    for name, value in (("quantity", Decimal(1)), ("discount_percent", Decimal(0)), ("discount_minor", 0)):
        if getattr(line, name) is None:
            setattr(line, name, value)
    line.recurrence = line.recurrence or Recurrence.ONE_TIME
    try:
        net = rules.net_minor(
            line.quantity, line.unit_price_minor, discount_percent=line.discount_percent, discount_minor=line.discount_minor
        )
    except ValueError as error:
        raise Invalid("The discount is more than the price.", code="discount_too_large", field="discount_minor") from error
    try:
        total = rules.term_total_minor(net, line.recurrence, line.term_months)
    except ValueError as error:
        raise Invalid("A recurring line needs its term in months.", code="term_required", field="term_months") from error
    assign(line, {"net_minor": net, "total_minor": total})


async def check_line(call: Call, change: Change) -> None:
    """Price a line and carry the new total to its deal.  Raises Conflict (deal_closed)."""
    line: OpportunityLineItem = change.row
    if change.verb != "delete":
        price(line)
    deal = await call.load(Opportunity, line.opportunity_id, lock=True)
    _must_be_open(deal)
    lines = await lines_of(call, deal)
    if change.verb == "delete":
        lines[:] = [other for other in lines if other is not line]
    elif line not in lines:
        line.position = line.position or (max((other.position for other in lines), default=0) + 1)
        lines.append(line)
    sum_lines(deal, lines)
    await settle(call, deal)


async def check_rate(call: Call, change: Change) -> None:
    """Refuse a rate of the tenant's own currency, which is always one."""
    rate: ExchangeRate = change.row
    known(call).rates.pop(rate.currency, None)
    if change.verb in {"create", "update"} and rate.currency == call.tenant.currency:
        raise Invalid(
            f"{rate.currency} is this workspace's own currency; its rate is always 1.", code="own_currency", field="currency"
        )


def _must_be_open(deal: Opportunity) -> None:
    if deal.status != StageType.OPEN:
        raise Conflict(f"The deal is {deal.status}; reopen it before changing its lines.", code="deal_closed")


def _line_values(line: LineInput | dict[str, Any]) -> dict[str, Any]:
    return LineInput.model_validate(line).model_dump()


def _differs(line: OpportunityLineItem, values: dict[str, Any]) -> bool:
    return any(getattr(line, name) != value for name, value in values.items())

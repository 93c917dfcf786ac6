"""The deals of the demo: when they begin, how they go from stage to stage, and what they are worth.

The number of new deals grows over the two years and follows the seasons. Time in a stage is log-normal, the chance to
win is the seller's; what has not happened by the end of the calendar is still open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from rowhouse.commands.demo_companies import closeness, minor
from rowhouse.commands.demo_names import LOCALES, PRODUCTS, Product
from rowhouse.commands.demo_plans import (
    HISTORY_DAYS,
    AccountPlan,
    Calendar,
    ContactPlan,
    DealPlan,
    MemberPlan,
    MovePlan,
    RevisionPlan,
)

STAGES = ("Lead", "Qualified", "Proposal", "Negotiation")
_MEDIAN_DAYS = (9.0, 17.0, 21.0, 16.0)
_SPREAD = 0.65
_LOST_IN = (28, 30, 26, 16)
_SEASON = (0.95, 0.95, 1.15, 0.95, 1.0, 1.15, 0.8, 0.65, 1.2, 1.05, 1.1, 0.75)
_LOST_REASONS = (
    ("Price", "Their budget ends well below our offer; a smaller scope was no option.", 26),
    ("Competitor", "They chose the other supplier, mostly for the shorter delivery time.", 22),
    ("No decision", "The project was put on hold; nobody answers for it at present.", 20),
    ("No budget", "The investment was moved to the next financial year.", 14),
    ("Missing function", "They need certified readings at sea, which we do not offer.", 10),
    ("Built in-house", "Their own engineers will build a simple version themselves.", 8),
)
_NEXT_STEPS = {
    "Lead": ("Find out who decides", "Arrange a first call", "Send the short overview"),
    "Qualified": ("Walk through the site together", "Agree the scope of a pilot", "Get the number of measuring points"),
    "Proposal": ("Ask for comments on the proposal", "Present the proposal to the board", "Compare both variants with the buyer"),
    "Negotiation": ("Answer the legal department", "Agree the payment plan", "Get the order signed"),
}
_ROLES = ("DECISION_MAKER", "CHAMPION", "INFLUENCER", "ECONOMIC_BUYER", "EVALUATOR", "USER", "BLOCKER")
_OCCASIONS = ("pilot", "roll-out", "renewal", "extension", "replacement", "second site", "audit preparation", "winter season")


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What deals are made of: who sells, to whom, in which money, when."""

    slug: str
    currency: str
    calendar: Calendar
    members: Sequence[MemberPlan]
    accounts: Sequence[AccountPlan]
    people: dict[str, list[ContactPlan]]
    competitors: Sequence[str]

    @property
    def sellers(self) -> list[int]:
        """Return the indexes of the members who sell."""
        return [index for index, member in enumerate(self.members) if member.sells]


@dataclass(frozen=True, slots=True)
class _Life:
    """What is settled about a deal before it begins. stuck_in: the stage it is forgotten in, -1 for none."""

    wins: bool
    lost_in: int
    pace: float
    stuck_in: int = -1


def deals(rng: Random, market: Market, count: int) -> list[DealPlan]:
    """Return deals in the order they begin."""
    days = [market.calendar.first + timedelta(days=offset) for offset in range(1, HISTORY_DAYS)]
    weights = [_new_deals(market.calendar, day) for day in days]
    nearness = [closeness(market.slug, account) for account in market.accounts]
    found: list[DealPlan] = []
    for number, day in enumerate(sorted(rng.choices(days, weights, k=count)), start=1):
        account = rng.choices(market.accounts, nearness)[0]
        found.append(_deal(rng, market, account, number=number, opened_at=market.calendar.office_hour(rng, day)))
    return found


def _new_deals(calendar: Calendar, day: date) -> float:
    growth = 0.55 + 0.9 * (day - calendar.first).days / HISTORY_DAYS
    # A weekend's or today's deals would be moved to a day beyond the end.
    is_late = day + timedelta(days=3) > calendar.today
    return 0.0 if day.weekday() > 4 or is_late else growth * _SEASON[day.month - 1]


def _deal(rng: Random, market: Market, account: AccountPlan, *, number: int, opened_at: datetime) -> DealPlan:
    calendar = market.calendar
    owner = account.owner if rng.random() < 0.7 else rng.choice(market.sellers)
    seller = market.members[owner]
    life = _Life(rng.random() < seller.win_rate, rng.choices(range(4), _LOST_IN)[0], seller.pace * rng.uniform(0.7, 1.4))
    is_recent = opened_at > calendar.end - timedelta(days=400)
    if is_recent and rng.random() < 0.06:
        life = _Life(False, 4, life.pace, stuck_in=rng.randrange(4))
    moves = tuple(_walk(rng, calendar, life, opened_at, competitors=market.competitors))
    known = market.people.get(account.external_id, [])
    people = rng.sample(known, k=min(len(known), rng.choices((1, 2, 3), weights=(55, 30, 15))[0]))
    values, lines = _content(rng, market, account)
    expected = _expected(rng, life, opened_at, 0)
    # A lead may come in before anybody knows the company's entry.
    is_nameless = not moves and life.stuck_in < 0 and rng.random() < 0.25
    deal = DealPlan(
        external_id=f"demo-deal-{number}",
        opened_at=opened_at,
        owner=owner,
        account=None if is_nameless else account.external_id,
        values={**values, "expected_close_date": expected},
        lines=lines,
        contacts=()
        if is_nameless
        else tuple(zip((person.external_id for person in people), rng.sample(_ROLES, k=3), strict=False)),
        moves=moves,
    )
    return _revised(rng, deal, calendar, life, expected)


def _walk(
    rng: Random, calendar: Calendar, life: _Life, at: datetime, *, competitors: Sequence[str], stage: int = 0
) -> Iterator[MovePlan]:
    went_back = False
    while stage != life.stuck_in:
        at = calendar.later(rng, at, rng.lognormvariate(math.log(_MEDIAN_DAYS[stage] * life.pace), _SPREAD))
        if at >= calendar.end:
            return
        if not life.wins and stage >= life.lost_in:
            yield _loss(rng, at, competitors)
            yield from _second_try(rng, calendar, life, at, competitors)
            return
        if stage == 3 and not went_back and rng.random() < 0.06:
            stage, went_back = 2, True
        elif stage == 3:
            yield MovePlan(at=at, verb="win", stage="Closed Won")
            return
        else:
            stage += 2 if stage < 2 and rng.random() < 0.08 else 1
        yield MovePlan(at=at, verb="move", stage=STAGES[stage])


def _loss(rng: Random, at: datetime, competitors: Sequence[str]) -> MovePlan:
    reason, detail, _ = rng.choices(_LOST_REASONS, [weight for *_, weight in _LOST_REASONS])[0]
    rival = rng.choice(competitors) if reason == "Competitor" and competitors else None
    return MovePlan(at=at, verb="lose", stage="Closed Lost", reason=reason, detail=detail, competitor=rival)


def _second_try(
    rng: Random, calendar: Calendar, life: _Life, lost_at: datetime, competitors: Sequence[str]
) -> Iterator[MovePlan]:
    at = calendar.later(rng, lost_at, rng.uniform(25, 150))
    if rng.random() > 0.05 or at >= calendar.end:
        return
    stage = rng.choice((1, 2))
    yield MovePlan(at=at, verb="reopen", stage=STAGES[stage])
    again = _Life(rng.random() < 0.5, 3, life.pace)
    yield from _walk(rng, calendar, again, at, competitors=competitors, stage=stage)


def _expected(rng: Random, life: _Life, at: datetime, stage: int) -> date:
    days = sum(_MEDIAN_DAYS[stage:]) * life.pace * rng.uniform(0.75, 1.9)
    return (at + timedelta(days=days + 4)).date()


def _revised(rng: Random, deal: DealPlan, calendar: Calendar, life: _Life, expected: date) -> DealPlan:
    """Return the deal with the changes its owner made to its dates and its next step."""
    revisions: list[RevisionPlan] = []
    for move in deal.moves:
        if move.stage in STAGES and (expected < move.at.date() + timedelta(days=7) or rng.random() < 0.15):
            expected = _expected(rng, life, move.at, STAGES.index(move.stage))
            revisions.append(RevisionPlan(move.at + timedelta(minutes=2), {"expected_close_date": expected}))
    last = deal.moves[-1].at if deal.moves else deal.opened_at
    if deal.status == "OPEN":
        values: dict[str, Any] = {}
        at = min(calendar.later(rng, last, rng.uniform(0, 6)), calendar.end - timedelta(minutes=1))
        if life.stuck_in < 0:
            values["next_step"] = rng.choice(_NEXT_STEPS[deal.stage])
            values["next_step_due_on"] = calendar.today + timedelta(days=rng.randint(-4, 20))
        if life.stuck_in < 0 and expected < calendar.today and rng.random() < 0.75:
            values["expected_close_date"] = _expected(rng, life, calendar.end, STAGES.index(deal.stage))
        if values:
            revisions.append(RevisionPlan(max(at, last + timedelta(minutes=3)), values))
    return DealPlan(
        external_id=deal.external_id,
        opened_at=deal.opened_at,
        owner=deal.owner,
        account=deal.account,
        values=deal.values,
        lines=deal.lines,
        contacts=deal.contacts,
        moves=deal.moves,
        revisions=tuple(revision for revision in revisions if revision.at < calendar.end),
    )


def _content(rng: Random, market: Market, account: AccountPlan) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    local = LOCALES[account.locale].currency
    currency = local if rng.random() < 0.6 else market.currency
    size = min(4.0, max(0.4, (float(account.values["employee_count"]) / 250) ** 0.5))
    products = rng.sample(PRODUCTS, k=rng.choices((1, 2, 3, 4), weights=(25, 35, 28, 12))[0])
    values: dict[str, Any] = {
        "name": f"{account.name}: {products[0].name}, {rng.choice(_OCCASIONS)}",
        "currency": currency,
        "lead_source": rng.choice(("WEBSITE", "REFERRAL", "LINKEDIN", "COLD_CALL", "EVENT", "PARTNER", "INBOUND", "OUTBOUND")),
        "tags": rng.sample(("expansion", "new business", "tender", "framework agreement"), k=rng.randint(0, 1)),
    }
    if rng.random() < 0.68:
        return values, tuple(_line(rng, product, currency, size) for product in products)
    values["amount_minor"] = minor(rng.lognormvariate(math.log(14_000), 0.9) * size, currency)
    return values, ()


def _line(rng: Random, product: Product, currency: str, size: float) -> dict[str, Any]:
    quantity = max(1, round(product.typical_quantity * size * rng.lognormvariate(0, 0.6)))
    recurring = product.recurrence != "ONE_TIME"
    return {
        "name": product.name,
        "product_code": product.code,
        "quantity": Decimal(1 if recurring else quantity),
        "unit_price_minor": minor(product.price_usd, currency),
        "discount_percent": Decimal(rng.choice((5, 10, 15)) if rng.random() < 0.25 else 0),
        "recurrence": product.recurrence,
        "term_months": rng.choice((12, 24, 36)) if recurring else None,
    }

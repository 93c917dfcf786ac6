"""The demo workspaces, put together: pure and seeded, the same for the same seed and date, whatever the machine.

All dates are relative to the day the demo is made: two years of history that end as that day begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from random import Random

from rowhouse.commands import demo_companies, demo_deals, demo_story
from rowhouse.commands.demo_plans import AccountPlan, Calendar, ContactPlan, DealPlan, MemberPlan, WorkspacePlan

SEED = 2718


@dataclass(frozen=True, slots=True)
class Workspace:
    """How large a demo workspace is, and where."""

    slug: str
    name: str
    currency: str
    zone: str
    members: int
    deals: int


WORKSPACES = (
    Workspace("central", "Meridian Central", "USD", "America/Chicago", 10, 1_060),
    Workspace("east", "Meridian East", "EUR", "Europe/Berlin", 12, 990),
    Workspace("west", "Meridian West", "GBP", "Europe/London", 9, 1_010),
)


def workspace(slug: str) -> Workspace:
    """Return a demo workspace by its slug.  Raises KeyError for any other."""
    return {known.slug: known for known in WORKSPACES}[slug]


def plan_owner(slug: str, *, seed: int = SEED) -> MemberPlan:
    """Return the owner of a demo workspace, who is needed before the rest."""
    return demo_companies.members(_random(seed, slug, "members"), slug, workspace(slug).members)[0]


def plan_workspace(slug: str, today: date, *, seed: int = SEED, most_deals: int | None = None) -> WorkspacePlan:
    """Return the whole plan of a demo workspace.

    today: the day its history ends.  most_deals: fewer deals than usual, for tests.
    """
    size = workspace(slug)
    calendar = Calendar(today, size.zone)
    known = demo_companies.companies(_random(seed, "companies"))
    members = demo_companies.members(_random(seed, slug, "members"), slug, size.members)
    sellers = [index for index, member in enumerate(members) if member.sells]
    accounts = demo_companies.accounts(_random(seed, slug, "accounts"), slug, known, calendar=calendar, sellers=sellers)
    contacts = demo_companies.contacts(_random(seed, slug, "contacts"), accounts, calendar=calendar, most=480)
    market = demo_deals.Market(
        slug=slug,
        currency=size.currency,
        calendar=calendar,
        members=members,
        accounts=accounts,
        people=_by_account(contacts),
        competitors=[account.external_id for account in accounts if account.values["type"] == "COMPETITOR"],
    )
    deals = demo_deals.deals(_random(seed, slug, "deals"), market, most_deals or size.deals)
    accounts, contacts = _known_in_time(accounts, contacts, deals)
    cast = demo_story.Cast({row.external_id: row for row in accounts}, {row.external_id: row for row in contacts})
    return WorkspacePlan(
        slug=slug,
        name=size.name,
        currency=size.currency,
        calendar=calendar,
        members=members,
        rates=demo_companies.rates(_random(seed, "rates"), size.currency, calendar),
        accounts=tuple(accounts),
        contacts=tuple(contacts),
        deals=tuple(deals),
        activities=tuple(demo_story.activities(_random(seed, slug, "story"), calendar, deals, cast)),
    )


def _random(*names: object) -> Random:
    # A part of its own for each kind of thing, so that a change to one leaves the others as they were.
    return Random(":".join(map(str, names)))  # noqa: S311  # invented data, no secret


def _by_account(contacts: Iterable[ContactPlan]) -> dict[str, list[ContactPlan]]:
    found: dict[str, list[ContactPlan]] = {}
    for contact in contacts:
        found.setdefault(contact.account, []).append(contact)
    return found


def _known_in_time(
    accounts: list[AccountPlan], contacts: list[ContactPlan], deals: list[DealPlan]
) -> tuple[list[AccountPlan], list[ContactPlan]]:
    """Return the accounts and people, entered before the first deal, person or subsidiary that needs them."""
    needed: dict[str, datetime] = {}

    def need(external_id: str | None, moment: datetime) -> None:
        if external_id is not None:
            needed[external_id] = min(needed.get(external_id, moment), moment)

    for deal in deals:
        need(deal.account, deal.opened_at - timedelta(hours=3))
        for contact_id, _ in deal.contacts:
            need(contact_id, deal.opened_at - timedelta(hours=2))
        for move in deal.moves:
            need(move.competitor, move.at - timedelta(hours=3))
    people = [replace(row, created_at=min(row.created_at, needed.get(row.external_id, row.created_at))) for row in contacts]
    for person in people:
        need(person.account, person.created_at - timedelta(hours=1))
    found: list[AccountPlan] = []
    for account in reversed(accounts):
        created = min(account.created_at, needed.get(account.external_id, account.created_at))
        need(account.parent, created - timedelta(minutes=5))
        found.append(replace(account, created_at=created))
    return found[::-1], people

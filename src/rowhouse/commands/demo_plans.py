"""What the demo's generator makes: plain values, each dated, that say nothing of the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

HISTORY_DAYS = 730


@dataclass(frozen=True, slots=True)
class Calendar:
    """The two years the demo tells of, in the workspace's own time; they end as `today` begins."""

    today: date
    zone: str

    @property
    def first(self) -> date:
        """Return the first day."""
        return self.today - timedelta(days=HISTORY_DAYS)

    @property
    def end(self) -> datetime:
        """Return the moment, in UTC, before which everything done was done."""
        return datetime.combine(self.today, time(), ZoneInfo(self.zone)).astimezone(UTC)

    @property
    def start(self) -> datetime:
        """Return the moment, in UTC, at which the first day begins."""
        return datetime.combine(self.first, time(), ZoneInfo(self.zone)).astimezone(UTC)

    def office_hour(self, rng: Random, day: date) -> datetime:
        """Return a moment in UTC in office hours of a day, of the next Monday for a weekend."""
        workday = day + timedelta(days=max(0, 7 - day.weekday()) if day.weekday() > 4 else 0)
        moment = time(rng.randint(8, 17), rng.randrange(0, 60), rng.randrange(0, 60))
        return datetime.combine(workday, moment, ZoneInfo(self.zone)).astimezone(UTC)

    def later(self, rng: Random, moment: datetime, days: float) -> datetime:
        """Return an office hour some days after a moment, never before it."""
        found = self.office_hour(rng, (moment + timedelta(days=days)).astimezone(ZoneInfo(self.zone)).date())
        return found if found > moment else moment + timedelta(minutes=rng.randint(20, 200))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPlan:
    """A person of the workspace. win_rate, pace: how a seller's deals go; pace 1.0 is the usual speed."""

    name: str
    email: str
    role: str
    title: str
    sells: bool
    win_rate: float = 0.3
    pace: float = 1.0


@dataclass(frozen=True, slots=True)
class RatePlan:
    """What one unit of a currency is worth in the workspace's own from a day on."""

    currency: str
    as_of: date
    rate: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPlan:
    """A company. parent: its group's external id; owner: index of a member."""

    external_id: str
    created_at: datetime
    owner: int
    parent: str | None
    level: int
    locale: int
    domain: str
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the company's name."""
        return str(self.values["name"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactPlan:
    """A person of a company."""

    external_id: str
    created_at: datetime
    owner: int
    account: str
    values: Mapping[str, Any]

    @property
    def first_name(self) -> str:
        """Return the name a colleague would use."""
        return str(self.values["first_name"])


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePlan:
    """One step of a deal. verb: "move", "win", "lose" or "reopen".  stage: the name of the stage it is then in."""

    at: datetime
    verb: str
    stage: str
    reason: str | None = None
    detail: str | None = None
    competitor: str | None = None


@dataclass(frozen=True, slots=True)
class RevisionPlan:
    """Fields of a deal that are changed at a moment."""

    at: datetime
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DealPlan:
    """A deal with everything that happens to it, in order. lines, contacts: as the create operation takes them."""

    external_id: str
    opened_at: datetime
    owner: int
    account: str | None
    values: Mapping[str, Any]
    lines: tuple[Mapping[str, Any], ...]
    contacts: tuple[tuple[str, str], ...]
    moves: tuple[MovePlan, ...] = ()
    revisions: tuple[RevisionPlan, ...] = ()

    @property
    def stage(self) -> str:
        """Return the name of the stage it is in at the end."""
        return self.moves[-1].stage if self.moves else "Lead"

    @property
    def status(self) -> str:
        """Return OPEN, WON or LOST, as at the end."""
        return {"Closed Won": "WON", "Closed Lost": "LOST"}.get(self.stage, "OPEN")

    def stage_at(self, moment: datetime) -> str:
        """Return the name of the stage it was in at a moment."""
        return next((move.stage for move in reversed(self.moves) if move.at <= moment), "Lead")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityPlan:
    """Something done, or planned. ending: what became of a planned one: "complete", "cancel", "no-show", or "" while it waits."""

    external_id: str
    at: datetime
    owner: int
    verb: str
    deal: str | None = None
    account: str | None = None
    contact: str | None = None
    values: Mapping[str, Any]
    ending: str = ""
    ended_at: datetime | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspacePlan:
    """One workspace of the demo, complete. members[0] is its owner; accounts stand after their parents."""

    slug: str
    name: str
    currency: str
    calendar: Calendar
    members: tuple[MemberPlan, ...]
    rates: tuple[RatePlan, ...] = ()
    accounts: tuple[AccountPlan, ...] = ()
    contacts: tuple[ContactPlan, ...] = ()
    deals: tuple[DealPlan, ...] = ()
    activities: tuple[ActivityPlan, ...] = field(default=())

"""What the people of the demo did: calls, mails, meetings, tasks and notes, each with a text one can read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from rowhouse.commands.demo_plans import AccountPlan, ActivityPlan, Calendar, ContactPlan, DealPlan


@dataclass(frozen=True, slots=True)
class Text:
    """A template. {first} is the person, {account} the company, {topic} what the deal is about."""

    type: str
    subject: str
    description: str
    outcome: str = ""


_EARLY = (
    Text(
        "CALL",
        "First call with {first}",
        "How many sites they have, who looks after them, what went wrong last year.",
        "{first} sees the need; wants figures from a company of the same size.",
    ),
    Text(
        "EMAIL",
        "Overview and two references",
        "Dear {first}, as promised: the overview on two pages and two references from your industry.",
    ),
    Text("CALL", "Tried to reach {first}", "Rang twice, left a message with the reception.", "Will call back."),
    Text("LINKEDIN_MESSAGE", "Note after the trade fair", "Thanked {first} for the talk at our stand and offered a short call."),
    Text(
        "NOTE",
        "How they found us",
        "{first} read about the cold-chain project and asked whether {topic} would work without new cabling. "
        "They keep temperature lists on paper today and had one failed audit.",
    ),
)
_MIDDLE = (
    Text(
        "MEETING",
        "Walk through the site",
        "Together with {first} through both halls: measuring points, radio shadow, power.",
        "Forty points instead of thirty; the cold store needs the rugged gateway.",
    ),
    Text(
        "DEMO",
        "Demonstration for the operations team",
        "Live readings of our own warehouse, alarms on the telephone, the monthly report.",
        "Questions about night-time alarms; {first} wants to try it for four weeks.",
    ),
    Text(
        "EMAIL",
        "Answers to the questions about data",
        "Dear {first}, where readings are kept, for how long, and who can see them: the page is attached.",
    ),
    Text(
        "NOTE",
        "Who decides at {account}",
        "{first} prepares the decision, the managing director signs. Above a certain sum the group has to agree, "
        "which takes about three weeks.",
    ),
    Text(
        "CALL",
        "Scope of the pilot",
        "Went through the list of sites with {first}.",
        "Start with one site, decide on the others afterwards.",
    ),
    Text(
        "TASK",
        "Prepare the calculation",
        "Two variants, with and without installation; ask purchasing about delivery times.",
        "Sent for review.",
    ),
)
_LATE = (
    Text(
        "PROPOSAL",
        "Proposal sent",
        "Proposal for {topic} with two variants, valid for thirty days.",
        "{first} confirmed the receipt.",
    ),
    Text(
        "CALL",
        "Comments on the proposal",
        "{first} likes the second variant; payment in three parts would help.",
        "New version by Thursday.",
    ),
    Text(
        "MEETING",
        "Terms with purchasing",
        "Delivery dates, penalty clause, price for the second year.",
        "Agreed but for the penalty clause.",
    ),
    Text("EMAIL", "Revised contract", "Dear {first}, the revised contract with the changed clause 7 is attached."),
    Text(
        "CONTRACT", "Contract with the legal department", "Their lawyers ask for the liability cap in writing.", "Cap accepted."
    ),
    Text(
        "NOTE",
        "Mood before the decision",
        "{first} is on our side. The finance department compares with leasing; they want an answer before the end "
        "of the quarter.",
    ),
)
_WON = (
    Text(
        "MEETING",
        "Hand-over to the project team",
        "Introduced {first} to the installers; dates for all sites.",
        "First site in two weeks.",
    ),
    Text(
        "CALL",
        "How the first weeks went",
        "{first} is content; one sensor was mounted too close to the fan.",
        "Moved the sensor.",
    ),
)
_LOST = (
    Text(
        "NOTE", "What we learn from it", "{first} said openly that we were late with the second version. Ask again next spring."
    ),
)
_CARE = (
    Text(
        "CALL",
        "Yearly talk with {first}",
        "What changes next year: a new hall, fewer night shifts.",
        "Interested in a quotation after the summer.",
    ),
    Text("EMAIL", "Invitation to the user day", "Dear {first}, this year's user day shows alarms, reports and the new gateway."),
    Text("NOTE", "News about {account}", "They open a further site next year and look for somebody to run its maintenance."),
    Text("MEETING", "Visit on the way", "Short visit at {account}; met {first} and the shift leader.", "No open questions."),
)
_PLANNED = (
    Text("CALL", "Call {first} about {topic}", "Ask where the decision stands."),
    Text("MEETING", "Meeting with {first}", "Open points of {topic}."),
    Text("TASK", "Send the updated figures", "The two variants side by side, on one page."),
    Text("DEMO", "Demonstration for the second team", "The same as last time, with their own readings."),
    Text("TASK", "Ask purchasing for delivery times", "Gateways were short last month."),
)
_BY_STAGE = {
    "Lead": _EARLY,
    "Qualified": _MIDDLE,
    "Proposal": _LATE,
    "Negotiation": _LATE,
    "Closed Won": _WON,
    "Closed Lost": _LOST,
}
_MINUTES = {"CALL": (5, 45), "MEETING": (30, 120), "DEMO": (40, 90)}


@dataclass(frozen=True, slots=True)
class Cast:
    """The accounts and people by their external ids."""

    accounts: dict[str, AccountPlan]
    people: dict[str, ContactPlan]


def activities(rng: Random, calendar: Calendar, deals: Sequence[DealPlan], cast: Cast) -> list[ActivityPlan]:
    """Return what was done and is planned about deals and accounts, numbered."""
    made = [plan for deal in deals for plan in (*_done(rng, calendar, deal, cast), *_waiting(rng, calendar, deal, cast))]
    made += [plan for account in cast.accounts.values() for plan in _care(rng, calendar, account, cast)]
    return [_numbered(plan, number) for number, plan in enumerate(made, start=1)]


def _done(rng: Random, calendar: Calendar, deal: DealPlan, cast: Cast) -> Iterator[ActivityPlan]:
    last = deal.moves[-1].at if deal.moves else min(calendar.end, deal.opened_at + timedelta(days=21))
    # Somebody who wins a deal has work with it, and a lost one is looked back on.
    last = min(calendar.end, last + timedelta(days={"WON": 30, "LOST": 3}.get(deal.status, 0)))
    count = rng.choices((0, 1, 2, 3, 4, 5, 7), weights=(8, 18, 24, 22, 15, 9, 4))[0]
    for _ in range(count if last > deal.opened_at + timedelta(hours=4) else 0):
        moment = deal.opened_at + (last - deal.opened_at) * rng.random()
        at = calendar.later(rng, moment, 0)
        if at >= calendar.end:
            continue
        text = rng.choice(_BY_STAGE[deal.stage_at(at)])
        yield _plan(
            rng, calendar, text, deal, cast, at=at, planned=text.type in {"MEETING", "DEMO", "TASK"} and rng.random() < 0.7
        )


def _plan(
    rng: Random, calendar: Calendar, text: Text, deal: DealPlan, cast: Cast, *, at: datetime, planned: bool
) -> ActivityPlan:
    person = cast.people[rng.choice(deal.contacts)[0]] if deal.contacts else None
    account = cast.accounts.get(deal.account or "")
    values = _values(rng, text, deal.values["name"].rpartition(": ")[2].lower(), person, account)
    outcome = values.pop("outcome", None)
    ended_at = calendar.later(rng, at, rng.uniform(1, 9)) if planned else None
    if ended_at is None or ended_at >= calendar.end:
        values.update({"outcome": outcome} if outcome else {})
        return _activity(deal, person, values, at=at, verb="log")
    values["due_at" if text.type == "TASK" else "scheduled_at"] = ended_at
    ending = rng.choices(("complete", "cancel", "no-show" if text.type != "TASK" else "complete"), weights=(88, 6, 6))[0]
    shown = outcome if ending == "complete" else None
    return _activity(deal, person, values, at=at, verb="schedule", ending=ending, ended_at=ended_at, outcome=shown)


def _waiting(rng: Random, calendar: Calendar, deal: DealPlan, cast: Cast) -> Iterator[ActivityPlan]:
    """Yield what is still to be done about an open deal; some of it is overdue."""
    if deal.status != "OPEN" or not deal.contacts or rng.random() > 0.7:
        return
    last = deal.moves[-1].at if deal.moves else deal.opened_at
    at = calendar.later(rng, max(last, calendar.end - timedelta(days=rng.uniform(6, 20))), 0)
    if at >= calendar.end:
        return
    text = rng.choice(_PLANNED)
    person = cast.people[deal.contacts[0][0]]
    values = _values(rng, text, deal.values["name"].rpartition(": ")[2].lower(), person, cast.accounts.get(deal.account or ""))
    is_overdue = rng.random() < 0.16
    day = calendar.today + timedelta(days=-rng.randint(1, 9) if is_overdue else rng.randint(0, 24))
    values["due_at" if text.type == "TASK" else "scheduled_at"] = max(at, calendar.office_hour(rng, day))
    values["priority"] = rng.choices(("LOW", "NORMAL", "HIGH", "URGENT"), weights=(10, 60, 24, 6))[0]
    yield _activity(deal, person, values, at=at, verb="schedule")


def _care(rng: Random, calendar: Calendar, account: AccountPlan, cast: Cast) -> Iterator[ActivityPlan]:
    people = [person for person in cast.people.values() if person.account == account.external_id]
    for _ in range(rng.choice((1, 2, 3, 4)) if people else 0):
        person = rng.choice(people)
        begin = max(account.created_at, person.created_at)
        at = calendar.later(rng, begin + (calendar.end - begin) * rng.random(), 0)
        if at < calendar.end:
            values = _values(rng, rng.choice(_CARE), "", person, account)
            yield ActivityPlan(
                external_id="",
                at=at,
                owner=account.owner,
                verb="log",
                account=account.external_id,
                contact=person.external_id,
                values=values,
            )


def _values(rng: Random, text: Text, topic: str, person: ContactPlan | None, account: AccountPlan | None) -> dict[str, Any]:
    words = {
        "first": person.first_name if person else "the caller",
        "account": account.name if account else "the company",
        "topic": topic,
    }
    values: dict[str, Any] = {
        "type": text.type,
        "subject": text.subject.format(**words)[:200],
        "description": text.description.format(**words),
    }
    if text.outcome:
        values["outcome"] = text.outcome.format(**words)
    if text.type in {"CALL", "EMAIL"}:
        values["direction"] = "INBOUND" if rng.random() < 0.3 else "OUTBOUND"
    if text.type in _MINUTES:
        values["duration_minutes"] = 5 * round(rng.randint(*_MINUTES[text.type]) / 5)
    return values


def _activity(
    deal: DealPlan, person: ContactPlan | None, values: dict[str, Any], *, at: datetime, verb: str, **ending: Any
) -> ActivityPlan:
    return ActivityPlan(
        external_id="",
        at=at,
        owner=deal.owner,
        verb=verb,
        deal=deal.external_id,
        account=deal.account,
        contact=person.external_id if person else None,
        values=values,
        **ending,
    )


def _numbered(plan: ActivityPlan, number: int) -> ActivityPlan:
    return ActivityPlan(
        external_id=f"demo-activity-{number}",
        at=plan.at,
        owner=plan.owner,
        verb=plan.verb,
        deal=plan.deal,
        account=plan.account,
        contact=plan.contact,
        values=plan.values,
        ending=plan.ending,
        ended_at=plan.ended_at,
        outcome=plan.outcome,
    )

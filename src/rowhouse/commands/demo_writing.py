"""Writes demo workspaces through the operations: `python -m rowhouse.commands.demo_writing central=2026-05-31 …`.

Each person of a workspace acts under their own name, at the time the story says. A chapter of the story is one
transaction, marked in the audit log by its batch id, so an interrupted writing goes on where it stopped. The workspaces
are written side by side, each by a process of its own; what is done is told on standard output: "central 120 8000".
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from itertools import groupby
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import event, select

from partywall import Tenant, system_scope
from rowhouse.commands.demo_data import plan_workspace
from rowhouse.commands.demo_plans import (
    AccountPlan,
    ActivityPlan,
    ContactPlan,
    DealPlan,
    MovePlan,
    RevisionPlan,
    WorkspacePlan,
)
from rowhouse.commands.searching import index_rows
from rowhouse.core import operations
from rowhouse.core.audit import AuditEntry
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database, open_database
from rowhouse.core.permissions import Principal, Role
from rowhouse.core.resource import Registry, Resource
from rowhouse.identity.members import NewMember, add_member, system_principal
from rowhouse.identity.models import Membership
from rowhouse.identity.provided import provide
from rowhouse.identity.resources import members
from rowhouse.identity.tenants import find_tenant
from rowhouse.migrate import find_addresses
from rowhouse.modules.crm.actions.known import default_pipeline, stages_of
from rowhouse.modules.crm.actions.pipelines import provision
from rowhouse.modules.crm.models import Account, CRMActivity, CRMContact, Opportunity
from rowhouse.modules.crm.resources import RESOURCES
from rowhouse.settings import Settings

# A chapter is one transaction. PostgreSQL cannot tidy up the old versions of rows one transaction has changed again and
# again, and has to pass over each of them, so two years in one would take twice as long.
CHAPTER_DAYS = 56
REASON = "demo workspace"

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation. phase: what depends on something else in the same chapter comes in a later one."""

    at: datetime
    owner: int
    phase: int
    verb: str
    plan: AccountPlan | ContactPlan | DealPlan | ActivityPlan
    part: MovePlan | RevisionPlan | None = None

    def names(self) -> Iterator[str]:
        """Yield the external ids of what the operation touches, its own included."""
        plan = self.plan
        yield plan.external_id
        for name in ("parent", "account", "deal", "contact"):
            if found := getattr(plan, name, None):
                yield found
        if isinstance(plan, DealPlan):
            yield from (contact_id for contact_id, _ in plan.contacts)
        if isinstance(self.part, MovePlan) and self.part.competitor:
            yield self.part.competitor


async def write_workspace(database: Database, registry: Registry, tenant: Tenant, plan: WorkspacePlan, *, report: Report) -> int:
    """Fill a workspace that has its owner and nothing else, and return how many operations that took; 0 if it is full.

    Repeated with the same plan after an interruption it writes what is missing.
    """
    found = chapters(steps_of(plan))
    total, done, written = sum(len(steps) for steps in found), 0, 0
    for number, steps in enumerate([[], *found]):
        async with open_call(database, registry, tenant, system_principal(), reason=REASON) as call:
            call.batch_id = uuid5(tenant.id, f"demo chapter {number}")
            known = select(AuditEntry.id).where(AuditEntry.batch_id == call.batch_id).limit(1)
            if await call.session.scalar(known) is None:
                await _Writer(call, plan, partial(_advance, report, done, total)).write(steps)
                written += len(steps)
        done += len(steps)
        report(done, total)
    return written


def _advance(report: Report, before: int, total: int, done: int) -> None:
    report(before + done, total)


@dataclass(slots=True)
class _Writer:
    """The writing of one chapter; rows are kept by external id, since the session holds them weakly."""

    call: Call
    plan: WorkspacePlan
    advance: Callable[[int], None]
    people: list[Principal] = field(default_factory=list)
    rows: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, UUID] = field(default_factory=dict)

    async def write(self, steps: Sequence[Step]) -> None:
        """Do the steps of a chapter; the first chapter, which has none, is what the others stand on."""
        with self.call.at(self.plan.calendar.start):
            await (self._recall(steps) if steps else self._prepare())
        done = 0
        for group in group_steps(steps):
            with self.call.at(group[-1].at):
                async with self.call.deferred():
                    for step in group:
                        with self.call.at(step.at), self._acting_as(step.owner):
                            await self._do(step)
            done += len(group)
            self.advance(done)

    async def _prepare(self) -> None:
        call = self.call
        for member in self.plan.members:
            await add_member(call, NewMember(email=member.email, name=member.name, role=Role(member.role), title=member.title))
        await provision(call)
        await index_rows(call, members)
        async with call.deferred():
            for rate in self.plan.rates:
                values = {"currency": rate.currency, "as_of": rate.as_of, "rate": rate.rate}
                await operations.create(call, call.registry["exchange-rates"], values)

    async def _recall(self, steps: Sequence[Step]) -> None:
        """Load what earlier chapters wrote and this one needs."""
        session = self.call.session
        members = {row.email: row for row in await session.scalars(select(Membership))}
        self.people = [
            Principal("session", members[plan.email].id, members[plan.email].id, Role(plan.role)) for plan in self.plan.members
        ]
        self.rows.update(members)
        pipeline = await default_pipeline(self.call)
        self.stages = {stage.name: stage.id for stage in await stages_of(self.call, pipeline.id)}
        names = {name for step in steps for name in step.names()}
        for model in (Account, CRMContact, Opportunity, CRMActivity):
            found: Any = model
            for row in await session.scalars(select(found).where(found.external_id.in_(names))):
                self.rows[row.external_id] = row

    @contextmanager
    def _acting_as(self, owner: int) -> Iterator[None]:
        before, self.call.principal = self.call.principal, self.people[owner]
        try:
            yield
        finally:
            self.call.principal = before

    async def _do(self, step: Step) -> None:
        plan = step.plan
        if isinstance(plan, AccountPlan):
            await self._create("accounts", plan.external_id, {**plan.values, "parent_account_id": self._id(plan.parent)})
        elif isinstance(plan, ContactPlan):
            await self._create("contacts", plan.external_id, {**plan.values, "account_id": self._id(plan.account)})
        elif isinstance(plan, DealPlan):
            await self._do_deal(plan, step)
        else:
            await self._do_activity(plan, step.verb)

    async def _do_deal(self, plan: DealPlan, step: Step) -> None:
        if isinstance(step.part, MovePlan):
            await self._act("opportunities", step.verb, self._move_input(step.part), plan.external_id)
        elif isinstance(step.part, RevisionPlan):
            resource = self.call.registry["opportunities"]
            await operations.update(self.call, resource, self._id(plan.external_id), step.part.values)
        else:
            people = [{"contact_id": self._id(person), "role": role} for person, role in plan.contacts]
            values = {**plan.values, "account_id": self._id(plan.account), "contacts": people, "opened_at": plan.opened_at}
            await self._create(
                "opportunities", plan.external_id, {**values, **({"lines": list(plan.lines)} if plan.lines else {})}
            )

    def _move_input(self, move: MovePlan) -> dict[str, Any]:
        if move.verb == "lose":
            return {"reason": move.reason, "detail": move.detail, "competitor_account_id": self._id(move.competitor)}
        stage = self.stages[move.stage]
        return {"to_stage_id": stage} if move.verb == "move" else {"stage_id": stage}

    async def _do_activity(self, plan: ActivityPlan, verb: str) -> None:
        if verb in ("cancel", "no-show"):
            await self._act("activities", verb, {}, plan.external_id)
        elif verb == "complete":
            await self._act("activities", verb, {"outcome": plan.outcome}, plan.external_id)
        else:
            about = {
                "opportunity_id": self._id(plan.deal),
                "account_id": self._id(plan.account),
                "contact_id": self._id(plan.contact),
            }
            values = {**plan.values, **about, "external_source": "demo", "external_id": plan.external_id}
            self.rows[plan.external_id] = await self._act("activities", verb, values)

    async def _create(self, name: str, external_id: str, values: dict[str, Any]) -> None:
        resource = self.call.registry[name]
        self.rows[external_id] = await operations.create(self.call, resource, {**values, "external_id": external_id})

    async def _act(self, name: str, verb: str, values: dict[str, Any], external_id: str | None = None) -> Any:
        resource = self.call.registry[name]
        return await operations.act(self.call, resource, _action(resource, verb), values, row_id=self._id(external_id))

    def _id(self, external_id: str | None) -> Any:
        return None if external_id is None else self.rows[external_id].id


def _action(resource: Resource, name: str) -> Any:
    return next(action for action in resource.actions if action.name == name)


def steps_of(plan: WorkspacePlan) -> Iterator[Step]:
    """Yield everything that happens in a workspace, in no order."""
    for account in plan.accounts:
        yield Step(account.created_at, account.owner, account.level, "create", account)
    for contact in plan.contacts:
        yield Step(contact.created_at, contact.owner, 4, "create", contact)
    for deal in plan.deals:
        yield Step(deal.opened_at, deal.owner, 5, "create", deal)
        yield from (Step(move.at, deal.owner, 6, move.verb, deal, move) for move in deal.moves)
        yield from (Step(revision.at, deal.owner, 6, "update", deal, revision) for revision in deal.revisions)
    for activity in plan.activities:
        yield Step(activity.at, activity.owner, 7, activity.verb, activity)
        if activity.ended_at is not None:
            yield Step(activity.ended_at, activity.owner, 7, activity.ending, activity)


def chapters(steps: Iterable[Step]) -> list[list[Step]]:
    """Return the steps in chapters, each with steps, earliest chapter first."""
    ordered = sorted(steps, key=lambda step: step.at)
    return [list(group) for _, group in groupby(ordered, key=lambda step: step.at.toordinal() // CHAPTER_DAYS)]


def group_steps(steps: Iterable[Step]) -> list[list[Step]]:
    """Return the steps of a chapter in the order they can be taken, in groups that are sent together.

    A group never touches the same record twice, since the audit log would then show the two changes as one.
    """
    turns: Counter[tuple[int, str]] = Counter()
    keyed: list[tuple[tuple[int, int], Step]] = []
    for step in sorted(steps, key=lambda step: step.at):
        subject = (step.phase, step.plan.external_id)
        keyed.append(((step.phase, turns[subject]), step))
        turns[subject] += 1
    keyed.sort(key=lambda pair: pair[0])
    return [[step for _, step in group] for _, group in groupby(keyed, key=lambda pair: pair[0])]


def main(named: Sequence[str]) -> int:
    """Write the workspaces named with their days and return the exit status: 0 when all are complete."""
    # What is imported is shared by the forks; elsewhere forking with network libraries loaded is not safe.
    multiprocessing.set_start_method("fork" if sys.platform == "linux" else "spawn")
    pairs = [name.split("=") for name in named]
    writers = [multiprocessing.Process(target=_write, args=(slug, date.fromisoformat(day))) for slug, day in pairs]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return 0 if all(writer.exitcode == 0 for writer in writers) else 1


def _write(slug: str, today: date) -> None:
    asyncio.run(_write_named(slug, today))


async def _write_named(slug: str, today: date) -> None:
    settings = Settings()
    provide(settings)
    addresses = find_addresses(settings)
    database = open_database(addresses.urls, addresses.roles, pool_size=1, prepare=addresses.may_prepare)
    if settings.embedded:
        # The same few statements thousands of times; a pooler, which would mind their being prepared, is not in between.
        event.listen(database.app.sync_engine, "connect", _prepare_statements)
    try:
        with system_scope(reason=REASON):
            tenant = await find_tenant(database, slug)
        plan = plan_workspace(slug, today)
        await write_workspace(database, Registry(RESOURCES), tenant, plan, report=partial(_tell, slug))
    finally:
        await database.close()


def _prepare_statements(connection: Any, _record: Any) -> None:
    connection.driver_connection.prepare_threshold = 0


def _tell(slug: str, done: int, total: int) -> None:
    # One write, so that the processes' lines do not mix. A broken pipe ends the process, and with it the open chapter,
    # when the one who started it is gone.
    os.write(sys.stdout.fileno(), f"{slug} {done} {total}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

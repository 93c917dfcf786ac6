"""Background work: declared as a function, queued in the caller's transaction, run with its tenant, done once.

A job is a row of its tenant. Its work and the note that it is done are one transaction, so a worker that is killed
leaves either both or neither, and whoever takes the job up again sees which. The worker (`rowhouse.worker`) moves job
rows to the queue; what is queued names a tenant and a job, nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from partywall import Tenant, tenant_index, tenant_unique
from rowhouse.core import operations
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Base, Database, Record, choice, percent, short_text
from rowhouse.core.errors import Conflict, NotFound, RowhouseError, StaleVersion, TooMany, Unavailable
from rowhouse.core.events import OutboxEvent
from rowhouse.core.permissions import Principal, Role
from rowhouse.core.resource import Input, Kind, NoInput, Registry, Resource, action

# Starts beyond the declared retries, for workers that were killed; a job that kills its worker must end somewhere.
_KILLED_STARTS = 3
_EVENTS_AT_ONCE = 500
_TURN_S = 0.5
# Refusals that time may heal; any other would be the same the next time.
_PASSING = (StaleVersion, TooMany, Unavailable)
Run = Callable[[Call, Any], Awaitable[BaseModel | None]]


class JobState(StrEnum):
    """How far a job has come."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Job(Record, Base):
    """One piece of background work. `key` keeps a second of the same kind from being queued, in all time.

    attempts: how often it was started.  acting_for_id: whose wish it is, for the audit log.  error: why it failed last.
    """

    __tablename__ = "job"
    __table_args__ = (
        tenant_unique("key"),
        tenant_index("ix_job_waiting", "created_at", postgresql_where="dispatched_at IS NULL"),
        tenant_index("ix_job_status", "status", "created_at"),
    )

    task: Mapped[str] = short_text(200)
    args: Mapped[dict[str, Any]] = mapped_column(default=dict)
    key: Mapped[str | None] = short_text(300)
    status: Mapped[str] = choice("status", JobState, default=JobState.QUEUED)
    progress_pct: Mapped[int] = percent("progress_pct", default=0)
    message: Mapped[str] = short_text(500, default="")
    attempts: Mapped[int] = mapped_column(default=0)
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = short_text(500)
    acting_for_id: Mapped[UUID | None]
    dispatched_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Event(Input):
    """What a subscriber is told: something that happened, and who did it."""

    id: UUID
    name: str
    payload: dict[str, Any]
    created_at: datetime
    actor_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """Work that can be queued. event: what it is queued for by itself, "" for none.  cron: when, for each tenant."""

    name: str
    run: Run
    input: type[Input]
    retries: int
    event: str = ""
    cron: str = ""


def job(
    name: str, *, input: type[Input] = NoInput, retries: int = 0, cron: str = ""
) -> Callable[[Callable[..., Awaitable[BaseModel | None]]], Task]:
    """Turn `async (call, args)` into a `Task`; args is an `input` instance, the answer is kept as the job's result.

    name: "module.verb", never changed, since queued jobs carry it.  retries: further attempts after an error.
    cron: minute hour day month weekday in UTC; each active tenant then gets the job at that time.
    """

    def declare(run: Run) -> Task:
        return Task(name, run, input, retries, cron=cron)

    return declare


def subscribe(event: str, *, retries: int = 3) -> Callable[[Callable[[Call, Event], Awaitable[BaseModel | None]]], Task]:
    """Turn `async (call, event)` into a `Task` that is queued once for each event of a name, such as "crm.opportunity_won"."""

    def declare(run: Run) -> Task:
        return Task(f"{event}>{run.__module__}.{run.__name__}", run, Event, retries, event=event)

    return declare


class Tasks:
    """Every task of the running program, by name and by event. Built once by the composition root."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._by_name: dict[str, Task] = {}
        for task in tasks:
            if task.name in self._by_name:
                raise ValueError(f"two tasks are named {task.name}")
            self._by_name[task.name] = task

    def __iter__(self) -> Iterator[Task]:
        return iter(self._by_name.values())

    def find(self, name: str) -> Task | None:
        """Return a task, or None when this version of the program has none of the name."""
        return self._by_name.get(name)

    def of_events(self) -> Mapping[str, list[Task]]:
        """Return the subscribers by event name."""
        found: dict[str, list[Task]] = {}
        for task in self:
            if task.event:
                found.setdefault(task.event, []).append(task)
        return found


async def call_enqueue(
    call: Call, task: Task, args: Input | None = None, *, key: str | None = None, acting_for_id: UUID | None = None
) -> Job | None:
    """Queue a job in the caller's transaction and return it; it runs after the commit, and never if there is none.

    key: a job of the same key is queued once; None is returned the second time.
    """
    if key is not None:
        queued = await call.session.scalar(select(Job.id).where(Job.key == key))
        if queued is not None:
            return None
    row = Job(
        task=task.name,
        args=(args or task.input()).model_dump(mode="json"),
        key=key,
        status=JobState.QUEUED,
        acting_for_id=acting_for_id or call.principal.subject_id,
    )
    call.session.add(row)
    await call.flush()
    return row


async def report_progress(call: Call, percent_done: int, message: str = "") -> None:
    """Let people see how far the running job has come; written at once, beside the job's own transaction.

    percent_done: 0 to 100.  Does nothing outside a job.
    """
    job_id = call.session.sync_session.info.get("job_id")
    if job_id is None:
        return
    async with open_call(call.database, call.registry, call.tenant, call.principal) as beside:
        values = {"progress_pct": max(0, min(100, percent_done)), "message": message[:500]}
        await _set(beside, job_id, (JobState.RUNNING,), values)


@action(input=NoInput)
async def cancel(call: Call, row: Job, data: NoInput) -> Job:
    """Take a job out of the queue.  Raises Conflict (job_started) once it runs or has run."""
    if row.status != JobState.QUEUED:
        raise Conflict(f"The job is {row.status}; only a waiting one can be cancelled.", code="job_started")
    row.status, row.finished_at = JobState.CANCELLED, call.now
    return row


JOBS = Resource(
    model=Job,
    name="jobs",
    group="workspace",
    kind=Kind.JOURNAL,
    hidden=(Job.args, Job.key),
    filters=(Job.task, Job.status, Job.created_at, Job.finished_at),
    order=(Job.created_at, Job.finished_at),
    actions=(cancel,),
)


@dataclass(frozen=True, slots=True)
class Runner:
    """What running a job needs."""

    database: Database
    registry: Registry
    tasks: Tasks

    async def run(self, tenant: Tenant, job_id: UUID) -> bool:
        """Run a queued job of a tenant and return whether it ran; one that is done, cancelled or another tenant's is left alone.

        An error of the job is raised after it was noted, when the job is to be tried again; else it is noted only.
        """
        started = await self._start(tenant, job_id)
        if started is None:
            return False
        task, row = started
        principal = Principal("system", row.acting_for_id, None, Role.OWNER)
        try:
            async with open_call(self.database, self.registry, tenant, principal, request_id=f"job:{job_id}") as call:
                return await _work(call, task, row)
        except Exception as error:
            if await self._note_failure(tenant, task, row, error):
                raise
            return True

    async def _start(self, tenant: Tenant, job_id: UUID) -> tuple[Task, Job] | None:
        async with open_call(self.database, self.registry, tenant, _WORKER) as call:
            row = await call.find(Job, job_id, lock=True)
            if row is None or row.status not in (JobState.QUEUED, JobState.RUNNING):
                return None
            task = self.tasks.find(row.task)
            if task is None or row.attempts > task.retries + _KILLED_STARTS:
                why = "No version of this task is installed." if task is None else "The worker was ended each time it ran."
                ended = {"status": JobState.FAILED, "error": why, "finished_at": call.now}
                await _set(call, job_id, (JobState.QUEUED, JobState.RUNNING), ended)
                return None
            begun = {"status": JobState.RUNNING, "attempts": Job.attempts + 1, "started_at": call.now}
            await _set(call, job_id, (JobState.QUEUED, JobState.RUNNING), begun)
            return task, row

    async def _note_failure(self, tenant: Tenant, task: Task, row: Job, error: Exception) -> bool:
        """Note why a job failed; return whether it is to be tried again."""
        async with open_call(self.database, self.registry, tenant, _WORKER) as call:
            attempts = await call.session.scalar(select(Job.attempts).where(Job.id == row.id)) or 0
            again = attempts <= task.retries and (not isinstance(error, RowhouseError) or isinstance(error, _PASSING))
            values: dict[str, Any] = {"status": JobState.QUEUED if again else JobState.FAILED, "error": _said(error)}
            if not again:
                values["finished_at"] = call.now
            await _set(call, row.id, (JobState.RUNNING,), values)
        return again


async def fan_out(call: Call, tasks: Tasks) -> int:
    """Queue the subscribers of the tenant's waiting events, 500 at most, in one transaction; return how many were waiting."""
    subscribers = tasks.of_events()
    waiting = OutboxEvent.dispatched_at.is_(None)
    unheard = update(OutboxEvent).where(waiting, OutboxEvent.name.not_in(list(subscribers)))
    await call.session.execute(unheard.values(dispatched_at=call.now).execution_options(synchronize_session=False))
    statement = select(OutboxEvent).where(waiting).order_by(OutboxEvent.created_at, OutboxEvent.id).limit(_EVENTS_AT_ONCE)
    events = (await call.session.scalars(statement.with_for_update(skip_locked=True))).all()
    for event in events:
        told = Event.model_validate({name: getattr(event, name) for name in Event.model_fields})
        # One without subscribers may have been committed since the update above.
        for task in subscribers.get(event.name, ()):
            await call_enqueue(call, task, told, key=f"{event.id}>{task.name}"[:300], acting_for_id=event.actor_id)
        event.dispatched_at = call.now
    return len(events)


_WORKER = Principal("system", None, None, Role.OWNER)


async def _work(call: Call, task: Task, row: Job) -> bool:
    # A second worker that took the job for abandoned waits here until the first has ended, then sees it done.
    await _take_turn(call, row.id)
    status = await call.session.scalar(select(Job.status).where(Job.id == row.id))
    if status != JobState.RUNNING:
        return False
    call.session.sync_session.info["job_id"] = row.id
    call.operation = f"jobs:{task.name}"[:100]
    answer = await task.run(call, operations.parse(task.input, row.args))
    await call.flush()
    result = answer.model_dump(mode="json") if answer is not None else None
    values = {"status": JobState.DONE, "result": result, "progress_pct": 100, "error": None, "finished_at": call.now}
    if await _set(call, row.id, (JobState.RUNNING,), values) != 1:
        raise NotFound(f"job {row.id} vanished while it ran")
    return True


async def _take_turn(call: Call, job_id: UUID) -> None:
    # Asked again and again, since a job may run for longer than a statement may wait.
    turn = select(func.pg_try_advisory_xact_lock(_lock_key(call.tenant.id, job_id)))
    while not await call.session.scalar(turn):  # noqa: ASYNC110  # the worker that holds it may be another process
        await asyncio.sleep(_TURN_S)


async def _set(call: Call, job_id: UUID, states: tuple[JobState, ...], values: Mapping[str, Any]) -> int:
    # Written past the unit of work: the way of a job through its states is no change people need to see audited.
    statement = update(Job).where(Job.id == job_id, Job.status.in_(states)).values(**values)
    result: Any = await call.session.execute(statement.execution_options(synchronize_session=False))
    return int(result.rowcount)


def _lock_key(tenant_id: UUID, job_id: UUID) -> int:
    return int.from_bytes(hashlib.sha256(tenant_id.bytes + job_id.bytes).digest()[:8], signed=True)


def _said(error: Exception) -> str:
    # Other errors may quote data; their text belongs in the operator's log.
    return error.message[:500] if isinstance(error, RowhouseError) else f"{type(error).__name__}; the log has the details."

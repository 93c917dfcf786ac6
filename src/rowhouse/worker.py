"""The worker: takes jobs and events from the tenants' tables to the queue, and runs them. A composition root."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from procrastinate import App, PsycopgConnector, RetryStrategy
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from psycopg import OperationalError as PsycopgError
from sqlalchemy import Update, make_url, select, update
from sqlalchemy.exc import OperationalError

from partywall import Tenant, system_scope
from rowhouse import clock
from rowhouse.core.call import open_call
from rowhouse.core.db import Database, open_database
from rowhouse.core.events import OutboxEvent
from rowhouse.core.jobs import Job, JobState, Runner, Task, Tasks, call_enqueue, fan_out
from rowhouse.core.resource import Registry
from rowhouse.identity import domains
from rowhouse.identity.members import system_principal
from rowhouse.identity.models import TenantRow, TenantStatus
from rowhouse.identity.people import tenant_of
from rowhouse.identity.provided import provide, provided
from rowhouse.identity.throttle import forget_attempts
from rowhouse.migrate import find_addresses
from rowhouse.modules.crm.jobs import TASKS as CRM
from rowhouse.registry import build_registry
from rowhouse.settings import Settings

POLL_S = 1.0
CONCURRENCY = 4
_STOP_LIMIT_S = 20.0
_STALLED_AFTER_S = 30.0
_JOBS_AT_ONCE = 200
_TENANTS_AT_ONCE = 50
_LOST_AFTER = timedelta(hours=1)
_AGAIN = RetryStrategy(max_attempts=5, wait=30)
_RUN = "rowhouse.run_job"
_log = structlog.get_logger()


def build_tasks() -> Tasks:
    """Return every task of the program."""
    return Tasks([*CRM])


async def run_worker(settings: Settings, *, stop_event: asyncio.Event) -> None:
    """Run jobs until the event is set; then what is running gets 20 seconds to end, and the rest waits for the next start.

    A database that goes away is waited for.  Raises UnsafeRole for a database role that could bypass the policies.
    """
    provide(settings)
    addresses = find_addresses(settings)
    database = open_database(addresses.urls, addresses.roles, pool_size=settings.pool_size, prepare=addresses.may_prepare)
    try:
        await database.check_roles()
        worker = Worker(database, build_registry(), build_tasks(), addresses.direct["operator"])
        await worker.run(stop_event)
    finally:
        await database.close()


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process. operator_url: of the role the queue belongs to."""

    database: Database
    registry: Registry
    tasks: Tasks
    operator_url: str

    async def run(self, stop_event: asyncio.Event, *, poll_s: float = POLL_S) -> None:
        """Dispatch and run until the event is set."""
        while not stop_event.is_set():
            try:
                async with self.queue().open_async() as queue:
                    await take_up_stalled(queue)
                    await self._run(queue, stop_event, poll_s)
                await _wait(stop_event, 2.0)
            except (ConnectorException, OperationalError, PsycopgError) as error:
                _log.warning("worker_waits_for_database", error=type(error).__name__)
                await _wait(stop_event, 2.0)

    async def _run(self, queue: App, stop_event: asyncio.Event, poll_s: float) -> None:
        dispatcher = Dispatcher(self.database, self.registry, self.tasks, queue)
        worker = asyncio.create_task(
            queue.run_worker_async(
                concurrency=CONCURRENCY,
                install_signal_handlers=False,
                delete_jobs="successful",
                shutdown_graceful_timeout=_STOP_LIMIT_S,
                stalled_worker_timeout=_STALLED_AFTER_S,
            )
        )
        try:
            while not stop_event.is_set() and not worker.done():
                await dispatcher.tick()
                await _wait(stop_event, poll_s)
        finally:
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker

    def queue(self) -> App:
        """Return the queue with its tasks; it is opened by the caller."""
        conninfo = make_url(self.operator_url).set(drivername="postgresql").render_as_string(hide_password=False)
        app = App(connector=PsycopgConnector(conninfo=conninfo, max_size=CONCURRENCY + 2, kwargs={"prepare_threshold": None}))
        runner = Runner(self.database, self.registry, self.tasks)

        # Its own limit of retries is the task's; this one only spaces them.
        @app.task(name=_RUN, retry=RetryStrategy(max_attempts=50, wait=1, linear_wait=15))
        async def run_job(tenant_id: str, job_id: str) -> None:
            await run_queued(runner, UUID(tenant_id), UUID(job_id))

        @app.periodic(cron="* * * * *")
        @app.task(name="rowhouse.retry_stalled", queueing_lock="retry_stalled")
        async def retry_stalled(timestamp: int) -> None:
            await take_up_stalled(app)
            await take_up_lost(self.database)

        @app.periodic(cron="20 * * * *")
        @app.task(name="rowhouse.recheck_domains", queueing_lock="recheck_domains")
        async def recheck_domains(timestamp: int) -> None:
            await domains.recheck(self.database, provided().txt, now=clock.utc_now())

        @app.periodic(cron="40 4 * * *")
        @app.task(name="rowhouse.forget_attempts", queueing_lock="forget_attempts")
        async def forget_old_attempts(timestamp: int) -> None:
            await forget_attempts(self.database, clock.utc_now())

        for task in self.tasks:
            if task.cron:
                self._schedule(app, task)
        return app

    def _schedule(self, app: App, task: Task) -> None:
        @app.periodic(cron=task.cron)
        @app.task(name=f"rowhouse.schedule:{task.name}", queueing_lock=f"schedule:{task.name}", retry=_AGAIN)
        async def schedule(timestamp: int) -> None:
            await enqueue_for_all(self.database, self.registry, task, at=timestamp)


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Takes what waits in the tenants' tables to the queue. Several may run at once."""

    database: Database
    registry: Registry
    tasks: Tasks
    queue: App

    async def tick(self) -> int:
        """Dispatch what is waiting now and return how many jobs were queued."""
        for tenant_id in await self._tenants_with_events():
            tenant = await served_tenant(self.database, tenant_id)
            if tenant is not None:
                async with open_call(self.database, self.registry, tenant, system_principal()) as call:
                    await fan_out(call, self.tasks)
        waiting = await self._waiting_jobs()
        for tenant_id, job_id in waiting:
            await self._defer(tenant_id, job_id)
        return len(waiting)

    async def _tenants_with_events(self) -> list[UUID]:
        served = (OutboxEvent.tenant_id == TenantRow.id) & (TenantRow.status == TenantStatus.ACTIVE)
        statement = select(OutboxEvent.tenant_id).join(TenantRow, served).where(OutboxEvent.dispatched_at.is_(None)).distinct()
        with system_scope(reason="dispatch events"):
            async with self.database.system() as session:
                return list((await session.scalars(statement.limit(_TENANTS_AT_ONCE))).all())

    async def _waiting_jobs(self) -> list[tuple[UUID, UUID]]:
        served = (Job.tenant_id == TenantRow.id) & (TenantRow.status == TenantStatus.ACTIVE)
        statement = select(Job.tenant_id, Job.id).join(TenantRow, served)
        statement = statement.where(Job.dispatched_at.is_(None), Job.status == JobState.QUEUED)
        with system_scope(reason="dispatch jobs"):
            async with self.database.system() as session:
                rows = (await session.execute(statement.order_by(Job.created_at).limit(_JOBS_AT_ONCE))).all()
        return [(tenant_id, job_id) for tenant_id, job_id in rows]

    async def _defer(self, tenant_id: UUID, job_id: UUID) -> None:
        waiting = select(Job.id).where(Job.tenant_id == tenant_id, Job.id == job_id, Job.dispatched_at.is_(None))
        run = self.queue.configure_task(_RUN, queueing_lock=f"job:{tenant_id}:{job_id}")
        with system_scope(reason="dispatch jobs"):
            async with self.database.system() as session:
                # Held until it is marked, so that of several workers one queues it.
                if await session.scalar(waiting.with_for_update(skip_locked=True)) is None:
                    return
                # Queued first and marked second: a crash between the two queues it twice, which the job itself tells apart.
                with contextlib.suppress(AlreadyEnqueued):
                    await run.defer_async(tenant_id=str(tenant_id), job_id=str(job_id))
                await session.execute(_marking(tenant_id, job_id, clock.utc_now()))


async def run_queued(runner: Runner, tenant_id: UUID, job_id: UUID) -> None:
    """Run a job that came from the queue, for its tenant as it is now.

    A job of an unknown tenant is refused; one of a suspended tenant goes back to wait until the tenant is served again.
    """
    tenant = await served_tenant(runner.database, tenant_id)
    if tenant is None:
        known = await _let_wait(runner.database, tenant_id, job_id)
        _log.warning("job_refused", tenant_id=str(tenant_id), job_id=str(job_id), known=known)
        return
    with structlog.contextvars.bound_contextvars(tenant=tenant.slug, job_id=str(job_id)):
        ran = await runner.run(tenant, job_id)
        _log.info("job_ended" if ran else "job_not_waiting")


async def served_tenant(database: Database, tenant_id: UUID) -> Tenant | None:
    """Return a tenant that is served now; None for an unknown, suspended or cancelled one."""
    async with database.people() as session:
        row = await session.get(TenantRow, tenant_id)
    if row is None or row.status != TenantStatus.ACTIVE:
        return None
    return tenant_of(row)


async def enqueue_for_all(database: Database, registry: Registry, task: Task, *, at: int) -> int:
    """Queue a scheduled task for each served tenant, once for its time, and return for how many.

    at: the scheduled time, in seconds since 1970.
    """
    with system_scope(reason=f"schedule {task.name}"):
        async with database.system() as session:
            ids = (await session.scalars(select(TenantRow.id).where(TenantRow.status == TenantStatus.ACTIVE))).all()
    count = 0
    for tenant_id in ids:
        tenant = await served_tenant(database, tenant_id)
        if tenant is not None:
            async with open_call(database, registry, tenant, system_principal()) as call:
                count += await call_enqueue(call, task, key=f"{task.name}@{at}") is not None
    return count


async def take_up_stalled(queue: App) -> int:
    """Queue again what a killed worker was running, and return how many there were."""
    stalled: Any = await queue.job_manager.get_stalled_jobs(seconds_since_heartbeat=_STALLED_AFTER_S)
    count = 0
    for entry in stalled:
        await queue.job_manager.retry_job(entry)
        count += 1
    return count


async def take_up_lost(database: Database) -> int:
    """Let jobs wait anew that were queued an hour ago and are in nobody's hands, and return how many there were."""
    lost = (Job.status == JobState.QUEUED) & (Job.dispatched_at < clock.utc_now() - _LOST_AFTER)
    with system_scope(reason="take up lost jobs"):
        async with database.system() as session:
            statement = update(Job).where(lost).values(dispatched_at=None)
            result: Any = await session.execute(statement.execution_options(synchronize_session=False))
    return int(result.rowcount)


async def _let_wait(database: Database, tenant_id: UUID, job_id: UUID) -> bool:
    """Note that a job is not in the queue any more; return whether there is such a job."""
    with system_scope(reason="dispatch jobs"):
        async with database.system() as session:
            result: Any = await session.execute(_marking(tenant_id, job_id, None))
    return bool(result.rowcount)


def _marking(tenant_id: UUID, job_id: UUID, moment: datetime | None) -> Update:
    statement = update(Job).where(Job.tenant_id == tenant_id, Job.id == job_id).values(dispatched_at=moment)
    return statement.execution_options(synchronize_session=False)


async def _wait(stop_event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop_event.wait(), seconds)

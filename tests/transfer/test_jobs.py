"""Background work: queued with its cause, run with its tenant, done once whatever happens to the worker."""

import asyncio
from uuid import UUID, uuid4

import pytest
from imports import House
from pydantic import BaseModel
from sqlalchemy import select, update

from partywall import system_scope
from partywall.context import get_tenant_id
from rowhouse.core import operations
from rowhouse.core.errors import Conflict, NotFound
from rowhouse.core.events import OutboxEvent
from rowhouse.core.jobs import (
    JOBS,
    Event,
    Job,
    JobState,
    Runner,
    Tasks,
    call_enqueue,
    cancel,
    fan_out,
    job,
    report_progress,
    subscribe,
)
from rowhouse.core.resource import Input
from rowhouse.identity.models import TenantRow, TenantStatus
from rowhouse.modules.crm.jobs import refresh_amounts
from rowhouse.modules.crm.models import Account, ExchangeRate, Opportunity
from rowhouse.worker import Dispatcher, Worker, enqueue_for_all, run_queued, served_tenant, take_up_stalled


class Named(Input):
    """The account to make."""

    name: str


class Made(BaseModel):
    """The account made."""

    name: str
    tenant_id: UUID


@job("tests.make_account", input=Named, retries=1)
async def make_account(call, args):
    await operations.create(call, call.registry["accounts"], {"name": args.name})
    await report_progress(call, 50, "half")
    if args.name == "bad":
        raise RuntimeError("secret detail")
    if args.name == "refused":
        raise Conflict("It is taken.")
    return Made(name=args.name, tenant_id=get_tenant_id())


@subscribe("tests.happened")
async def note_event(call, event: Event):
    await operations.create(call, call.registry["accounts"], {"name": f"heard {event.payload['what']}"})


TASKS = Tasks([make_account, note_event])


@pytest.fixture
def runner(database, registry) -> Runner:
    return Runner(database, registry, TASKS)


@pytest.fixture
async def queue(database, registry, addresses):
    """The queue, opened and emptied."""
    worker = Worker(database, registry, TASKS, addresses.urls["operator"])
    async with worker.queue().open_async() as app:
        await app.connector.execute_query_async("DELETE FROM procrastinate_jobs")
        yield app


async def queued(house: House, name: str = "Acme", key: str | None = None) -> Job:
    async with house.call() as call:
        row = await call_enqueue(call, make_account, Named(name=name), key=key)
    assert row is not None
    return row


async def job_of(house: House, job_id: UUID) -> Job:
    async with house.call() as call:
        return await call.load(Job, job_id)


async def names(house: House) -> list[str]:
    return [row.name for row in await house.rows(Account)]


async def test_a_job_runs_with_its_tenant_for_whoever_queued_it(house, runner):
    row = await queued(house)
    assert await runner.run(house.tenant, row.id)
    done = await job_of(house, row.id)
    assert (done.status, done.attempts, done.progress_pct, done.error) == (JobState.DONE, 1, 100, None)
    assert done.result == {"name": "Acme", "tenant_id": str(house.tenant.id)}
    assert (await house.rows(Account))[0].created_by_id == house.principal.subject_id


async def _queue_and_fail(call):
    await call_enqueue(call, make_account, Named(name="never"))
    raise NotFound


async def test_a_rolled_back_call_queues_nothing(house):
    with pytest.raises(NotFound):
        async with house.call() as call:
            await _queue_and_fail(call)
    assert await house.count(Job) == 0


async def test_a_job_is_done_once_however_often_it_is_run(house, runner):
    row = await queued(house)
    ran = await asyncio.gather(*(runner.run(house.tenant, row.id) for _ in range(3)))
    assert sorted(ran) == [False, False, True]
    assert not await runner.run(house.tenant, row.id)
    assert await names(house) == ["Acme"]


async def test_a_job_whose_worker_was_killed_is_taken_up_again(house, runner):
    row = await queued(house)
    async with house.call() as call:
        await call.session.execute(update(Job).where(Job.id == row.id).values(status=JobState.RUNNING, attempts=1))
    assert await runner.run(house.tenant, row.id)
    assert (await job_of(house, row.id)).attempts == 2
    assert await names(house) == ["Acme"]


async def test_a_job_that_ends_its_worker_each_time_is_given_up(house, runner):
    row = await queued(house)
    async with house.call() as call:
        await call.session.execute(update(Job).where(Job.id == row.id).values(status=JobState.RUNNING, attempts=5))
    assert not await runner.run(house.tenant, row.id)
    assert (await job_of(house, row.id)).status == JobState.FAILED


async def test_an_error_is_retried_as_declared_and_leaves_nothing(house, runner):
    row = await queued(house, "bad")
    with pytest.raises(RuntimeError):
        await runner.run(house.tenant, row.id)
    first = await job_of(house, row.id)
    assert (first.status, first.attempts) == (JobState.QUEUED, 1)
    assert "secret" not in (first.error or "secret")
    assert await runner.run(house.tenant, row.id)
    assert (await job_of(house, row.id)).status == JobState.FAILED
    assert await names(house) == []


async def test_a_refusal_is_not_retried(house, runner):
    row = await queued(house, "refused")
    assert await runner.run(house.tenant, row.id)
    failed = await job_of(house, row.id)
    assert (failed.status, failed.error) == (JobState.FAILED, "It is taken.")


async def test_a_key_is_queued_once(house):
    await queued(house, key="once")
    async with house.call() as call:
        assert await call_enqueue(call, make_account, Named(name="Acme"), key="once") is None


async def test_a_waiting_job_can_be_cancelled_and_then_does_not_run(house, runner):
    row = await queued(house)
    async with house.call() as call:
        await operations.act(call, JOBS, cancel, {}, row_id=row.id)
    assert not await runner.run(house.tenant, row.id)
    assert await names(house) == []
    with pytest.raises(Conflict, match="CANCELLED"):
        async with house.call() as call:
            await operations.act(call, JOBS, cancel, {}, row_id=row.id)


async def test_an_event_reaches_its_subscribers_once(house, runner):
    async with house.call() as call:
        call.emit("tests.happened", what="it")
        call.emit("tests.unheard")
    async with house.call() as call:
        assert await fan_out(call, TASKS) == 1
    async with house.call() as call:
        assert await fan_out(call, TASKS) == 0
        waiting = (await call.session.scalars(select(OutboxEvent).where(OutboxEvent.dispatched_at.is_(None)))).all()
        assert list(waiting) == []
    (row,) = await house.rows(Job)
    assert row.acting_for_id == house.principal.subject_id
    assert await runner.run(house.tenant, row.id)
    assert await names(house) == ["heard it"]


async def test_a_job_of_an_unknown_tenant_is_refused(house, runner):
    row = await queued(house)
    await run_queued(runner, uuid4(), row.id)
    assert (await job_of(house, row.id)).status == JobState.QUEUED


async def test_another_tenants_job_is_not_found(house, runner, make_tenant):
    other, _ = await make_tenant("other")
    row = await queued(house)
    assert not await runner.run(other, row.id)
    assert (await job_of(house, row.id)).status == JobState.QUEUED


async def test_a_suspended_tenants_job_waits(house, runner, database, registry, queue):
    row = await queued(house)
    await set_status(database, house, TenantStatus.SUSPENDED)
    dispatcher = Dispatcher(database, registry, TASKS, queue)
    await dispatcher.tick()
    assert (await job_of(house, row.id)).dispatched_at is None
    await run_queued(runner, house.tenant.id, row.id)
    assert (await job_of(house, row.id)).status == JobState.QUEUED
    await set_status(database, house, TenantStatus.ACTIVE)
    await dispatcher.tick()
    assert (await job_of(house, row.id)).dispatched_at is not None


async def set_status(database, house: House, status: TenantStatus) -> None:
    with system_scope(reason="the tests' own tenants"):
        async with database.system() as session:
            await session.execute(update(TenantRow).where(TenantRow.id == house.tenant.id).values(status=status))


async def test_the_worker_runs_what_is_queued_and_stops_when_told(house, database, registry, addresses, queue):
    row = await queued(house)
    async with house.call() as call:
        call.emit("tests.happened", what="it")
    stop = asyncio.Event()
    worker = asyncio.create_task(Worker(database, registry, TASKS, addresses.urls["operator"]).run(stop, poll_s=0.05))
    async with asyncio.timeout(20):
        while sorted(await names(house)) != ["Acme", "heard it"]:  # noqa: ASYNC110  # the database is what is waited for
            await asyncio.sleep(0.05)
        stop.set()
        await worker
    assert (await job_of(house, row.id)).status == JobState.DONE


async def test_what_a_killed_worker_was_running_is_queued_again(house, database, registry, queue):
    await queued(house)
    await Dispatcher(database, registry, TASKS, queue).tick()
    dead = await queue.job_manager.register_worker()
    taken = await queue.job_manager.fetch_job(queues=None, worker_id=dead)
    assert taken is not None
    beat = "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '5 minutes' WHERE id = %(worker)s"
    await queue.connector.execute_query_async(beat, worker=dead)
    assert await take_up_stalled(queue) == 1
    assert (await queue.job_manager.get_job_status_async(taken.id)).value == "todo"


async def test_a_scheduled_task_is_queued_once_per_tenant_and_time(house, database, registry):
    @job("tests.daily", cron="0 3 * * *")
    async def daily(call, args):
        return None

    await enqueue_for_all(database, registry, daily, at=1_700_000_000)
    await enqueue_for_all(database, registry, daily, at=1_700_000_000)
    assert [row.key for row in await house.rows(Job)] == ["tests.daily@1700000000"]


async def test_served_tenants_are_looked_up_afresh(house, database):
    assert await served_tenant(database, house.tenant.id) == house.tenant
    assert await served_tenant(database, uuid4()) is None


async def test_open_deals_in_foreign_currencies_get_todays_rate(house, database, registry):
    rate = {"currency": "EUR", "as_of": "2020-01-01", "rate": "2"}
    async with house.call() as call:
        await operations.create(call, registry["exchange-rates"], rate)
        deal = {"name": "A", "amount_minor": 100, "currency": "EUR"}
        await operations.create(call, registry["opportunities"], deal)
    async with house.call() as call:
        row = (await call.session.scalars(select(ExchangeRate))).one()
        await operations.update(call, registry["exchange-rates"], row.id, {"rate": "3"})
        queued_row = await call_enqueue(call, refresh_amounts)
    assert queued_row is not None
    assert await Runner(database, registry, Tasks([refresh_amounts])).run(house.tenant, queued_row.id)
    assert (await job_of(house, queued_row.id)).result == {"deals": 1, "changed": 1, "without_rate": 0}
    assert [row.amount_base_minor for row in await house.rows(Opportunity)] == [300]

"""Exchanges with the database, on real connections that are shared, lost, cancelled and misused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest
from psycopg.pq.abc import PGresult
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cast import World
from partywall import NoTenant, UnsafeRole
from rowhouse.migrate import Addresses
from rowhouse.pipeline import Pipeline, Read, conninfo_of

TENANT = b"SELECT current_setting('app.tenant_id'), pg_backend_pid()"
PipelineMaker = Callable[..., Pipeline]


@pytest.fixture
async def make_pipeline(addresses: Addresses) -> AsyncIterator[PipelineMaker]:
    made: list[Pipeline] = []

    def make(*, size: int = 1, wait_s: float = 10.0, url: str = "app", prepare: bool = True) -> Pipeline:
        conninfo = conninfo_of(addresses.urls[url])
        made.append(Pipeline(conninfo, role=addresses.roles.app, size=size, wait_s=wait_s, prepare=prepare))
        return made[-1]

    yield make
    for pipeline in made:
        await pipeline.close()


def read(text: bytes, *values: bytes | None, name: bytes = b"") -> Read:
    return Read(text, name, values)


async def backend_of(pipeline: Pipeline, world: World) -> int:
    (result,) = await pipeline.run(world.tenant_a.id, [read(TENANT)])
    return int(result.get_value(0, 1) or 0)


def end(addresses: Addresses, pid: int) -> None:
    url = make_url(addresses.admin).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


async def test_every_exchange_is_of_its_own_tenant_however_many_share_a_connection(
    make_pipeline: PipelineMaker, world: World
) -> None:
    pipeline = make_pipeline(size=2)
    tenants = [world.tenant_a.id, world.tenant_b.id] * 50
    found = await asyncio.gather(*(pipeline.run(tenant_id, [read(TENANT, name=b"tenant")]) for tenant_id in tenants))
    assert [result.get_value(0, 0) for (result,) in found] == [str(tenant_id).encode() for tenant_id in tenants]
    assert len({result.get_value(0, 1) for (result,) in found}) <= 2


async def test_nothing_of_a_tenant_stays_on_a_connection(make_pipeline: PipelineMaker, world: World) -> None:
    pipeline = make_pipeline()
    await pipeline.run(world.tenant_a.id, [read(TENANT)])
    foreign = read(b"SELECT count(*) FROM membership WHERE tenant_id <> $1", str(world.tenant_b.id).encode())
    own = read(b"SELECT count(*) FROM membership")
    found = await pipeline.run(world.tenant_b.id, [foreign, own])
    assert found[0].get_value(0, 0) == b"0"
    assert int(found[1].get_value(0, 0) or 0) >= 1


async def interrupted(pipeline: Pipeline, world: World, addresses: Addresses, *, writes: bool) -> PGresult:
    """Run a statement and end its connection meanwhile."""
    first = await backend_of(pipeline, world)
    slow = read(b"SELECT pg_backend_pid(), pg_sleep(0.3)")
    running = asyncio.create_task(pipeline.run(world.tenant_a.id, [slow], writes=writes))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(end, addresses, first)
    (result,) = await running
    assert result.get_value(0, 0) != str(first).encode()
    return result


async def test_a_read_whose_connection_is_lost_is_made_on_another(
    make_pipeline: PipelineMaker, world: World, addresses: Addresses
) -> None:
    assert (await interrupted(make_pipeline(), world, addresses, writes=False)).ntuples == 1


async def test_a_write_whose_connection_is_lost_is_not_repeated(
    make_pipeline: PipelineMaker, world: World, addresses: Addresses
) -> None:
    pipeline = make_pipeline()
    with pytest.raises(OperationalError):
        await interrupted(pipeline, world, addresses, writes=True)
    assert await backend_of(pipeline, world)


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        (b"SELECT 1 / 0", "22012"),
        (b"SELECT nonsense FROM account", "42703"),
        (b"INSERT INTO search_word (tenant_id, variant, word, id) SELECT NULL, '', '', NULL", "25006"),
        (b"DELETE FROM account", "25006"),
        (b"SELECT set_config('app.tenant_id', '', true)", "42501"),
    ],
)
async def test_a_failed_statement_names_its_fault_and_the_next_is_served(
    text: bytes, sqlstate: str, make_pipeline: PipelineMaker, world: World
) -> None:
    pipeline = make_pipeline()
    with pytest.raises(DBAPIError) as caught:
        await pipeline.run(world.tenant_a.id, [read(TENANT), read(text)])
    assert caught.value.orig is not None
    assert getattr(caught.value.orig, "sqlstate", None) == sqlstate
    assert await backend_of(pipeline, world)


async def test_a_failed_write_leaves_nothing(make_pipeline: PipelineMaker, world: World) -> None:
    pipeline = make_pipeline()
    word = read(
        b"INSERT INTO search_word (tenant_id, variant, word, id) VALUES ($1, 'half', 'half', gen_random_uuid())",
        str(world.tenant_a.id).encode(),
    )
    with pytest.raises(DBAPIError):
        await pipeline.run(world.tenant_a.id, [word, read(b"SELECT 1 / 0")], writes=True)
    (result,) = await pipeline.run(world.tenant_a.id, [read(b"SELECT count(*) FROM search_word WHERE word = 'half'")])
    assert result.get_value(0, 0) == b"0"


async def test_a_row_of_another_tenant_cannot_be_sent(make_pipeline: PipelineMaker, world: World) -> None:
    foreign = read(
        b"INSERT INTO search_word (tenant_id, variant, word, id) VALUES ($1, 'x', 'x', gen_random_uuid())",
        str(world.tenant_b.id).encode(),
    )
    with pytest.raises(DBAPIError) as caught:
        await make_pipeline().run(world.tenant_a.id, [foreign], writes=True)
    assert getattr(caught.value.orig, "sqlstate", None) == "42501"


async def test_a_caller_who_leaves_does_not_disturb_the_next(make_pipeline: PipelineMaker, world: World) -> None:
    pipeline = make_pipeline()
    await backend_of(pipeline, world)
    leaving = asyncio.create_task(pipeline.run(world.tenant_a.id, [read(b"SELECT 'left behind', pg_sleep(0.05)")]))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    (result,) = await pipeline.run(world.tenant_b.id, [read(TENANT)])
    assert result.get_value(0, 0) == str(world.tenant_b.id).encode()


async def test_waiting_for_a_connection_ends(make_pipeline: PipelineMaker, world: World) -> None:
    pipeline = make_pipeline(wait_s=0.01)
    held = asyncio.create_task(pipeline.run(world.tenant_a.id, [read(b"SELECT pg_sleep(0.3)")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    with pytest.raises(PoolTimeout):
        await pipeline.run(world.tenant_a.id, [read(TENANT)])
    await held
    assert await backend_of(pipeline, world)


async def test_one_who_gave_up_waiting_takes_no_connection_along(make_pipeline: PipelineMaker, world: World) -> None:
    pipeline = make_pipeline()
    await backend_of(pipeline, world)
    held = asyncio.create_task(pipeline.run(world.tenant_a.id, [read(b"SELECT pg_sleep(0.05)")]))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(pipeline.run(world.tenant_b.id, [read(TENANT)])) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    await held
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in found] == [True, False, True, False, True]
    assert await backend_of(pipeline, world)


async def test_a_connection_is_replaced_before_it_holds_too_many_plans(make_pipeline: PipelineMaker, world: World) -> None:
    pipeline = make_pipeline()
    first = await backend_of(pipeline, world)
    for number in range(402):
        await pipeline.run(world.tenant_a.id, [read(f"SELECT {number}".encode(), name=f"s{number}".encode())])
    assert await backend_of(pipeline, world) != first


async def test_without_preparing_nothing_stays_on_the_server(make_pipeline: PipelineMaker, world: World) -> None:
    pipeline = make_pipeline(prepare=False)
    await pipeline.run(world.tenant_a.id, [read(TENANT, name=b"tenant")])
    (result,) = await pipeline.run(world.tenant_a.id, [read(b"SELECT count(*) FROM pg_prepared_statements")])
    assert result.get_value(0, 0) == b"0"


async def test_a_pipeline_of_the_wrong_role_is_refused(make_pipeline: PipelineMaker, world: World) -> None:
    with pytest.raises(UnsafeRole, match="are to be made as"):
        await make_pipeline(url="operator").run(world.tenant_a.id, [read(TENANT)])


async def test_without_a_tenant_nothing_is_read(make_pipeline: PipelineMaker) -> None:
    with pytest.raises(NoTenant):
        await make_pipeline().run(None, [read(TENANT)])


async def test_a_database_that_is_not_there_is_an_operational_error(addresses: Addresses, world: World) -> None:
    nowhere = Pipeline("host=127.0.0.1 port=1 user=nobody dbname=nothing", role=addresses.roles.app, size=1)
    with pytest.raises((OperationalError, InternalError)):
        await nowhere.run(world.tenant_a.id, [read(TENANT)])
    with pytest.raises((OperationalError, InternalError)):
        await nowhere.run(world.tenant_a.id, [read(TENANT)])

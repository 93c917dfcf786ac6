"""Several processes at once: what they count, what a killed one leaves behind, and that each job runs once."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, make_url, select

from cast import Person
from partywall import Tenant
from rowhouse.core import operations
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database, open_database
from rowhouse.core.jobs import Job, JobState, Runner, Tasks, call_enqueue, job
from rowhouse.core.permissions import Principal
from rowhouse.core.resource import NoInput, Registry
from rowhouse.migrate import Addresses
from rowhouse.modules.crm.models import Account
from rowhouse.settings import Settings
from rowhouse.worker import Worker

LIMIT_S = 60
pytestmark = pytest.mark.slow


@job("tests.count")
async def count(call: Call, _args: NoInput) -> None:
    await operations.create(call, call.registry["accounts"], {"name": f"by {call.operation} {secrets.token_hex(4)}"})


@job("tests.blocked", retries=1)
async def unblocked(call: Call, _args: NoInput) -> None:
    """The same job as the blocked worker's, as it should be."""
    await operations.create(call, call.registry["accounts"], {"name": "Written by whom?"})


@pytest.fixture(scope="module")
def environment(settings: Settings, addresses: Addresses) -> dict[str, str]:
    assert settings.database_url is not None
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ROWHOUSE_", "PROMETHEUS_"))}
    ours = {"DATABASE_URL": settings.database_url, "ROWHOUSE_SECRET_KEY": settings.secret.decode(), "ROWHOUSE_LOG_LEVEL": "error"}
    return {**kept, **ours}


class Served:
    """A running `rowhouse serve` with two web processes."""

    def __init__(self, environment: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "rowhouse", "serve", "--workers", "2", "--port", str(self.port)]
        self.master = subprocess.Popen(command, env=environment, start_new_session=True)

    def web_processes(self) -> set[int]:
        """Return the pids of the processes that have loaded the application."""
        children = Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children").read_text().split()
        return {int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()}

    def counts_folder(self) -> Path:
        found = re.search(r"PROMETHEUS_MULTIPROC_DIR=([^\0]+)", Path(f"/proc/{min(self.web_processes())}/environ").read_text())
        assert found is not None
        return Path(found[1])

    def counting(self) -> set[int]:
        """Return the pids of the processes that have counted something."""
        return {int(path.stem.rpartition("_")[2]) for path in self.counts_folder().glob("counter_*.db")}

    def end(self) -> int:
        if self.master.poll() is None:
            self.master.terminate()
        try:
            return self.master.wait(timeout=LIMIT_S)
        finally:
            if self.master.poll() is None:
                os.killpg(self.master.pid, signal.SIGKILL)


@pytest.fixture
async def served(environment: dict[str, str]) -> AsyncIterator[Served]:
    found = Served(environment)
    try:
        await until(lambda: answers(found))
        yield found
    finally:
        found.end()


async def until(is_so: Callable[[], object]) -> None:
    """Wait for something another process does."""
    async with asyncio.timeout(LIMIT_S):
        while not is_so():  # noqa: ASYNC110  # another process is what is waited for
            await asyncio.sleep(0.05)


def answers(served: Served) -> bool:
    assert served.master.poll() is None
    try:
        return httpx.get(f"http://127.0.0.1:{served.port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def client_of(served: Served, person: Person) -> httpx.AsyncClient:
    headers = {"host": f"{person.tenant.slug}.localhost", "authorization": f"Bearer {person.key}"}
    # A connection for each request, so that the kernel deals them out anew.
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", headers=headers, limits=limits, timeout=LIMIT_S)


async def counted(client: httpx.AsyncClient, route: str, status: int) -> int:
    text = (await client.get("/metrics")).text
    wanted = rf'^rowhouse_requests_total\{{[^}}]*route="(?:/api/v1)?{route}",status="{status}"\}} (\S+)$'
    lines = re.findall(wanted, text, re.MULTILINE)
    return sum(int(float(line)) for line in lines)


async def test_the_processes_count_together_and_stop_when_told(served: Served, owner_a: Person) -> None:
    # Each new connection goes to either; one of the two may still be starting.
    await until(lambda: answers(served) and len(served.counting()) == 2)
    async with client_of(served, owner_a) as client:
        for _ in range(40):
            assert (await client.get("/api/v1/session")).status_code == 200
        assert [await counted(client, "/session", 200) for _ in range(6)] == [40] * 6
    folder, processes = served.counts_folder(), served.web_processes()
    assert len(processes) == 2
    assert processes == served.counting()
    assert served.end() == 0
    assert not any(path.exists() for path in [folder, *(Path(f"/proc/{pid}") for pid in processes)])


async def test_a_killed_web_process_is_replaced_and_nothing_is_lost_or_done_twice(served: Served, owner_a: Person) -> None:
    await until(lambda: len(served.web_processes()) == 2)
    run, lost = secrets.token_hex(4), 0
    before = served.web_processes()

    async def create(client: httpx.AsyncClient, number: int) -> None:
        nonlocal lost
        body, headers = {"name": f"Killed {run} {number}"}, {"idempotency-key": f"{run}-{number}"}
        while True:
            try:
                answer = await client.post("/api/v1/accounts", json=body, headers=headers)
            except httpx.TransportError:
                lost += 1
                continue
            # The first attempt may still be running where nobody listens any more.
            if answer.status_code != 409:
                assert answer.status_code == 201, answer.text
                return

    async def load(client: httpx.AsyncClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            if number == 40:
                os.kill(min(before), signal.SIGKILL)
            await create(client, number)

    async with client_of(served, owner_a) as client:
        numbers = iter(range(120))
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(load(client, numbers) for _ in range(4)))
        answer = await client.get("/api/v1/accounts", params={"name.contains": f"Killed {run}", "limit": 1, "total": "true"})
        assert answer.json()["total"] == 120, answer.text
        await until(lambda: len(served.web_processes()) == 2)
        assert min(before) not in served.web_processes()
        # What the dead one had counted stays counted.
        assert await counted(client, "/accounts", 201) >= 120 - 4


async def test_web_processes_end_with_a_master_that_was_killed(served: Served) -> None:
    await until(lambda: len(served.web_processes()) == 2)
    processes, folder = served.web_processes(), served.counts_folder()
    served.master.kill()
    served.master.wait()
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
    assert not set(processes) & {int(path.name) for path in Path("/proc").glob("[0-9]*")}  # noqa: ASYNC240  # no disk
    shutil.rmtree(folder)


# --- workers ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def house(database: Database, registry: Registry, make_tenant: Callable[[str], object]) -> tuple[Tenant, Principal]:
    return await make_tenant("processes")  # type: ignore[misc,no-any-return]


@pytest.fixture
async def clean_queue(database: Database, registry: Registry, addresses: Addresses) -> AsyncIterator[object]:
    worker = Worker(database, registry, Tasks([count]), addresses.urls["operator"])
    async with worker.queue().open_async() as app:
        await app.connector.execute_query_async("DELETE FROM procrastinate_jobs")
        yield app


async def states(database: Database, registry: Registry, house: tuple[Tenant, Principal]) -> list[tuple[str, int]]:
    async with open_call(database, registry, *house) as call:
        return [(status, attempts) for status, attempts in (await call.session.execute(select(Job.status, Job.attempts))).all()]


async def accounts(database: Database, registry: Registry, house: tuple[Tenant, Principal]) -> int:
    async with open_call(database, registry, *house) as call:
        return await call.session.scalar(select(func.count(Account.id))) or 0


async def test_two_workers_share_the_jobs_and_run_each_once(
    database: Database, registry: Registry, addresses: Addresses, house: tuple[Tenant, Principal], clean_queue: object
) -> None:
    async with open_call(database, registry, *house) as call:
        for _ in range(30):
            await call_enqueue(call, count)
    stop = asyncio.Event()
    one, two = (Worker(database, registry, Tasks([count]), addresses.urls["operator"]) for _ in range(2))
    running = [asyncio.create_task(worker.run(stop, poll_s=0.01)) for worker in (one, two)]
    try:
        async with asyncio.timeout(LIMIT_S):
            while {state for state, _ in await states(database, registry, house)} != {JobState.DONE}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        stop.set()
        await asyncio.gather(*running)
    assert await states(database, registry, house) == [(JobState.DONE, 1)] * 30
    assert await accounts(database, registry, house) == 30


async def test_a_killed_workers_job_is_done_by_another_and_leaves_nothing_of_the_first(
    database: Database,
    registry: Registry,
    addresses: Addresses,
    house: tuple[Tenant, Principal],
    environment: dict[str, str],
    clean_queue: object,
) -> None:
    async with open_call(database, registry, *house) as call:
        await call_enqueue(call, unblocked)
    script = Path(__file__).with_name("blocked_worker.py")
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as first:  # noqa: ASYNC220
        assert first.stdout is not None
        assert await asyncio.to_thread(first.stdout.readline) == b"running\n"
        first.kill()
    assert await states(database, registry, house) == [(JobState.RUNNING, 1)]
    beat = "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '5 minutes'"
    await clean_queue.connector.execute_query_async(beat)  # type: ignore[attr-defined]
    stop = asyncio.Event()
    second = asyncio.create_task(
        Worker(database, registry, Tasks([unblocked]), addresses.urls["operator"]).run(stop, poll_s=0.01)
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            while await states(database, registry, house) != [(JobState.DONE, 2)]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        stop.set()
        await second
    assert await accounts(database, registry, house) == 1


async def test_who_takes_a_running_job_waits_for_its_end_beyond_every_time_limit(
    database: Database, registry: Registry, addresses: Addresses, house: tuple[Tenant, Principal]
) -> None:
    begun, end, runs = asyncio.Event(), asyncio.Event(), 0

    @job("tests.slow")
    async def slow(call: Call, _args: NoInput) -> None:
        nonlocal runs
        runs += 1
        begun.set()
        await end.wait()

    impatient = make_url(addresses.urls["app"]).update_query_dict({"options": "-c lock_timeout=1ms"})
    urls = {**addresses.urls, "app": impatient.render_as_string(hide_password=False)}
    hurried = open_database(urls, addresses.roles, pool_size=2)
    async with open_call(database, registry, *house) as call:
        row = await call_enqueue(call, slow)
        assert row is not None
    first = asyncio.create_task(Runner(database, registry, Tasks([slow])).run(house[0], row.id))
    await begun.wait()
    second = asyncio.create_task(Runner(hurried, registry, Tasks([slow])).run(house[0], row.id))
    async with asyncio.timeout(LIMIT_S):
        while await states(database, registry, house) != [(JobState.RUNNING, 2)]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    end.set()
    assert await asyncio.gather(first, second) == [True, False]
    assert (runs, await states(database, registry, house)) == (1, [(JobState.DONE, 2)])
    await hurried.close()

"""Behind PgBouncer in transaction mode: a session's SET leaks to the next client there, and what we do does not.

One server connection per role, so that whatever one client leaves behind meets the next. In CI the pooler must be
installed; elsewhere the tests are skipped without it.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import func, make_url, select

from cast import Person
from rowhouse.app import create_app
from rowhouse.core.call import open_call
from rowhouse.core.db import Database, open_database
from rowhouse.core.jobs import Job, JobState, Tasks, call_enqueue, job
from rowhouse.core.resource import NoInput, Registry
from rowhouse.migrate import Addresses, find_addresses, role_password
from rowhouse.modules.crm.models import Account
from rowhouse.settings import Settings
from rowhouse.worker import Worker
from rows import Rows

LIMIT_S = 30
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
if PROGRAM is None and os.environ.get("CI") != "true":
    pytest.skip("pgbouncer is not installed", allow_module_level=True)

CONFIG = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 1
max_client_conn = 100
logfile = {folder}/pgbouncer.log
"""


@pytest.fixture(scope="module")
def pooled(settings: Settings, addresses: Addresses) -> Iterator[Addresses]:
    """The addresses of the roles through a pooler of our own."""
    assert PROGRAM is not None, "CI has to install pgbouncer"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host = str(addresses.admin.query["host"])
    found = find_addresses(settings.model_copy(update={"pooler_url": f"postgresql://127.0.0.1:{port}"}))
    # pytest's own folders are closed to the user the pooler runs as.
    with TemporaryDirectory(prefix="rowhouse-pgbouncer-") as name:
        folder = Path(name)
        values = {"host": host, "server_port": addresses.admin.query.get("port", 5432), "port": port, "folder": folder}
        (folder / "pgbouncer.ini").write_text(CONFIG.format(**values))
        users = [f'"{role}" "{role_password(settings, role)}"\n' for role in addresses.roles.login()]
        (folder / "users.txt").write_text("".join(users))
        command = [PROGRAM, "-q", *_as_user(folder, Path(host).stat().st_uid), str(folder / "pgbouncer.ini")]
        with subprocess.Popen(command) as pooler:
            try:
                _await_answer(found, pooler)
                yield found
            finally:
                pooler.kill()


def _as_user(folder: Path, owner: int) -> list[str]:
    """Let the server's own user run it: the socket is closed to others, and it refuses to run as root."""
    if os.geteuid() != 0:
        return []
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner, -1)
    return ["-u", pwd.getpwuid(owner).pw_name]


def _await_answer(found: Addresses, pooler: subprocess.Popen[bytes]) -> None:
    for _ in range(1000):
        assert pooler.poll() is None, "pgbouncer stopped at once"
        try:
            psycopg.connect(libpq(found.urls["app"])).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.02)
    raise AssertionError("pgbouncer does not answer")


def libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
async def database_behind(pooled: Addresses) -> AsyncIterator[Database]:
    found = open_database(pooled.urls, pooled.roles, pool_size=4, prepare=False)
    await found.check_roles()
    yield found
    await found.close()


@pytest.fixture
def app_behind(settings: Settings, database_behind: Database, registry: Registry) -> Any:
    return create_app(settings, database_behind, registry)


def client_of(app: Any, person: Person) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {person.key}"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{person.tenant.slug}.localhost", headers=headers)


def seen_without_a_tenant(pooled: Addresses) -> int:
    with psycopg.connect(libpq(pooled.urls["app"]), autocommit=True, prepare_threshold=None) as stranger:
        row = stranger.execute("SELECT count(*) FROM account").fetchone()
    assert row is not None
    return int(row[0])


def test_the_addresses_lead_through_the_pooler_and_the_direct_ones_past_it(pooled: Addresses, addresses: Addresses) -> None:
    assert make_url(pooled.urls["app"]).host == "127.0.0.1"
    assert pooled.direct == addresses.urls
    assert not pooled.may_prepare


def test_what_a_session_sets_leaks_to_the_next_client_there(pooled: Addresses, rows_a: Rows) -> None:
    """The negative control: without it, a pooler that keeps sessions apart would make the other tests pass."""
    with psycopg.connect(libpq(pooled.urls["app"]), autocommit=True, prepare_threshold=None) as careless:
        careless.execute(f"SET app.tenant_id = '{rows_a.person.tenant.id}'")
        try:
            assert seen_without_a_tenant(pooled) > 0
        finally:
            careless.execute("RESET app.tenant_id")
    assert seen_without_a_tenant(pooled) == 0


async def test_two_tenants_take_turns_on_one_connection_and_see_their_own(
    pooled: Addresses, database_behind: Database, registry: Registry, rows_a: Rows, rows_b: Rows
) -> None:
    backends, seen = set(), {"a": set(), "b": set()}
    for _ in range(5):
        for name, rows in (("a", rows_a), ("b", rows_b)):
            async with open_call(database_behind, registry, rows.person.tenant, rows.person.principal) as call:
                backends.add(await call.session.scalar(select(func.pg_backend_pid())))
                seen[name] |= set((await call.session.scalars(select(Account.id))).all())
            assert await asyncio.to_thread(seen_without_a_tenant, pooled) == 0
    assert len(backends) == 1
    assert rows_a.id_of("accounts") in map(str, seen["a"])
    assert rows_b.id_of("accounts") in map(str, seen["b"])
    assert not seen["a"] & seen["b"]


async def test_a_failed_transaction_leaves_no_tenant_behind(
    pooled: Addresses, database_behind: Database, registry: Registry, rows_a: Rows
) -> None:
    async def fail() -> None:
        async with open_call(database_behind, registry, rows_a.person.tenant, rows_a.person.principal) as call:
            assert (await call.session.scalars(select(Account.id))).all()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await asyncio.to_thread(seen_without_a_tenant, pooled) == 0


async def test_lists_of_two_tenants_at_once_hold_their_own_rows(app_behind: Any, rows_a: Rows, rows_b: Rows) -> None:
    async with client_of(app_behind, rows_a.person) as one, client_of(app_behind, rows_b.person) as two:
        # The newest stand on the first page, however many other tests have left.
        mine, theirs = [(await c.post("/api/v1/accounts", json={"name": "Newest Ltd"})).json()["id"] for c in (one, two)]
        answers = await asyncio.gather(*(client.get("/api/v1/accounts?total=true") for _ in range(20) for client in (one, two)))
    assert {answer.status_code for answer in answers} == {200}
    for row, other, own in ((mine, theirs, answers[::2]), (theirs, mine, answers[1::2])):
        for answer in own:
            ids = {item["id"] for item in answer.json()["items"]}
            assert row in ids
            assert other not in ids
            assert answer.json()["total"] == own[0].json()["total"]


async def test_everything_is_written_changed_and_read_back(app_behind: Any, owner_a: Person) -> None:
    async with client_of(app_behind, owner_a) as client:
        made = (
            await client.post("/api/v1/accounts", json={"name": "Pooled Ltd"}, headers={"idempotency-key": "pooled-1"})
        ).json()
        place = f"/api/v1/accounts/{made['id']}"
        assert (await client.patch(place, json={"name": "Pooled GmbH"})).status_code == 200
        assert (await client.get(place)).json()["name"] == "Pooled GmbH"
        assert len((await client.get(f"{place}/history")).json()["items"]) == 2
        assert "Pooled GmbH" in (await client.get("/api/v1/accounts/export")).text
        assert (await client.delete(place)).status_code in (200, 204)


async def test_the_limits_of_the_roles_hold_there_too(pooled: Addresses) -> None:
    async with await psycopg.AsyncConnection.connect(libpq(pooled.urls["app"]), autocommit=True) as connection:
        row = await (await connection.execute("SHOW statement_timeout")).fetchone()
    assert row == ("30s",)


@job("tests.pooled")
async def look(call: Any, _args: NoInput) -> None:
    assert (await call.session.scalars(select(Account.id))).all()


async def test_a_worker_listens_past_it_and_works_through_it(
    pooled: Addresses, database_behind: Database, registry: Registry, rows_a: Rows
) -> None:
    person, stop = rows_a.person, asyncio.Event()
    async with open_call(database_behind, registry, person.tenant, person.principal) as call:
        row = await call_enqueue(call, look)
        assert row is not None
    worker = asyncio.create_task(
        Worker(database_behind, registry, Tasks([look]), pooled.direct["operator"]).run(stop, poll_s=0.02)
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            state = None
            while state != JobState.DONE:
                await asyncio.sleep(0.05)
                async with open_call(database_behind, registry, person.tenant, person.principal) as call:
                    state = await call.session.scalar(select(Job.status).where(Job.id == row.id))
    finally:
        stop.set()
        await worker

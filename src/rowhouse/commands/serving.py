"""Commands that bring the program up and down."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from granian import Granian
from granian.constants import Interfaces
from sqlalchemy import NullPool, create_engine

from partywall import classify
from rowhouse.api import system
from rowhouse.app import make_app
from rowhouse.citus import Cluster, distribute, plan
from rowhouse.commands import demo, searching
from rowhouse.commands.session import console, open_program
from rowhouse.core.db import Base
from rowhouse.embedded import postgres
from rowhouse.logs import configure_logs
from rowhouse.migrate import find_addresses
from rowhouse.migrate import migrate as run_migrations
from rowhouse.settings import Settings
from rowhouse.worker import run_worker

_START_LIMIT_S = 60
_STOP_LIMIT_S = 15
# What a web process gets to end its requests in; shorter than the limit above, or its master would be killed first.
_GRACE_S = 10


def up(
    demo_data: Annotated[bool, typer.Option("--demo/--no-demo", help="Create the workspaces central, east, west.")] = True,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Web processes; default: ROWHOUSE_WEB_PROCESSES, else 1.")
    ] = None,
) -> None:
    """Bring everything up: database, schema, demo workspaces, web server, worker. Ctrl-C stops it all."""
    if workers is not None:
        os.environ["ROWHOUSE_WEB_PROCESSES"] = str(workers)
    settings = Settings()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_interrupt)
    children: dict[str, subprocess.Popen[bytes]] = {}
    with _only_one(settings):
        _up(settings, children, demo_data)
    if any(child.returncode not in (0, None, -signal.SIGTERM, -signal.SIGINT) for child in children.values()):
        raise typer.Exit(1)


def _up(settings: Settings, children: dict[str, subprocess.Popen[bytes]], demo_data: bool) -> None:
    try:
        _prepare(settings)
        made = asyncio.run(demo.ensure_demo(settings)) if demo_data else []
        asyncio.run(_fill_index())
        for name in ("serve", "worker"):
            children[name] = _child(name, settings.data_dir / f"{name}.log")
        _await_ready(settings, children["serve"])
        demo.print_welcome(settings, made)
        _watch(settings, children)
    except KeyboardInterrupt:
        console.print("\nStopping …")
    finally:
        _end(list(children.values()))
        if settings.embedded:
            postgres.stop(settings.data_dir / "pg")


async def _fill_index() -> None:
    # Workspaces from before there was an index are given theirs at the first start.
    async with open_program() as program:
        await searching.fill_empty(program)


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Hold the data directory for this program; a second one would stop the database under the first.

    Raises OSError when another program runs here, or something listens on the port.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"Rowhouse is running in {settings.data_dir} already; stop it there with Ctrl-C first") from error
        # The web server shares its port with other processes of its kind, so it would not notice.
        if _is_taken(settings):
            raise OSError(_port_taken(settings))
        yield


def _prepare(settings: Settings) -> None:
    with console.status("Starting PostgreSQL …" if settings.embedded else "Connecting …"):
        addresses = find_addresses(settings)
    with console.status("Bringing the schema up to date …"):
        run_migrations(settings, addresses)


def serve(
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Web processes; default: ROWHOUSE_WEB_PROCESSES, else 1.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port instead of ROWHOUSE_PORT.")] = None,
) -> None:
    """Serve the web application on the loopback address (or ROWHOUSE_HOST); a web process that dies is replaced."""
    settings = Settings()
    configure_logs(settings)
    find_addresses(settings)
    count = workers or settings.web_processes
    # The processes read it: each allows its part of what a workspace or a caller may send in a minute.
    os.environ["ROWHOUSE_WEB_PROCESSES"] = str(count)
    with _shared_counts(count):
        Granian(
            "rowhouse.commands.serving:web_process",
            address=settings.host,
            port=port or settings.port,
            interface=Interfaces.ASGI,
            workers=count,
            factory=True,
            respawn_failed_workers=True,
            workers_kill_timeout=_GRACE_S,
            log_level="warning",  # type: ignore[arg-type]  # the enumeration's own text
            backlog=1024,
        ).serve()


def web_process() -> Any:
    """Return the application of one web process, which ends when its master does."""
    master = multiprocessing.parent_process()
    if sys.platform == "linux":
        # At once: granian never comes back from a SIGTERM that reaches it before it serves.
        _die_with_parent(signal.SIGKILL)
    if master is not None and os.getppid() != master.pid:
        raise SystemExit("the master ended before its web process had started")
    return make_app()


@contextmanager
def _shared_counts(processes: int) -> Iterator[None]:
    """Give several web processes a folder for their counts, so that /metrics of each tells the sum."""
    os.environ.pop(system.COUNTS_FOLDER, None)
    if processes == 1:
        yield
        return
    # A fork of this process would have its threads' locks and its counters; a new one reads the folder's name first.
    multiprocessing.set_start_method("spawn", force=True)
    with TemporaryDirectory(prefix="rowhouse-counts-") as folder:
        os.environ[system.COUNTS_FOLDER] = folder
        yield


def worker() -> None:
    """Run background jobs until stopped; what was running is finished or taken up again."""
    settings = Settings()
    configure_logs(settings)

    async def work() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run_worker(settings, stop_event=stop)

    asyncio.run(work())


def stop() -> None:
    """Stop the embedded PostgreSQL. A running `rowhouse up` stops it by itself at Ctrl-C."""
    settings = Settings()
    if not settings.embedded:
        console.print("DATABASE_URL is set: that server is not ours to stop.")
        return
    postgres.stop(settings.data_dir / "pg")
    console.print("PostgreSQL is stopped; the data stays in", str(settings.data_dir))


def migrate(
    citus: Annotated[bool, typer.Option("--citus", help="Also distribute the schema over the nodes of a Citus cluster.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --citus: print its statements and run nothing.")] = False,
) -> None:
    """Create roles and bring the schema up to date."""
    settings = Settings()
    if dry_run and not citus:
        raise ValueError("--dry-run goes with --citus; without it, migrations run in one transaction each")
    if dry_run:
        addresses = find_addresses(settings)
        owner, database = addresses.owner.username or "", addresses.owner.database or ""
        for statement in plan(classify(Base.registry), Cluster(database, owner, addresses.roles)):
            print(f"{statement};")  # noqa: T201  # the output itself
        return
    _prepare(settings)
    console.print("The schema is up to date.")
    if citus:
        _distribute(settings)


def _distribute(settings: Settings) -> None:
    addresses = find_addresses(settings)
    # Rows that are there already are copied to the shards, which may take hours.
    engine = create_engine(addresses.owner, poolclass=NullPool, connect_args={"options": "-c lock_timeout=10s"})
    with console.status("Distributing the tables …"), engine.connect() as connection:
        done = distribute(connection, classify(Base.registry), addresses.roles)
    console.print(f"The tables are distributed; {len(done)} statements ran. Check every shard with: rowhouse verify")


def _as_interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _child(command: str, log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    # Its own process group, so that one Ctrl-C reaches the parent alone and the order of stopping is ours.
    with open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
        return subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-m", "rowhouse", command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # one thread at this point
        )


def _die_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    # PR_SET_PDEATHSIG: a parent ended by kill -9 cannot stop its children, so the kernel does.
    ctypes.CDLL(None).prctl(1, by)


def _await_ready(settings: Settings, server: subprocess.Popen[bytes]) -> None:
    address = f"http://{settings.host}:{settings.port}/readyz"
    deadline = time.monotonic() + _START_LIMIT_S
    with console.status("Starting the web server …"):
        while True:
            if server.poll() is not None:
                raise OSError(_why_stopped(settings))
            try:
                with urllib.request.urlopen(address, timeout=2):  # our own address
                    return
            except (urllib.error.URLError, OSError) as error:
                if time.monotonic() > deadline:
                    raise OSError(f"the web server did not answer on port {settings.port} in {_START_LIMIT_S} s") from error
                time.sleep(0.05)


def _why_stopped(settings: Settings) -> str:
    if _is_taken(settings):
        return _port_taken(settings)
    return f"the web server stopped at once; the end of {settings.data_dir / 'serve.log'} says why"


def _is_taken(settings: Settings) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((settings.host, settings.port)) == 0


def _port_taken(settings: Settings) -> str:
    return f"port {settings.port} is in use; choose another: ROWHOUSE_PORT={settings.port + 1} make up"


def _watch(settings: Settings, children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for second in count():
        for name, child in children.items():
            if child.poll() is not None:
                console.print(f"[red]{name} ended with status {child.returncode}; its log says why. Stopping the rest.[/]")
                return
        if settings.embedded and second % 3 == 0:
            # Joins the running server, or starts it again when it was killed.
            postgres.start(settings.data_dir / "pg")
        time.sleep(1)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_STOP_LIMIT_S)
        # Also what a killed child has left of its group: a web process without its master would go on serving.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

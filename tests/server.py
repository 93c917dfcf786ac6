"""The PostgreSQL of the tests: one server per checkout and major version, shared by all workers and runs."""

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

from rowhouse.embedded import postgres
from rowhouse.embedded.postgres import Server

DEBIAN = Path("/usr/lib/postgresql")
# The data is thrown away, so nothing waits for a disk.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}


def test_server() -> Server:
    """Return the running server, starting it for the first caller; it stays for the next run.

    ROWHOUSE_TEST_PG=15 takes the programs Debian installs; without it, or with 18, those of the embedded wheel.
    """
    major = os.environ.get("ROWHOUSE_TEST_PG", "18")
    checkout = hashlib.sha256(str(Path(__file__).resolve().parents[1]).encode()).hexdigest()[:8]
    place = Path(tempfile.gettempdir()) / f"rowhouse-test-{os.geteuid()}-{major}-{checkout}"
    return postgres.start(place / "pg", bin_dir=DEBIAN / major / "bin" if major != "18" else None, settings=FAST)


# Imported by test files, where pytest would take it for a test.
test_server.__test__ = False  # type: ignore[attr-defined]


def database_name(prefix: str) -> str:
    """Return a name for a database of this worker; it ends in the pid, so that leftovers can be told apart."""
    return f"{prefix}_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{os.getpid()}"


def fresh_database(server: Server, name: str) -> URL:
    """Create an empty database, in place of one of this name, and return the superuser's address of it."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        _drop_leftovers(connection, name)
        _drop(connection, name)
        # Only template0 can be copied by several workers at once.
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    return make_url(server.url(name)).set(drivername="postgresql+psycopg")


def drop_database(server: Server, name: str) -> None:
    """Drop a database and end whatever is connected to it."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        _drop(connection, name)


def _drop_leftovers(connection: psycopg.Connection, name: str) -> None:
    """Drop the databases of the same prefix whose process is gone."""
    prefix = name.split("_")[0]
    rows = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [f"{prefix}_"]).fetchall()
    for (found,) in rows:
        pid = re.search(r"_(\d+)$", found)
        if pid and not Path("/proc", pid[1]).exists() and Path("/proc/self").exists():
            _drop(connection, found)


def _drop(connection: psycopg.Connection, name: str) -> None:
    # Another worker may be dropping the same leftover.
    with contextlib.suppress(psycopg.errors.InvalidCatalogName, psycopg.errors.InternalError_):
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

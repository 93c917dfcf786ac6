"""The database server of all contenders: the product's own embedded PostgreSQL with its own settings."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from bench.places import scratch
from rowhouse.embedded import postgres
from rowhouse.embedded.postgres import Server
from rowhouse.migrate import role_password
from rowhouse.settings import Settings

# The benchmark's own secret: its databases hold nothing but made-up names.
SECRET = "the benchmark's own secret, of no use elsewhere"
_UNREACHED = "1000000000"
# Several servers at once, of two processes each, need more connections than the product's own server allows.
_ROOM = {"max_connections": "400"}
_LINE = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \S+ \[(\d+)\] (\S*)@(\S*) (\w+):  (.*)$")
_EXECUTED = re.compile(r"^(?:statement|execute [^:]*): (.*)$", re.DOTALL)
_PARAMETER = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as a client sent it: its text with $1, $2 …, and their values as text, None for NULL."""

    text: str
    values: tuple[str | None, ...]


class Cluster:
    """A running server; its databases are kept between runs."""

    def __init__(self) -> None:
        self.data_dir = scratch() / "pg"
        self.server: Server = postgres.start(self.data_dir, settings=_ROOM)

    def stop(self) -> None:
        """Stop the server; its data stays."""
        postgres.stop(self.data_dir)

    @property
    def pid(self) -> int:
        """Return the process every process of the server descends from."""
        return int((self.data_dir / "postmaster.pid").read_text().split()[0])

    def url(self, database: str) -> str:
        """Return the superuser's address of a database."""
        return self.server.url(database)

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Return a superuser's connection in autocommit."""
        return psycopg.connect(self.url(database), autocommit=True)

    def product_environment(self, database: str, port: int) -> dict[str, str]:
        """Return the settings with which Rowhouse serves a database."""
        return {
            "DATABASE_URL": self.url(database),
            "ROWHOUSE_SECRET_KEY": SECRET,
            "ROWHOUSE_PORT": str(port),
            # Counted as always, but a load test would be refused after a few seconds.
            "ROWHOUSE_TENANT_REQUESTS_PER_MINUTE": _UNREACHED,
            "ROWHOUSE_CALLER_REQUESTS_PER_MINUTE": _UNREACHED,
        }

    def settings(self, database: str) -> Settings:
        """Return the product's settings for a database."""
        return Settings(DATABASE_URL=self.url(database), secret_key=SECRET)

    def app_address(self, database: str) -> dict[str, str]:
        """Return libpq's environment for the application's own, policy-bound role."""
        settings = self.settings(database)
        role = f"{settings.role_prefix}_app"
        return self._address(database, role, role_password(settings, role))

    def superuser_address(self, database: str) -> dict[str, str]:
        """Return libpq's environment for the superuser, whom no policy holds."""
        return self._address(database, self.server.superuser, self.server.password)

    def marked(self, database: str) -> str | None:
        """Return what `mark` wrote on a database, None when there is no such database or mark."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [database]
            ).fetchone()
        return row[0] if row else None

    def mark(self, database: str, text: str) -> None:
        """Write on a database what it was made from."""
        with self.connect() as connection:
            connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(text)))

    def create(self, database: str, *, template: str = "template0", owner: str = "postgres") -> None:
        """Create a database in place of one of this name."""
        names = {"name": sql.Identifier(database), "template": sql.Identifier(template), "owner": sql.Identifier(owner)}
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {name} WITH (FORCE)").format(**names))
            connection.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template} OWNER {owner}").format(**names))

    def listen(self) -> Listening:
        """Return a context in which every statement of every client is written down."""
        return Listening(self)

    def _address(self, database: str, user: str, password: str) -> dict[str, str]:
        place = {"PGHOST": str(self.server.socket_dir), "PGPORT": str(self.server.port), "PGDATABASE": database}
        return {**place, "PGUSER": user, "PGPASSWORD": password}


class Listening:
    """Statements written to the server's log while it is open; `heard` returns them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.log = cluster.data_dir.with_name(cluster.data_dir.name + ".log")
        self._from = 0

    def __enter__(self) -> Listening:
        self._set("ALTER SYSTEM SET log_statement = 'all'")
        self.forget()
        return self

    def __exit__(self, *_: object) -> None:
        self._set("ALTER SYSTEM RESET log_statement")

    def forget(self) -> None:
        """Leave out what was heard so far."""
        self._from = self.log.stat().st_size

    def heard(self, database: str) -> list[Statement]:
        """Return the statements of one database's clients since `forget`, in order, the superuser's own left out."""
        with self.log.open(errors="replace") as file:
            file.seek(self._from)
            return list(_statements(file.read().splitlines(), database, self.cluster.server.superuser))

    def _set(self, statement: str) -> None:
        with self.cluster.connect() as connection:
            connection.execute(statement)
            connection.execute("SELECT pg_reload_conf()")
        # A running session reads its configuration anew before its next statement, once the signal has reached it.
        with self.cluster.connect() as connection:
            for _ in range(100):
                row = connection.execute("SELECT current_setting('log_statement')").fetchone()
                if row and (row[0] == "all") == ("RESET" not in statement):
                    break
                time.sleep(0.01)
        time.sleep(0.2)


def _statements(lines: Sequence[str], database: str, superuser: str) -> Sequence[Statement]:
    entries: list[tuple[str, str]] = []
    for line in lines:
        found = _LINE.match(line)
        if found:
            ours = found[3] == database and found[2] != superuser
            entries.append((found[4] if ours else "", found[5]))
        elif entries and line.startswith("\t"):
            entries[-1] = (entries[-1][0], f"{entries[-1][1]}\n{line[1:]}")
    heard: list[Statement] = []
    for level, text in entries:
        executed = _EXECUTED.match(text)
        if level == "LOG" and executed:
            heard.append(Statement(executed[1].strip(), ()))
        elif level == "DETAIL" and heard and text.lower().startswith("parameters:"):
            values = [value for _, value in _PARAMETER.findall(text)]
            heard[-1] = Statement(heard[-1].text, tuple(None if v == "NULL" else v[1:-1].replace("''", "'") for v in values))
    return heard

"""The made-up workspaces: how many, how large; loaded once by the superuser and kept until the schema changes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from uuid import UUID

from bench import load_sql
from bench.cluster import SECRET, Cluster
from bench.load_runs import Ask
from bench.places import ROOT, BenchError
from partywall import uuid7
from rowhouse.identity.tokens import keyed_hash, write_key
from rowhouse.migrate import find_addresses, migrate, migrations_folder

_VERSION = 3
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Group:
    """Workspaces of one size: `prefix00000` and so on, each with one member and one key."""

    prefix: str
    tenants: int
    accounts: int
    contacts: int = 0
    is_searched: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """A database of made-up workspaces."""

    database: str
    groups: tuple[Group, ...]

    @property
    def rows(self) -> int:
        """Return how many accounts and contacts there are."""
        return sum(group.tenants * (group.accounts + group.contacts) for group in self.groups)


@dataclass(frozen=True, slots=True)
class Caller:
    """A workspace with the member and key its requests come from."""

    slug: str
    tenant_id: UUID
    member_id: UUID

    @property
    def key(self) -> str:
        """Return the member's personal key."""
        return write_key("pk", self._digest("id").hex()[:16], self._secret)

    @property
    def key_row(self) -> tuple[str, bytes]:
        """Return the key as the database holds it: its public part and the hash of its secret."""
        return self._digest("id").hex()[:16], keyed_hash(SECRET.encode(), "key", self._secret)

    def ask(self, path: str, *, method: str = "GET", body: str = "") -> Ask:
        """Return a request of this member at the workspace's own host."""
        return Ask(path, f"{self.slug}.localhost", f"Bearer {self.key}", method, body)

    @property
    def _secret(self) -> str:
        return urlsafe_b64encode(self._digest("secret")).decode()[:43]

    def _digest(self, purpose: str) -> bytes:
        return hashlib.sha256(f"{purpose} {self.slug}".encode()).digest()


BASE = Dataset("base", (Group("t", 200, 1_000), Group("peer", 1, 0, contacts=5_000, is_searched=True)))
SEARCH = Dataset("search", (Group("s", 1, 300_000, contacts=200_000, is_searched=True), Group("t", 20, 1_000)))


def growth(tenants: int) -> Dataset:
    """Return a dataset in which one workspace holds half of all rows and the others 500 each."""
    return Dataset(f"growth_{tenants}", (Group("t", tenants - 1, 500), Group("big", 1, tenants * 500)))


def ensure(cluster: Cluster, dataset: Dataset, say: Say) -> None:
    """Load a dataset, unless an earlier run did; its schema is brought up to date when only migrations were added."""
    kept = (cluster.marked(dataset.database) or "").split()
    wanted = [_digest_of(dataset), *_digests_of_migrations()]
    if not kept or kept != wanted[: len(kept)]:
        _load(cluster, dataset, say)
    elif kept != wanted:
        say(f"bringing the schema of {dataset.database} up to date")
        _migrate(cluster, dataset)
        with cluster.connect(dataset.database) as connection:
            connection.execute("VACUUM (ANALYZE)")
    # What a run that was interrupted has left.
    remove_created(cluster, dataset.database)
    cluster.mark(dataset.database, " ".join(wanted))


def _load(cluster: Cluster, dataset: Dataset, say: Say) -> None:
    say(f"loading {dataset.rows:,} rows into {dataset.database} (kept for the next run)")
    cluster.create(dataset.database)
    _migrate(cluster, dataset)
    with cluster.connect(dataset.database) as connection:
        load_sql.begin(connection)
        for group in dataset.groups:
            load_sql.add_workspaces(connection, list(_new_callers(group)))
            load_sql.add_rows(connection, group.prefix, accounts=group.accounts, contacts=group.contacts)
        load_sql.end(connection)
    for group in dataset.groups:
        if group.is_searched:
            say(f"filling the search index of {group.prefix}: rowhouse reindex (minutes for a large workspace)")
            reindex(cluster, dataset.database, group)


def _migrate(cluster: Cluster, dataset: Dataset) -> None:
    settings = cluster.settings(dataset.database)
    migrate(settings, find_addresses(settings))


def callers(cluster: Cluster, dataset: Dataset, prefix: str = "t") -> list[Caller]:
    """Return the workspaces of a group, in the order of their slugs."""
    with cluster.connect(dataset.database) as connection:
        rows = connection.execute(
            "SELECT t.slug, t.id, m.id FROM tenant t JOIN membership m ON m.tenant_id = t.id"
            " WHERE t.slug ~ ('^' || %s || '[0-9]+$') ORDER BY t.slug",
            [prefix],
        )
        return [Caller(*row) for row in rows]


def account_ids(cluster: Cluster, dataset: Dataset, *, each: int, prefix: str = "t") -> dict[UUID, list[UUID]]:
    """Return some ids of the loaded accounts of each workspace of a group, spread over its age."""
    found: dict[UUID, list[UUID]] = {}
    with cluster.connect(dataset.database) as connection:
        for tenant_id, account_id in connection.execute(_SOME_IDS, [each, prefix]):
            found.setdefault(tenant_id, []).append(account_id)
    return found


def remove_created(cluster: Cluster, database: str) -> None:
    """Remove what a run has created, so that the next one finds the same database."""
    with cluster.connect(database) as connection:
        if load_sql.is_changed(connection):
            load_sql.remove_created(connection)


def can_search(cluster: Cluster, database: str) -> bool:
    """Return whether the schema has a search index."""
    with cluster.connect(database) as connection:
        row = connection.execute("SELECT to_regclass('search_posting') IS NOT NULL").fetchone()
    return bool(row and row[0]) and has_reindex()


@cache
def has_reindex() -> bool:
    """Return whether this version of the product has a command that fills the search index."""
    return _rowhouse({}, "reindex", "--help").returncode == 0


def reindex(cluster: Cluster, database: str, group: Group) -> None:
    """Fill the search index of a group by the product's own command.  Raises BenchError with what it said."""
    if not can_search(cluster, database):
        return
    for number in range(group.tenants):
        done = _rowhouse(cluster.product_environment(database, 1), "reindex", "--tenant", f"{group.prefix}{number:05d}")
        if done.returncode:
            raise BenchError(f"rowhouse reindex failed: {(done.stderr or done.stdout).strip()[-500:]}")
    with cluster.connect(database) as connection:
        connection.execute("VACUUM (ANALYZE)")


def _rowhouse(environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "rowhouse", *words]
    return subprocess.run(program, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, check=False)


def _new_callers(group: Group) -> Iterator[Caller]:
    for number in range(group.tenants):
        yield Caller(f"{group.prefix}{number:05d}", uuid7(), uuid7())


def _digest_of(dataset: Dataset) -> str:
    return hashlib.sha256(f"{_VERSION} {has_reindex()} {dataset!r}".encode()).hexdigest()[:16]


def _digests_of_migrations() -> list[str]:
    """Return a digest of each migration, in their order."""
    paths = sorted((migrations_folder() / "versions").glob("*.py"))
    return [f"{path.stem}:{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}" for path in paths]


_SOME_IDS = """
SELECT t.id, a.id FROM tenant t CROSS JOIN bench_loaded l CROSS JOIN LATERAL (
    SELECT id FROM (SELECT id, row_number() OVER () AS n FROM account
                    WHERE tenant_id = t.id AND uuid_extract_timestamp(id) < l.at) x
    ORDER BY hashtext(n::text) LIMIT %s) a
WHERE t.slug ~ ('^' || %s || '[0-9]+$')"""

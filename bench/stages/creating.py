"""Create with validation, audit, history and event, beside a bare INSERT of the same columns by pgbench."""

from __future__ import annotations

from bench import same_sql
from bench.cluster import Cluster, Statement
from bench.datasets import BASE, callers, remove_created
from bench.results import compared
from bench.same_sql import MOST_SCRIPTS
from bench.session import Bench, Outcome, create_asks

_NOTE = (
    "Create: POST of five fields; the product validates, derives, writes the record, its audit entry and the event, and answers"
    " the record. The bare INSERT fills the same columns of the record alone, id by uuidv7(); once as the application's role"
    " with SET LOCAL and policies in BEGIN … COMMIT, once as the superuser, whom no policy holds, without. The disk is waited"
    " for (fsync) by all alike."
)


def run(bench: Bench) -> Outcome:
    """Measure creates of accounts."""
    bench.ensure(BASE)
    found = callers(bench.cluster, BASE)
    server = bench.serve(BASE.database, found[0])
    create = bench.over_http("create", server.port, create_asks(found))
    create(1)
    chosen = found[:MOST_SCRIPTS]
    insert = bare_insert(bench.cluster, BASE.database)
    swaps = [{"<tenant>": str(c.tenant_id), "<member>": str(c.member_id)} for c in chosen]
    tenants = [str(c.tenant_id) for c in chosen]
    framed = same_sql.scripts(insert, swaps, tenants=tenants)
    alone = same_sql.scripts(insert, swaps, tenants=tenants, framed=False)
    turns = bench.turns(
        {
            "Rowhouse": create,
            "INSERT": bench.in_database(bench.cluster.app_address(BASE.database), framed),
            "INSERT, superuser": bench.in_database(bench.cluster.superuser_address(BASE.database), alone),
        }
    )
    bench.stop(server)
    remove_created(bench.cluster, BASE.database)
    rows = [
        compared(
            f"create.{key}",
            "Create with audit, history and event",
            turns.rate("Rowhouse"),
            "requests/s",
            against=against,
            other=turns.rate(name),
            ratio=turns.ratio("Rowhouse", name),
            goal=goal,
        )
        for key, name, against, goal in (
            ("pgbench", "INSERT", "pgbench, bare INSERT with policies", 0.25),
            ("pgbench_superuser", "INSERT, superuser", "pgbench, bare INSERT without policies", None),
        )
    ]
    return Outcome(rows, [_NOTE])


def bare_insert(cluster: Cluster, database: str) -> Statement:
    """Return an INSERT of all columns the newest account has values in; <tenant> and <member> stand for the caller's."""
    with cluster.connect(database) as connection:
        names = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'account'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
        ).fetchall()
        columns = ", ".join(f'"{name}"::text' for name, _ in names)
        row = connection.execute(f"SELECT {columns} FROM account ORDER BY id DESC LIMIT 1").fetchone()
        assert row is not None
    known = dict(zip([name for name, _ in names], row, strict=True))
    filled = [(name, kind) for name, kind in names if known[name] is not None]
    places = ", ".join(f"${number}::{kind}" for number, (_, kind) in enumerate(filled, 1))
    values = tuple(_stand_in(name, known) for name, _ in filled)
    return Statement(f"INSERT INTO account ({', '.join(name for name, _ in filled)}) VALUES ({places})", values)


def _stand_in(name: str, known: dict[str, str]) -> str:
    if name == "tenant_id":
        return "<tenant>"
    if name == "id":
        return "(uuidv7())"
    if name == "owner_user_id" or (name.endswith("_by_id") and known[name] == known["owner_user_id"]):
        return "<member>"
    return known[name]

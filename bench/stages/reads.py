"""List and get through the whole stack, beside pgbench with the very statement the server sends."""

from __future__ import annotations

from collections.abc import Sequence

from bench import same_sql
from bench.cluster import Statement
from bench.datasets import BASE, Caller, account_ids, callers
from bench.load_runs import Ask
from bench.results import Row, compared
from bench.rounds import Contender, Turns
from bench.rowhouse_server import RowhouseServer
from bench.same_sql import MOST_SCRIPTS, Scripts
from bench.session import Bench, Outcome, get_asks, list_asks

_PLAIN_LIST = Statement(
    "SELECT id, name, type, industry, website, phone, owner_user_id, health_score, created_at, updated_at, version"
    " FROM account WHERE tenant_id = $1::uuid AND archived_at IS NULL ORDER BY created_at DESC, id DESC LIMIT 51",
    ("<tenant>",),
)
_NOTE = (
    "{what}: `rowhouse serve --workers 2`, {tenants} workspaces chosen at random, 16 connections; pgbench -M prepared with 16"
    " clients and {scripts} of the workspaces, as the application's role with its policies, BEGIN and SET LOCAL and COMMIT"
    " around the statement taken from the server's log."
)


def run_list(bench: Bench) -> Outcome:
    """Measure the list of the newest 50 accounts, 11 columns."""
    bench.ensure(BASE)
    found = callers(bench.cluster, BASE)
    server = bench.serve(BASE.database, found[0])
    heard = _statement(bench, server, found[0].ask(list_asks(found[:1])[0].path))
    swaps = [{str(found[0].tenant_id): str(c.tenant_id), "<tenant>": str(c.tenant_id)} for c in found[:MOST_SCRIPTS]]
    turns = bench.turns(
        {
            "Rowhouse": bench.over_http("list", server.port, list_asks(found)),
            "pgbench": _pgbench(bench, heard, swaps, found),
            "pgbench, pipelined": _pgbench(bench, heard, swaps, found, pipelined=True),
            "pgbench, plain columns": _pgbench(bench, _PLAIN_LIST, swaps, found),
        }
    )
    bench.stop(server)
    return Outcome(_rows("list", "List 50 through the whole stack", turns, goal=0.5), [_note("List", found)])


def run_get(bench: Bench) -> Outcome:
    """Measure the get of one account by its id."""
    bench.ensure(BASE)
    found = callers(bench.cluster, BASE)
    ids = account_ids(bench.cluster, BASE, each=1)
    first = ids[found[0].tenant_id][0]
    server = bench.serve(BASE.database, found[0])
    heard = _statement(bench, server, found[0].ask(f"/api/v1/accounts/{first}"))
    swaps = [{str(found[0].tenant_id): str(c.tenant_id), str(first): str(ids[c.tenant_id][0])} for c in found[:MOST_SCRIPTS]]
    turns = bench.turns(
        {
            "Rowhouse": bench.over_http("get", server.port, get_asks(bench, BASE, found)),
            "pgbench": _pgbench(bench, heard, swaps, found),
            "pgbench, pipelined": _pgbench(bench, heard, swaps, found, pipelined=True),
        }
    )
    bench.stop(server)
    return Outcome(_rows("get", "Get one record through the whole stack", turns, goal=0.4), [_note("Get", found)])


def _statement(bench: Bench, server: RowhouseServer, ask: Ask) -> Statement:
    heard = same_sql.listen(bench.cluster, BASE.database, server.port, ask)
    return same_sql.only(heard.warm, "account")


def _pgbench(
    bench: Bench, statement: Statement, swaps: Sequence[dict[str, str]], found: Sequence[Caller], *, pipelined: bool = False
) -> Contender:
    tenants = [str(caller.tenant_id) for caller in found[: len(swaps)]]
    made: Scripts = same_sql.scripts(statement, swaps, tenants=tenants, pipelined=pipelined)
    return bench.in_database(bench.cluster.app_address(BASE.database), made)


def _rows(name: str, what: str, turns: Turns, *, goal: float) -> list[Row]:
    rows = []
    for other, against in (
        ("pgbench", "pgbench, same SQL"),
        ("pgbench, pipelined", "pgbench, same SQL in one pipeline"),
        ("pgbench, plain columns", "pgbench, plain columns in place of JSON"),
    ):
        if other in turns.runs:
            ratio = turns.ratio("Rowhouse", other)
            key = f"{name}.{other.replace('pgbench, ', 'pgbench_').replace(' ', '_')}"
            rows.append(
                compared(
                    key,
                    what,
                    turns.rate("Rowhouse"),
                    "requests/s",
                    against=against,
                    other=turns.rate(other),
                    ratio=ratio,
                    goal=goal if other == "pgbench" else None,
                )
            )
    return rows


def _note(what: str, found: Sequence[Caller]) -> str:
    return _NOTE.format(what=what, tenants=len(found), scripts=min(len(found), MOST_SCRIPTS))

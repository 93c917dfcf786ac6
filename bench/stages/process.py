"""Memory of a web process, time from its start to its first answer, statements of each request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from uuid import UUID

from bench import same_sql
from bench.datasets import BASE, Caller, account_ids, callers, remove_created
from bench.load_runs import Ask, is_answered
from bench.results import Row, plain
from bench.session import Bench, Outcome, create_asks, get_asks, list_asks

_STARTS = 5
Ids = Mapping[UUID, Sequence[UUID]]
_NOTES = [
    "Memory: of each of two web processes after a mix of lists, gets and creates over 200 workspaces; resident counts shared"
    " pages in full, proportional counts each by its share. The largest process is given.",
    "Start: from the start of `rowhouse serve`, its database running, to the first answered list; the median of five.",
    "Statements: counted in the database's log, what frames a transaction (BEGIN, SET LOCAL, COMMIT) left out; for a caller the"
    " server remembers, and for one it has to look up.",
]


def run(bench: Bench) -> Outcome:
    """Measure memory, start and statements."""
    bench.ensure(BASE)
    found = callers(bench.cluster, BASE)
    rows = [_start(bench, found[0])]
    rows += _memory(bench, found)
    rows += _statements(bench, found)
    bench.processes.end_all()
    remove_created(bench.cluster, BASE.database)
    return Outcome(rows, _NOTES)


def _start(bench: Bench, caller: Caller) -> Row:
    found: list[float] = []
    for _ in range(min(_STARTS, 2 * bench.rounds)):
        server = bench.serve(BASE.database, caller, workers=1)
        bench.stop(server)
        found.append(server.start_s)
    return plain("start", "From start to the first answer", median(found), "s", goal=2)


def _memory(bench: Bench, found: Sequence[Caller]) -> list[Row]:
    server = bench.serve(BASE.database, found[0])
    for name, asks in (
        ("list", list_asks(found)),
        ("get", get_asks(bench, BASE, found)),
        ("create", create_asks(found)),
    ):
        bench.over_http(name, server.port, asks)(2 * bench.seconds)
    sizes = server.memory_mb()
    bench.stop(server)
    return [
        plain("memory.resident", "Memory of a web process, resident", sizes[0][0], "MB", goal=150),
        plain("memory.proportional", "Memory of a web process, proportional", max(share for _, share in sizes), "MB"),
    ]


def _statements(bench: Bench, found: Sequence[Caller]) -> list[Row]:
    # One process, and for each kind a caller it has not seen.
    server = bench.serve(BASE.database, found[0], workers=1)
    ids = account_ids(bench.cluster, BASE, each=1)
    rows: list[Row] = []
    for caller, (verb, make) in zip(found[1:], _KINDS.items(), strict=False):
        if verb == "search" and not is_answered(server.port, make(found[0], ids)):
            continue
        heard = same_sql.listen(bench.cluster, BASE.database, server.port, make(caller, ids))
        warm, cold = same_sql.counted(heard.warm), same_sql.counted(heard.cold)
        rows.append(plain(f"statements.{verb}", f"Statements of a {verb}, caller remembered", warm, "statements"))
        rows.append(plain(f"statements.{verb}.cold", f"Statements of a {verb}, caller looked up", cold, "statements"))
    bench.stop(server)
    return rows


def _path(caller: Caller, ids: Ids) -> str:
    return f"/api/v1/accounts/{ids[caller.tenant_id][0]}"


_KINDS: dict[str, Callable[[Caller, Ids], Ask]] = {
    "list": lambda caller, ids: list_asks([caller])[0],
    "get": lambda caller, ids: caller.ask(_path(caller, ids)),
    "create": lambda caller, ids: create_asks([caller])[0],
    "update": lambda caller, ids: caller.ask(_path(caller, ids), method="PATCH", body='{"industry": "Bench @N"}'),
    "search": lambda caller, ids: caller.ask("/api/v1/search?q=bench"),
}

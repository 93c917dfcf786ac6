"""What isolation costs: the same server with and without guard, SET LOCAL and policies, side by side."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from bench import same_sql, without_isolation
from bench.datasets import BASE, Caller, callers, remove_created
from bench.load_runs import Run
from bench.places import BenchError
from bench.processes import cpu_s
from bench.results import Row, compared
from bench.rounds import Contender, Turns
from bench.rowhouse_server import RowhouseServer
from bench.session import Bench, Outcome, create_asks, get_asks, list_asks

_WITH, _WITHOUT = "isolated", "open"
_NOTE = (
    "Processor time: of the web processes and the database together, for each request; it is steadier than the rate, which the"
    " load generator and everything else on the machine share."
)


def run(bench: Bench) -> Outcome:
    """Measure list, get and create with and without."""
    bench.ensure(BASE)
    found = callers(bench.cluster, BASE)
    copy = without_isolation.open_copy(bench.cluster, BASE)
    isolated = bench.serve(BASE.database, found[0])
    opened = bench.serve(copy, found[0], module="bench.without_isolation")
    _check(bench, BASE.database, isolated, found[0], is_set=True)
    _check(bench, copy, opened, found[0], is_set=False)
    mixes = {"list": list_asks(found), "get": get_asks(bench, BASE, found), "create": create_asks(found)}
    rows: list[Row] = []
    for verb, asks in mixes.items():
        contenders = {
            _WITH: _counted(bench, isolated, bench.over_http(f"{verb}-with", isolated.port, asks)),
            _WITHOUT: _counted(bench, opened, bench.over_http(f"{verb}-without", opened.port, asks)),
        }
        # A few per cent are looked for, so there are more and shorter turns.
        rows += _rows(verb, bench.turns(contenders, rounds=2 * bench.rounds, seconds=max(1.0, bench.seconds / 1.5)))
    bench.processes.end_all()
    remove_created(bench.cluster, BASE.database)
    remove_created(bench.cluster, copy)
    return Outcome(rows, [without_isolation.OFF, _NOTE])


def _check(bench: Bench, database: str, server: RowhouseServer, caller: Caller, *, is_set: bool) -> None:
    """Raise BenchError unless a server sets the tenant in its transactions, or does not, as it should."""
    for ask in (list_asks([caller])[0], create_asks([caller])[0]):
        heard = same_sql.listen(bench.cluster, database, server.port, ask).warm
        if any(statement.text.upper().startswith("SET LOCAL APP.") for statement in heard) is not is_set:
            raise BenchError(f"{database} {'does not set' if is_set else 'sets'} the tenant; adapt bench/without_isolation.py")


def _counted(bench: Bench, server: RowhouseServer, contender: Contender) -> Contender:
    """Return a contender that also says how much processor time of server and database each request took."""

    def run(seconds: float) -> Run:
        before = cpu_s(server.child.pid) + cpu_s(bench.cluster.pid)
        found = contender(seconds)
        used = cpu_s(server.child.pid) + cpu_s(bench.cluster.pid) - before
        return replace(found, cpu_ms=used * 1000 / (found.per_second * seconds))

    return run


def _rows(verb: str, turns: Turns) -> list[Row]:
    against = "the same server without guard, SET LOCAL and policies"
    cpu = {name: median(run.cpu_ms for run in turns.runs[name]) for name in (_WITH, _WITHOUT)}
    kept = compared(
        f"isolation.{verb}",
        f"Throughput kept with isolation: {verb}",
        turns.rate(_WITH),
        "requests/s",
        against=against,
        other=turns.rate(_WITHOUT),
        ratio=turns.ratio(_WITH, _WITHOUT),
        goal=0.95,
    )
    time = compared(
        f"isolation.{verb}.cpu",
        f"Processor time with isolation: {verb}",
        cpu[_WITH],
        "ms",
        against=against,
        other=cpu[_WITHOUT],
        ratio=turns.ratio(_WITH, _WITHOUT, lambda run: run.cpu_ms),
    )
    return [kept, time]

"""From 10 to 10,000 workspaces, one of which holds half of all rows: latency at the same modest load."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.datasets import Caller, Dataset, callers, growth, remove_created
from bench.load_runs import Ask
from bench.places import BenchError
from bench.results import Row, compared
from bench.rounds import Ratio, Turns
from bench.rowhouse_server import RowhouseServer
from bench.session import Bench, Outcome, create_asks, get_asks, list_asks

SIZES = (10, 100, 1_000, 10_000)
# A part of what the slower of the smallest and the largest can do, so that nothing queues at any size.
_LOAD = 0.25
_NOTE = (
    "Growth: 10, 100, 1,000 and 10,000 workspaces of 500 accounts, one of which holds half of all rows: 10 thousand to 10"
    " million. Each size is a database of its own with its own two web processes, all running at once; they take turns at the"
    " same load, a quarter of what the slower of the smallest and the largest reached just before. Workspaces are chosen at"
    " random, so that at 10,000 nearly every request looks its caller up anew; nine of the small ones and the"
    " large one are asked apart, as workspaces whose callers the server remembers."
)
Asks = Callable[[Bench, Dataset], list[Ask]]


def run(bench: Bench) -> Outcome:
    """Measure each size beside the smallest."""
    sets = [growth(size) for size in SIZES]
    for dataset in sets:
        bench.ensure(dataset)
    servers = {size: _serve(bench, dataset) for size, dataset in zip(SIZES, sets, strict=True)}
    rows: list[Row] = []
    notes = [_NOTE]
    for verb, make in _MIXES.items():
        sizes = SIZES if make in _AT_EVERY_SIZE else (SIZES[0], SIZES[-1])
        mixes = {size: make(bench, dataset) for size, dataset in zip(SIZES, sets, strict=True) if size in sizes}
        try:
            rows += _measure(bench, verb, mixes, {size: servers[size].port for size in sizes})
        except BenchError as error:
            bench.say(f"{verb}: {error}")
            notes.append(f"**No figure for {verb}:** {error}.")
    bench.processes.end_all()
    for dataset in sets:
        remove_created(bench.cluster, dataset.database)
    return Outcome(rows, notes)


def _serve(bench: Bench, dataset: Dataset) -> RowhouseServer:
    return bench.serve(dataset.database, callers(bench.cluster, dataset)[0])


def _measure(bench: Bench, verb: str, mixes: dict[int, list[Ask]], ports: dict[int, int]) -> list[Row]:
    """Return the rows of one kind of request at several sizes; servers take turns at one load."""
    ends = (SIZES[0], SIZES[-1])
    most = {size: bench.capacity(bench.over_http("most", ports[size], mixes[size])).per_second for size in ends}
    per_second = _LOAD * min(most.values())
    contenders = {
        _name(verb, size): bench.paced(f"{size}", ports[size], asks, per_second=per_second) for size, asks in mixes.items()
    }
    turns = bench.turns(contenders, seconds=max(1.0, bench.seconds - 1))
    return [_most(verb, most), *_rows(verb, turns, list(mixes), per_second)]


def _most(verb: str, most: dict[int, float]) -> Row:
    kept = most[SIZES[-1]] / most[SIZES[0]]
    return compared(
        f"growth_most.{verb}".replace(" ", "_"),
        f"At most: {verb} at {SIZES[-1]:,} workspaces",
        most[SIZES[-1]],
        "requests/s",
        against="10 workspaces, once each",
        other=most[SIZES[0]],
        ratio=Ratio(kept, kept, kept),
    )


def _rows(verb: str, turns: Turns, sizes: Sequence[int], per_second: float) -> list[Row]:
    rows = []
    for size in sizes:
        ratio = turns.ratio(_name(verb, size), _name(verb, SIZES[0]), lambda run: run.p95_ms)
        rows.append(
            compared(
                f"growth.{verb}.{size}".replace(" ", "_"),
                f"95th percentile of {verb} at {size:,} workspaces and {2 * size * 500:,} rows, {per_second:.0f} requests/s",
                turns.p95(_name(verb, size)),
                "ms",
                against="10 workspaces",
                other=turns.p95(_name(verb, SIZES[0])),
                ratio=ratio,
                goal=1.2 if size == SIZES[-1] else None,
                direction="most",
            )
        )
    return rows


def _name(verb: str, size: int) -> str:
    return f"{verb}, {size:,} workspaces"


def _lists(bench: Bench, dataset: Dataset) -> list[Ask]:
    return list_asks(_small(bench, dataset))


def _few_lists(bench: Bench, dataset: Dataset) -> list[Ask]:
    return list_asks(_small(bench, dataset)[:9])


def _gets(bench: Bench, dataset: Dataset) -> list[Ask]:
    return get_asks(bench, dataset, _small(bench, dataset), each=3)


def _creates(bench: Bench, dataset: Dataset) -> list[Ask]:
    return create_asks(_small(bench, dataset))


def _large_lists(bench: Bench, dataset: Dataset) -> list[Ask]:
    return list_asks(callers(bench.cluster, dataset, "big"))


def _large_gets(bench: Bench, dataset: Dataset) -> list[Ask]:
    return get_asks(bench, dataset, callers(bench.cluster, dataset, "big"), each=2_000, prefix="big")


def _small(bench: Bench, dataset: Dataset) -> list[Caller]:
    return callers(bench.cluster, dataset)


_MIXES: dict[str, Asks] = {
    "list": _lists,
    "list by nine": _few_lists,
    "get": _gets,
    "create": _creates,
    "list in the large one": _large_lists,
    "get in the large one": _large_gets,
}
_AT_EVERY_SIZE = (_lists, _gets, _creates)

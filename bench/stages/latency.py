"""Latency at half of what the server can do, with requests that come at random moments."""

from __future__ import annotations

from bench.datasets import BASE, callers, remove_created
from bench.results import Row, plain
from bench.session import Bench, Outcome, create_asks, get_asks, list_asks

_NOTE = (
    "Latency: wrk with 64 connections, each pausing for an exponential time after an answer, so that requests come at random"
    " moments at about half of the rate that 16 connections reached without pauses just before; the rate that came of it is"
    " given with each figure."
)


def run(bench: Bench) -> Outcome:
    """Measure the percentiles of list, get and create."""
    bench.ensure(BASE)
    found = callers(bench.cluster, BASE)
    server = bench.serve(BASE.database, found[0])
    mixes = {"list": list_asks(found), "get": get_asks(bench, BASE, found), "create": create_asks(found)}
    rows: list[Row] = []
    for verb, asks in mixes.items():
        most = bench.capacity(bench.over_http(verb, server.port, asks)).per_second
        paced = bench.paced(verb, server.port, asks, per_second=most / 2, connections=64)
        turns = bench.turns({f"{verb} at half load": paced}, seconds=3 * bench.seconds, rounds=1)
        name = f"{verb} at half load"
        at = f"{verb.title()} at {turns.rate(name):,.0f} requests/s of at most {most:,.0f}"
        for percentile, value in (("50th", turns.p50(name)), ("95th", turns.p95(name)), ("99th", turns.p99(name))):
            rows.append(plain(f"latency.{verb}.{percentile}", f"{at}, {percentile} percentile", value, "ms"))
    bench.processes.end_all()
    remove_created(bench.cluster, BASE.database)
    return Outcome(rows, [_NOTE])

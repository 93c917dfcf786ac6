"""One workspace floods the server; what happens to another's latency."""

from __future__ import annotations

from bench.datasets import BASE, Caller, callers
from bench.load_runs import Run, finish_wrk, start_wrk, write_asks
from bench.results import compared, plain
from bench.rounds import Contender
from bench.rowhouse_server import RowhouseServer
from bench.session import Bench, Outcome, list_asks

_NOTE = (
    "Fairness: workspace A asks for lists on 64 connections as fast as it is answered, workspace B on 8 connections about 40"
    " times a second at random moments; B's percentiles with and without the flood, in turns. The limits per minute are set out"
    " of reach, so that only the shares of the server are at work."
)
_PER_SECOND = 40.0


def run(bench: Bench) -> Outcome:
    """Measure another workspace's 95th percentile with and without a flood."""
    bench.ensure(BASE)
    found = callers(bench.cluster, BASE)
    server = bench.serve(BASE.database, found[0])
    calm = bench.paced("calm", server.port, list_asks(found[1:2]), per_second=_PER_SECOND, connections=8)
    flooded = _flooded(bench, server, found[0], calm)
    turns = bench.turns({"calm": calm, "flooded": flooded}, seconds=2 * bench.seconds)
    ratio = turns.ratio("flooded", "calm", lambda run: run.p95_ms)
    row = compared(
        "fairness.p95",
        "95th percentile of a workspace while another floods",
        turns.p95("flooded"),
        "ms",
        against="the same without the flood",
        other=turns.p95("calm"),
        ratio=ratio,
        goal=1.5,
        direction="most",
    )
    kept = plain("fairness.median", "Median of a workspace while another floods", turns.p50("flooded"), "ms")
    return Outcome([row, kept], [_NOTE])


def _flooded(bench: Bench, server: RowhouseServer, flooder: Caller, calm: Contender) -> Contender:
    flood = write_asks(bench.folder, "flood", list_asks([flooder]))

    def run_both(seconds: float) -> Run:
        running = start_wrk(server.port, flood, seconds=seconds + 1, connections=64)
        try:
            return calm(seconds)
        finally:
            finish_wrk(running, may_refuse=True)

    return run_both

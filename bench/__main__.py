"""`python -m bench [stage …]`: run the stages, write results.json, then the page made from it."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from bench import page
from bench.cluster import Cluster
from bench.places import PAGE, RESULTS, BenchError, check_tools, scratch
from bench.processes import Processes
from bench.results import save_stage
from bench.session import Bench, Outcome
from bench.stages import bottlecrm, creating, fairness, growth, isolation, latency, orm, process, reads, searching

Stage = Callable[[Bench], Outcome]
STAGES: dict[str, Stage] = {
    "list": reads.run_list,
    "get": reads.run_get,
    "create": creating.run,
    "orm": orm.run,
    "isolation": isolation.run,
    "latency": latency.run,
    "process": process.run,
    "bottlecrm": bottlecrm.run,
    "search": searching.run,
    "fairness": fairness.run,
    "growth": growth.run,
}
# Rounds and seconds of each turn.
_LENGTHS = {"short": (1, 1.0), "default": (3, 3.0), "full": (7, 6.0)}


def main() -> int:
    """Run what the command line names and return the exit status."""
    chosen = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 140)
    if chosen.page:
        page.write(PAGE, RESULTS)
        return 0
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        check_tools()
        _run(chosen, console)
    except BenchError as error:
        console.print(f"bench: {error}", style="red", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped; the stages that ended are kept")
        return 130
    return 0


def _run(chosen: Any, console: Console) -> None:
    # A short run tries the harness; its figures say little, so they do not reach the page.
    results = scratch() / "short.json" if chosen.length == "short" else RESULTS
    rounds, seconds = _LENGTHS[chosen.length]
    with _only_one():
        processes, cluster = Processes(), Cluster()
        try:
            with tempfile.TemporaryDirectory(prefix="rowhouse-bench-") as folder:
                bench = Bench(cluster, processes, Path(folder), console, rounds, seconds)
                failed = [name for name in chosen.stages or STAGES if not _run_stage(bench, name, results)]
        finally:
            processes.end_all()
            cluster.stop()
            if results == RESULTS:
                page.write(PAGE, RESULTS)
    if failed:
        raise BenchError(f"these stages failed: {', '.join(failed)}; the reasons stand above, earlier figures are kept")


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the scratch folder; a second benchmark would disturb the figures and stop the database of the first."""
    with (scratch() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BenchError("another benchmark is running; wait for it, or end it with Ctrl-C") from error
        yield


def _run_stage(bench: Bench, name: str, results: Path) -> bool:
    """Run a stage and keep its rows; a stage that cannot run is reported, and the next one goes on."""
    bench.console.print(f"[bold]{name}[/]")
    started, load = time.monotonic(), os.getloadavg()[0]
    try:
        outcome = STAGES[name](bench)
    except (BenchError, subprocess.CalledProcessError, psycopg.Error, OSError) as error:
        bench.console.print(f"  {name} failed: {error}", style="red", highlight=False)
        return False
    finally:
        # A stage that failed must not slow down the next run.
        bench.processes.end_all()
    save_stage(name, outcome.rows, notes=outcome.notes, load_before=load, path=results)
    for row in outcome.rows:
        bench.say(page.line(row))
    bench.say(f"{time.monotonic() - started:.0f} s")
    return True


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Rowhouse beside others on this machine.")
    parser.add_argument("stages", nargs="*", help=f"what to run, all by default: {', '.join(STAGES)}")
    parser.add_argument("--full", dest="length", action="store_const", const="full", help="longer turns, more rounds")
    parser.add_argument("--short", dest="length", action="store_const", const="short", help="try the harness; writes no page")
    parser.add_argument("--page", action="store_true", help="only make the page and its plots from results.json")
    parser.set_defaults(length="default")
    chosen = parser.parse_args()
    # "list,get" and "list get" mean the same.
    chosen.stages = [name for text in chosen.stages for name in text.split(",") if name]
    unknown = [name for name in chosen.stages if name not in STAGES]
    if unknown:
        parser.error(f"there is no stage {unknown[0]}; there are: {', '.join(STAGES)}")
    return chosen


def _as_interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

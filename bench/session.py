"""What every stage works with: the database server, the programs it starts, how long it may take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from bench import datasets, rowhouse_server
from bench.cluster import Cluster
from bench.datasets import Caller, Dataset
from bench.load_runs import Ask, Run, run_pgbench, run_wrk, write_asks
from bench.processes import Processes
from bench.results import Row
from bench.rounds import Contender, Turns, take_turns
from bench.rowhouse_server import LIST, RowhouseServer
from bench.same_sql import Scripts

CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage found. notes: sentences for the page, about what exactly was compared."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the benchmark. seconds: length of each turn of a contender; rounds: turns of each."""

    cluster: Cluster
    processes: Processes
    folder: Path
    console: Console
    rounds: int
    seconds: float

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self.console.print(f"  {text}", highlight=False)

    def ensure(self, dataset: Dataset) -> None:
        """Load a dataset if it is not there."""
        datasets.ensure(self.cluster, dataset, self.say)

    def serve(
        self, database: str, caller: Caller, *, workers: int = 2, module: str = "rowhouse", path: str = LIST
    ) -> RowhouseServer:
        """Start a server on a database; it is ready when it has answered a list of this caller."""
        return rowhouse_server.start(self.processes, self.cluster, database, caller.ask(path), workers=workers, module=module)

    def stop(self, server: RowhouseServer) -> None:
        """Stop a server."""
        self.processes.end(server.child)

    def over_http(self, name: str, port: int, asks: Sequence[Ask], *, connections: int = CONNECTIONS) -> Contender:
        """Return a contender that sends a mix of requests, each connection asking again at once."""
        path = write_asks(self.folder, name, asks)
        return lambda seconds: run_wrk(port, path, seconds=seconds, connections=connections)

    def paced(self, name: str, port: int, asks: Sequence[Ask], *, per_second: float, connections: int = 32) -> Contender:
        """Return a contender that sends about so many requests per second, at random moments."""
        path = write_asks(self.folder, name, asks)
        pause_ms = max(1.0, connections / per_second * 1000)
        return lambda seconds: run_wrk(port, path, seconds=seconds, connections=connections, pause_ms=pause_ms)

    def in_database(self, address: Mapping[str, str], found: Scripts) -> Contender:
        """Return a contender that runs scripts by pgbench."""
        return lambda seconds: run_pgbench(address, found.texts, found.variables, seconds=seconds, clients=CONNECTIONS)

    def turns(
        self,
        contenders: Mapping[str, Contender],
        *,
        seconds: float | None = None,
        rounds: int | None = None,
        warm_s: float = 1.0,
    ) -> Turns:
        """Let contenders run in turn and say how fast each was."""
        found = take_turns(contenders, rounds=rounds or self.rounds, seconds=seconds or self.seconds, warm_s=warm_s)
        for name in contenders:
            times = f", median {found.p50(name):.1f} ms, 95th {found.p95(name):.1f} ms" if found.p95(name) else ""
            self.say(f"{name}: {found.rate(name):,.0f}/s{times}")
        return found

    def capacity(self, contender: Contender) -> Run:
        """Return what a contender reaches at most, after warming up."""
        contender(1)
        return contender(min(3, self.seconds))


def list_asks(callers: Sequence[Caller]) -> list[Ask]:
    """Return a list of the newest 50 accounts for each caller."""
    return [caller.ask(LIST) for caller in callers]


def get_asks(bench: Bench, dataset: Dataset, callers: Sequence[Caller], *, each: int = 20, prefix: str = "t") -> list[Ask]:
    """Return gets of some accounts of each caller."""
    ids = datasets.account_ids(bench.cluster, dataset, each=each, prefix=prefix)
    return [caller.ask(f"/api/v1/accounts/{found}") for caller in callers for found in ids[caller.tenant_id]]


def create_asks(callers: Sequence[Caller]) -> list[Ask]:
    """Return a create of an account for each caller, with a name used once."""
    body = {
        "name": "Bench @N",
        "type": "PROSPECT",
        "industry": "Software",
        "website": "https://www.bench@N.example",
        "phone": "+49 30 @N",
    }
    return [caller.ask("/api/v1/accounts", method="POST", body=json.dumps(body)) for caller in callers]

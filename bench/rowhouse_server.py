"""A running Rowhouse: its web processes on one database, as `rowhouse serve` starts them."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from bench.cluster import Cluster
from bench.load_runs import Ask
from bench.places import free_port
from bench.processes import Processes, await_answer, family, memory_mb

LIST = (
    "/api/v1/accounts?limit=50&fields=id,name,type,industry,website,phone,owner_user_id,health_score,"
    "created_at,updated_at,version"
)


@dataclass(frozen=True, slots=True)
class RowhouseServer:
    """Where it listens, and how long it took from its start to its first answer."""

    port: int
    child: subprocess.Popen[bytes]
    start_s: float

    def memory_mb(self) -> list[tuple[float, float]]:
        """Return (resident, proportional) memory of each web process, the largest first; their parent is left out."""
        children = [pid for pid in family(self.child.pid)[1:] if "resource_tracker" not in _command(pid)]
        return sorted((memory_mb(pid) for pid in children), reverse=True)


def start(
    processes: Processes,
    cluster: Cluster,
    database: str,
    first: Ask,
    *,
    workers: int = 2,
    module: str = "rowhouse",
) -> RowhouseServer:
    """Start web processes on a database and return when they have answered a request.

    module: "rowhouse", or one of the benchmark's own builds, run with the same arguments.
    """
    port = free_port()
    name = f"{module}-{database}"
    started = time.monotonic()
    child = processes.start(
        name,
        [sys.executable, "-m", module, "serve", "--workers", str(workers), "--port", str(port)],
        cluster.product_environment(database, port),
    )
    headers = {"Host": first.host, "Authorization": first.authorization}
    answered = await_answer(f"http://127.0.0.1:{port}{first.path}", headers, child, name)
    return RowhouseServer(port, child, answered - started)


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()

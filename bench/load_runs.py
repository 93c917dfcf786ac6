"""One run of load: wrk against a server, or pgbench against the database, and what came of it."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.places import LUA, BenchError, pgbench, wrk

_RESULT = "RESULT "


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a mix; "@N" in path or body becomes a number used once."""

    path: str
    host: str = "localhost"
    authorization: str = ""
    method: str = "GET"
    body: str = ""

    def line(self) -> str:
        """Return the request as a line of load.lua's file."""
        return "\t".join((self.method, self.path, self.host, self.authorization, self.body))


def is_answered(port: int, ask: Ask) -> bool:
    """Return whether a server answers a request at all, with other than a refusal."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{ask.path}")
    request.add_header("Host", ask.host)
    request.add_header("Authorization", ask.authorization)
    try:
        with urllib.request.urlopen(request, timeout=30):
            return True
    except urllib.error.HTTPError:
        return False


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did: requests (or transactions) per second, and latencies in ms.

    refused: answers of 400 and above.  cpu_ms: processor time of the server and the database for each, where measured.
    """

    per_second: float
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    refused: int = 0
    bytes_each: float = 0.0
    cpu_ms: float = 0.0


def write_asks(folder: Path, name: str, asks: Iterable[Ask]) -> Path:
    """Write a mix of requests to a file for wrk and return its path."""
    path = folder / f"{name}.tsv"
    path.write_text("\n".join(ask.line() for ask in asks) + "\n")
    return path


def run_wrk(
    port: int, asks: Path, *, seconds: float, connections: int = 16, pause_ms: float = 0.0, may_refuse: bool = False
) -> Run:
    """Send a mix for some seconds and return what came of it.

    pause_ms: mean pause of each connection after an answer, of exponential length; 0 asks again at once.
    Raises BenchError when an answer was an error, unless refusals are expected.
    """
    started = start_wrk(port, asks, seconds=seconds, connections=connections, pause_ms=pause_ms)
    return finish_wrk(started, may_refuse=may_refuse)


def start_wrk(port: int, asks: Path, *, seconds: float, connections: int = 16, pause_ms: float = 0.0) -> subprocess.Popen[str]:
    """Start sending a mix and return the running wrk, for `finish_wrk`."""
    seed = random.randrange(1, 900_000)
    arguments = [wrk(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(LUA)]
    arguments += [f"http://127.0.0.1:{port}/", str(asks), str(pause_ms), str(seed)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish_wrk(started: subprocess.Popen[str], *, may_refuse: bool = False) -> Run:
    """Wait for a running wrk and return what came of it."""
    output, _ = started.communicate()
    if _RESULT not in output:
        raise BenchError(f"wrk failed: {output.strip()[-500:]}")
    found = json.loads(output.rpartition(_RESULT)[2].splitlines()[0])
    answered = found["requests"]
    if not answered:
        raise BenchError("not one answer came in a whole turn; a single one takes longer")
    if found["broken"] or (found["refused"] and not may_refuse):
        raise BenchError(f"of {answered} answers {found['refused']} were refusals, {found['broken']} connections broke")
    return Run(
        per_second=answered / (found["duration_us"] / 1e6),
        p50_ms=found["p50"] / 1000,
        p95_ms=found["p95"] / 1000,
        p99_ms=found["p99"] / 1000,
        refused=found["refused"],
        bytes_each=found["bytes"] / answered,
    )


def run_pgbench(
    address: Mapping[str, str],
    scripts: Sequence[str],
    variables: Mapping[str, str],
    *,
    seconds: float,
    clients: int = 16,
) -> Run:
    """Run transactions chosen at random from scripts, statements prepared, and return what came of it.

    address: libpq's environment (PGHOST, PGUSER …).  scripts: at most 128.  variables: bound as parameters.
    """
    with tempfile.TemporaryDirectory(prefix="rowhouse-bench-") as folder:
        files: list[str] = []
        for number, script in enumerate(scripts):
            path = Path(folder, f"{number}.sql")
            path.write_text(script)
            files += ["-f", str(path)]
        arguments = [pgbench(), "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(max(1, round(seconds)))]
        for name, value in variables.items():
            arguments += ["-D", f"{name}={value}"]
        done = subprocess.run([*arguments, *files], env=dict(address), capture_output=True, text=True, check=False)
    rates = [line for line in done.stdout.splitlines() if line.startswith("tps = ")]
    if done.returncode or not rates or "number of failed transactions: 0" not in done.stdout:
        raise BenchError(f"pgbench failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return Run(per_second=float(rates[0].split()[2]))

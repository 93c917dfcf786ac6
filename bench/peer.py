"""BottleCRM, installed from its wheel outside the tree: its packages, broker, database, web server.

It runs as its makers describe: own virtual environment, its owner role bound by its own policies, DEBUG off, two gunicorn
workers, on the same database server with the same settings as ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cluster import Cluster
from bench.datasets import BASE
from bench.places import BenchError, free_port, scratch
from bench.processes import Processes, await_answer

VERSION = "1.35.0"
_MARK = f"bottlecrm {VERSION}"
_EMAIL, _ORGANISATION = "you@example.com", "MicroPyramid"
_TEMPLATE, _DATABASE = "bottlecrm", "bottlecrm_run"
_ROLE, _PASSWORD = "crm_user", "crm"
_PACKAGES = ("redis-server", "redis-tools", "liblzf1", "libjemalloc2")
_PYTHON_MISSING = (
    "BottleCRM needs Python 3.12; install it (apt-get install python3.12-venv, or pyenv install 3.12) so that python3.12 is"
    " found, or leave the stage out"
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A running BottleCRM, and the ids of its contacts."""

    port: int
    token: str
    contact_ids: list[str]

    @property
    def authorization(self) -> str:
        """Return the header's value of its non-expiring token."""
        return f"Bearer {self.token}"


def start(cluster: Cluster, processes: Processes, say: Any) -> Peer:
    """Start BottleCRM on a fresh copy of its loaded database; the first time it is installed, which takes minutes."""
    _install(say)
    broker = _start_broker(processes)
    if cluster.marked(_TEMPLATE) != _MARK:
        _make_template(cluster, processes, broker, say)
    cluster.create(_DATABASE, template=_TEMPLATE, owner=_ROLE)
    _copy_contacts(cluster)
    port = _serve(cluster, processes, broker, _DATABASE)
    with cluster.connect(_DATABASE) as connection:
        ids = [str(row[0]) for row in connection.execute("SELECT id FROM contacts ORDER BY id LIMIT 2000")]
    return Peer(port, _token_file().read_text(), ids)


def _home() -> Path:
    folder = scratch() / "bottlecrm"
    folder.mkdir(exist_ok=True)
    return folder


def _token_file() -> Path:
    return _home() / "token"


def _install(say: Any) -> None:
    done = _home() / f"installed-{VERSION}"
    if done.exists():
        return
    say(f"installing BottleCRM {VERSION} (kept for the next run; about a minute)")
    venv = _home() / "venv"
    if not (venv / "bin" / "gunicorn").exists():
        _run([_python(), "-m", "venv", str(venv)])
        # `packaging` is missing from its requirements; without it every create answers 500.
        _run([str(venv / "bin/pip"), "install", "-q", f"django-crm=={VERSION}", "packaging"])
    done.touch()


def _python() -> str:
    candidates = [shutil.which("python3.12"), *map(str, Path.home().glob(".pyenv/versions/3.12*/bin/python3.12"))]
    for found in filter(None, candidates):
        # A shim of pyenv may stand for a version that is not chosen.
        if subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode == 0:
            return found
    raise BenchError(_PYTHON_MISSING)


def _start_broker(processes: Processes) -> int:
    """Start Redis on a port of its own; a create puts a task there, for workers nobody starts here."""
    program, libraries = shutil.which("redis-server"), ""
    if program is None:
        root = scratch() / "redis" / "root"
        if not (root / "usr/bin/redis-server").exists():
            _unpack_redis(root)
        program, libraries = str(root / "usr/bin/redis-server"), str(next(root.glob("usr/lib/*-linux-gnu")))
    port = free_port()
    environment = {"LD_LIBRARY_PATH": libraries} if libraries else {}
    arguments = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(scratch())]
    processes.start("redis", arguments, environment)
    return port


def _unpack_redis(root: Path) -> None:
    root.parent.mkdir(exist_ok=True)
    if shutil.which("apt-get") is None:
        raise BenchError("BottleCRM needs Redis; install it so that redis-server is found, or leave the stage out")
    _run(["apt-get", "-qq", "download", *_PACKAGES], cwd=root.parent)
    for package in root.parent.glob("*.deb"):
        _run(["dpkg", "-x", str(package), str(root)])


def _make_template(cluster: Cluster, processes: Processes, broker: int, say: Any) -> None:
    say("making BottleCRM's database (kept for the next run; a few minutes)")
    with cluster.connect() as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [_ROLE]).fetchone():
            connection.execute(f"CREATE ROLE {_ROLE} LOGIN PASSWORD '{_PASSWORD}'")
    cluster.create(_TEMPLATE, owner=_ROLE)
    environment = _environment(cluster, broker, _TEMPLATE, debug=True)
    _django(environment, "migrate", "--no-input")
    _django(environment, "manage_rls", "--verify-user")
    sizes = ("--leads", "5", "--accounts", "5", "--contacts", "5", "--opportunities", "2")
    _django(environment, "seed_data", "--email", _EMAIL, *sizes, "--seed", "7", "--no-input")
    login = _django(environment, "devlogin", _EMAIL, "--org", _ORGANISATION)
    short_lived = next(line.split()[-1] for line in login.splitlines() if line.startswith("access_token"))
    port = _serve(cluster, processes, broker, _TEMPLATE)
    made = _post(f"http://127.0.0.1:{port}/api/profile/tokens/", f"Bearer {short_lived}", {"name": "bench"})
    _token_file().write_text(made["token"])
    processes.end_named("bottlecrm")
    cluster.mark(_TEMPLATE, _MARK)


def _copy_contacts(cluster: Cluster) -> None:
    """Give BottleCRM the very contacts of our workspace: the leanest form, without assignments, teams and tags."""
    with cluster.connect(BASE.database) as ours, cluster.connect(_DATABASE) as theirs:
        people = ours.execute(
            "SELECT gen_random_uuid(), first_name, last_name, email, phone, phone_norm, job_title, created_at FROM crm_contact"
        ).fetchall()
        organisation = theirs.execute("SELECT id FROM organization WHERE name = %s", [_ORGANISATION]).fetchone()
        assert organisation is not None
        with theirs.cursor() as cursor, cursor.copy(_COPY) as copy:
            for found_id, first, last, email, phone, norm, title, at in people:
                person = (found_id, first, last, email, phone, norm, title, at, at)
                copy.write_row((*person, organisation[0], False, True, False, "{}", False, "", "", ""))
        theirs.execute("VACUUM (ANALYZE)")


def _serve(cluster: Cluster, processes: Processes, broker: int, database: str) -> int:
    port = free_port()
    child = processes.start(
        "bottlecrm",
        [str(_home() / "venv/bin/gunicorn"), "crm.wsgi:application", "-w", "2", "-b", f"127.0.0.1:{port}"],
        _environment(cluster, broker, database, debug=False),
        cwd=_home(),
    )
    # Without a token: 403, which says that it is there.
    await_answer(f"http://127.0.0.1:{port}/api/contacts/", {"Host": "127.0.0.1"}, child, "bottlecrm", refusal=403)
    return port


def _environment(cluster: Cluster, broker: int, database: str, *, debug: bool) -> dict[str, str]:
    redis = f"redis://127.0.0.1:{broker}/0"
    return {
        # gunicorn keeps a control socket below the home folder.
        "HOME": str(_home()),
        "DJANGO_SETTINGS_MODULE": "crm.settings",
        "SECRET_KEY": "the benchmark's own secret, of no use elsewhere, for BottleCRM",
        "ENV_TYPE": "dev",
        # With DEBUG on Django keeps every query in memory, so it serves without.
        "DEBUG": str(debug),
        "DBNAME": database,
        "DBUSER": _ROLE,
        "DBPASSWORD": _PASSWORD,
        "DBHOST": str(cluster.server.socket_dir),
        "DBPORT": str(cluster.server.port),
        "CELERY_BROKER_URL": redis,
        "CELERY_RESULT_BACKEND": redis,
    }


def _django(environment: Mapping[str, str], *words: str) -> str:
    return _run([str(_home() / "venv/bin/django-admin"), *words], environment=environment, cwd=_home())


def _run(arguments: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    full = {**os.environ, **(environment or {})}
    done = subprocess.run(arguments, env=full, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(arguments[:3])} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


def _post(url: str, authorization: str, body: Mapping[str, str]) -> dict[str, str]:
    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, str] = json.load(answer)
    return found


_COPY = (
    "COPY contacts (id, first_name, last_name, email, phone, phone_e164, title, created_at, updated_at, org_id, do_not_call,"
    " is_active, auto_created, custom_fields, is_sample, source, source_detail, source_ref) FROM STDIN"
)

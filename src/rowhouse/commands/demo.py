"""The demo workspaces: made once, through the operations; their addresses, log-ins and keys are shown at every start."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, TypeAdapter
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from sqlalchemy import select

from partywall import Tenant, system_scope
from rowhouse import clock
from rowhouse.commands.demo_data import WORKSPACES, Workspace, plan_owner, workspace
from rowhouse.commands.session import console
from rowhouse.core.call import open_call
from rowhouse.core.db import Database, open_database
from rowhouse.core.errors import NotFound, RowhouseError
from rowhouse.core.permissions import Principal, Role
from rowhouse.identity.keys import NewKey, create_key
from rowhouse.identity.models import Membership
from rowhouse.identity.provided import provide
from rowhouse.identity.tenants import NewTenant, create_tenant, find_tenant
from rowhouse.migrate import find_addresses
from rowhouse.registry import build_registry
from rowhouse.settings import Settings

_REASON = "rowhouse up: the demo workspaces"
# Without the characters that are taken for one another.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


class DemoFailed(RowhouseError):
    """A demo workspace could not be filled."""

    code = "demo_failed"


@dataclass(frozen=True, slots=True)
class Made:
    """A demo workspace and how to get into it. password, key: made for this installation alone."""

    slug: str
    name: str
    email: str
    password: str
    key: str


class _Kept(BaseModel):
    """What is kept of a workspace between starts. today: the day its story ends.  key: "" until it is complete."""

    today: date
    email: str
    password: str
    tenant_id: UUID | None = None
    key: str = ""


_FILE = TypeAdapter(dict[str, _Kept])


async def ensure_demo(settings: Settings) -> list[Made]:
    """Return the demo workspaces, made if they are not there; whatever was begun before is completed.

    A workspace of the same slug that somebody else made is left alone and not returned.  Raises DemoFailed.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    provide(settings)
    with _one_at_a_time(settings.data_dir / "demo.lock") as lock:
        addresses = await asyncio.to_thread(find_addresses, settings)
        database = open_database(addresses.urls, addresses.roles, pool_size=1, prepare=addresses.may_prepare)
        try:
            return await _Demo(settings, database, settings.data_dir / "demo.json", lock).ensure()
        finally:
            await database.close()


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[int]:
    with path.open("w") as lock:
        # A second start waits here and then finds everything made.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


@dataclass(slots=True)
class _Demo:
    """The making of the workspaces. What is kept is written before each step that a later start must know of."""

    settings: Settings
    database: Database
    path: Path
    lock: int
    kept: dict[str, _Kept] = field(default_factory=dict)
    tenants: dict[str, Tenant] = field(default_factory=dict)

    async def ensure(self) -> list[Made]:
        if self.path.exists():
            self.kept = _FILE.validate_json(self.path.read_bytes())
        for known in WORKSPACES:
            await self._ensure_tenant(known)
        unfilled = [slug for slug in self.tenants if not self.kept[slug].key]
        if unfilled:
            await _fill(self.settings, {slug: self.kept[slug].today for slug in unfilled}, self.lock)
        for slug in unfilled:
            await self._make_key(slug)
        return [_made(workspace(slug), self.kept[slug]) for slug in self.tenants]

    async def _ensure_tenant(self, known: Workspace) -> None:
        tenant, kept = await self._find(known.slug), self.kept.get(known.slug)
        if tenant is not None and (kept is None or kept.tenant_id not in (None, tenant.id)):
            console.print(f"The workspace {known.slug} is not the demo's; it is left as it is.")
            return
        if tenant is None:
            # What was kept belongs to a database that is gone.
            today = clock.utc_now().astimezone(ZoneInfo(known.zone)).date()
            kept = _Kept(today=today, email=plan_owner(known.slug).email, password=_new_password())
            self._keep(known.slug, kept)
            tenant = await self._create(known, kept)
        assert kept is not None
        if kept.tenant_id is None:
            self._keep(known.slug, kept.model_copy(update={"tenant_id": tenant.id}))
        self.tenants[known.slug] = tenant

    async def _find(self, slug: str) -> Tenant | None:
        with system_scope(reason=_REASON):
            try:
                return await find_tenant(self.database, slug)
            except NotFound:
                return None

    async def _create(self, known: Workspace, kept: _Kept) -> Tenant:
        new = NewTenant(
            name=known.name,
            slug=known.slug,
            owner_email=kept.email,
            owner_name=plan_owner(known.slug).name,
            owner_password=kept.password,
            currency=known.currency,
            timezone=known.zone,
        )
        with system_scope(reason=_REASON):
            return await create_tenant(self.database, new, now=clock.utc_now())

    async def _make_key(self, slug: str) -> None:
        kept, tenant = self.kept[slug], self.tenants[slug]
        registry = build_registry()
        # Nobody is known yet, so the look-up reads as the workspace's reader of the least rights.
        reader = Principal("system", None, None, Role.VIEWER)
        async with open_call(self.database, registry, tenant, reader, reason=_REASON) as call:
            owner_id = (await call.session.scalars(select(Membership.id).where(Membership.email == kept.email))).one()
        owner = Principal("session", owner_id, owner_id, Role.OWNER)
        async with open_call(self.database, registry, tenant, owner, reason=_REASON) as call:
            made = await create_key.run(call, NewKey(name="demo", scopes=["*"]))
        self._keep(slug, kept.model_copy(update={"key": made.key}))

    def _keep(self, slug: str, kept: _Kept) -> None:
        self.kept[slug] = kept
        draft = self.path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_bytes(_FILE.dump_json(self.kept, indent=2))
        draft.replace(self.path)


def _new_password() -> str:
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4))


def _made(known: Workspace, kept: _Kept) -> Made:
    return Made(known.slug, known.name, kept.email, kept.password, kept.key)


async def _fill(settings: Settings, days: dict[str, date], lock: int) -> None:
    """Have the workspaces written side by side by other processes, with a progress bar each."""
    columns = (TextColumn("{task.description:<18}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        console.print("Making the demo workspaces: two years of a sales team's work in each.")
        bars = {slug: progress.add_task(workspace(slug).name, total=None) for slug in days}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rowhouse.commands.demo_writing", *(f"{slug}={day}" for slug, day in days.items())),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(settings),
            # A Ctrl-C reaches this process alone, which ends the others. Should it be killed, they keep the lock until
            # they notice, so that the next start does not run into them.
            start_new_session=True,
            pass_fds=(lock,),
        )
        try:
            said = await _follow(process, progress, bars)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
    if process.returncode:
        last = said.splitlines()[-1] if said else f"exit status {process.returncode}"
        raise DemoFailed(f"The demo is not complete: {last}. Start again to go on, or start with --no-demo.")


async def _follow(process: Process, progress: Progress, bars: dict[str, TaskID]) -> str:
    """Show what the writers report and return what they complained of."""
    assert process.stdout is not None
    assert process.stderr is not None
    async for line in process.stdout:
        slug, done, total = line.decode().split()
        progress.update(bars[slug], completed=int(done), total=int(total))
    said = await process.stderr.read()
    await process.wait()
    return said.decode(errors="replace").strip()


def _environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which another process reads the same settings."""
    given = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    given["ROWHOUSE_DATA_DIR"] = str(settings.data_dir.resolve())
    given["ROWHOUSE_ROLE_PREFIX"] = settings.role_prefix
    if settings.database_url is not None:
        given["DATABASE_URL"] = settings.database_url
    if settings.secret_key is not None:
        given["ROWHOUSE_SECRET_KEY"] = settings.secret_key.get_secret_value()
    return given


def print_welcome(settings: Settings, made: list[Made]) -> None:
    """Print where the workspaces are, how to get in, and a first request to paste."""
    where = f"{settings.base_domains[0]}:{settings.port}"
    console.print("\n[bold green]Rowhouse is running.[/]\n")
    for found in made:
        _say(f"  [bold]{found.name:<18}[/] [cyan]http://{found.slug}.{where}[/]")
        _say(f"  [dim]log-in[/]             {found.email}  [bold]{found.password}[/]")
        _say(f"  [dim]API key[/]            {found.key}\n")
    if made:
        first = made[0]
        url = f"http://{first.slug}.{where}/api/v1/opportunities/reports/win-rate"
        _say("  A first request, to paste into another terminal:\n")
        _say(f'  curl -s -H "Authorization: Bearer {first.key}" {url}\n')
    else:
        _say(f"  Open a workspace with [bold]rowhouse tenant create[/]; it answers at [cyan]http://<slug>.{where}[/].\n")
    _say("  Ctrl-C stops everything; the data stays.\n")


def _say(line: str) -> None:
    # What is to be copied must not be broken into lines of the terminal's width.
    console.print(line, soft_wrap=True, highlight=False)

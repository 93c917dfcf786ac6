"""What every command needs: settings, an open database, the tenant named on the command line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from partywall import Tenant, system_scope
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database, open_database
from rowhouse.core.errors import Invalid
from rowhouse.core.resource import Registry
from rowhouse.identity import tenants
from rowhouse.identity.members import system_principal
from rowhouse.identity.provided import provide
from rowhouse.migrate import Addresses, find_addresses
from rowhouse.registry import build_registry
from rowhouse.settings import Settings

_T = TypeVar("_T")
# A pipe has no width; tables are for a wide page then.
console = Console(width=None if sys.stdout.isatty() else 160)

TenantOption = Annotated[str, typer.Option("--tenant", "-t", help="Slug of the workspace.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True, slots=True)
class Program:
    """An open program: its settings, database and resources."""

    settings: Settings
    addresses: Addresses
    database: Database
    registry: Registry

    async def tenant(self, slug: str) -> Tenant:
        """Return the tenant with a slug.  Raises NotFound, naming it."""
        with system_scope(reason=f"command line: look up {slug}"):
            return await tenants.find_tenant(self.database, slug)

    def call(self, tenant: Tenant, *, reason: str) -> AbstractAsyncContextManager[Call]:
        """Open a call of the operator's command line in one tenant."""
        return open_call(self.database, self.registry, tenant, system_principal(), reason=reason)


@asynccontextmanager
async def open_program(*, pool_size: int = 2) -> AsyncIterator[Program]:
    """Open the program for the environment's settings; its roles are checked before anything else."""
    settings = Settings()
    provide(settings)
    addresses = await asyncio.to_thread(find_addresses, settings)
    database = open_database(addresses.urls, addresses.roles, pool_size=pool_size, prepare=addresses.may_prepare)
    try:
        await database.check_roles()
        yield Program(settings, addresses, database, build_registry())
    finally:
        await database.close()


def run(work: Callable[[Program], Coroutine[Any, Any, _T]]) -> _T:
    """Run a command's work in an open program and return what it returns."""

    async def opened() -> _T:
        async with open_program() as program:
            return await work(program)

    return asyncio.run(opened())


def need_reason(everything: bool, reason: str | None, tenant: str | None) -> None:
    """Raise Invalid unless a command names one tenant, or all of them with a reason."""
    if everything and tenant:
        raise Invalid("Name --tenant or --all, not both.")
    if everything and not (reason and reason.strip()):
        raise Invalid("--all reaches every workspace, so it needs --reason; the reason is written to the audit log.")
    if not everything and not tenant:
        raise Invalid("Name a workspace with --tenant SLUG, or all of them with --all --reason WHY.")

"""`rowhouse tenant`: open, list, suspend and resume workspaces."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from partywall import Tenant, system_scope
from rowhouse import clock
from rowhouse.commands.searching import index_rows
from rowhouse.commands.session import JsonOption, Program, console, run
from rowhouse.identity import tenants
from rowhouse.identity.resources import members
from rowhouse.identity.tenants import NewTenant, TenantSummary
from rowhouse.modules.crm.actions import provision

app = typer.Typer(help="Open, list, suspend and resume workspaces.", no_args_is_help=True)
Slug = Annotated[str, typer.Argument(help="The workspace's label below a base domain.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; the platform audit keeps it.")]


@app.command()
def create(
    slug: Slug,
    name: Annotated[str, typer.Option(help="Name people see.")],
    owner_email: Annotated[str, typer.Option(help="Address of the first owner.")],
    owner_name: Annotated[str, typer.Option(help="Name of the first owner.")] = "",
    currency: Annotated[str, typer.Option(help="ISO 4217 code in which sums are shown.")] = "USD",
    timezone: Annotated[str, typer.Option(help="IANA name; days and months begin there.")] = "UTC",
    password: Annotated[
        str | None, typer.Option(help="First password of the owner.", prompt=False, envvar="ROWHOUSE_OWNER_PASSWORD")
    ] = None,
) -> None:
    """Open a workspace with its owner and the usual pipeline."""
    new = NewTenant(
        name=name,
        slug=slug,
        owner_email=owner_email,
        owner_name=owner_name or owner_email.partition("@")[0],
        owner_password=password,
        currency=currency,
        timezone=timezone,
    )
    tenant = run(lambda program: open_workspace(program, new))
    console.print(f"Workspace [bold]{tenant.slug}[/] is open.")
    if password is None:
        console.print(f"Give its owner a password: rowhouse user password {owner_email}")


async def open_workspace(program: Program, new: NewTenant) -> Tenant:
    """Create a tenant and provide it with what every module gives a new one."""
    with system_scope(reason=f"command line: open {new.slug}"):
        tenant = await tenants.create_tenant(program.database, new, now=clock.utc_now())
    async with program.call(tenant, reason="provision the workspace") as call:
        await provision(call)
        # The first membership was written before there was a call to index it.
        await index_rows(call, members)
    return tenant


@app.command("list")
def list_all(
    reason: Annotated[str, typer.Option("--reason", help="Why all workspaces are listed.")] = "command line: list workspaces",
    as_json: JsonOption = False,
) -> None:
    """List every workspace: state, members, age."""

    async def work(program: Program) -> list[TenantSummary]:
        with system_scope(reason=reason):
            return await tenants.list_tenants(program.database)

    _print([_line(summary) for summary in run(work)], as_json)


@app.command()
def show(slug: Slug, as_json: JsonOption = False) -> None:
    """Show one workspace."""

    async def work(program: Program) -> Tenant:
        return await program.tenant(slug)

    tenant = run(work)
    _print([{n: str(getattr(tenant, n)) for n in ("slug", "name", "status", "currency", "timezone", "id")}], as_json)


@app.command()
def suspend(slug: Slug, reason: Reason) -> None:
    """Stop a workspace within a second; its data stays."""

    async def work(program: Program) -> Tenant:
        with system_scope(reason=reason):
            return await tenants.suspend(program.database, slug, now=clock.utc_now())

    console.print(f"{run(work).slug} is suspended.")


@app.command()
def resume(slug: Slug, reason: Reason) -> None:
    """Open a suspended workspace again."""

    async def work(program: Program) -> Tenant:
        with system_scope(reason=reason):
            return await tenants.resume(program.database, slug, now=clock.utc_now())

    console.print(f"{run(work).slug} is active.")


def _line(summary: TenantSummary) -> dict[str, Any]:
    tenant = summary.tenant
    return {
        "slug": tenant.slug,
        "name": tenant.name,
        "status": tenant.status,
        "members": str(summary.members),
        "currency": tenant.currency,
        "created": f"{summary.created_at:%Y-%m-%d}",
        "suspended because": summary.suspension_reason or "",
    }


def _print(lines: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(lines, indent=2))  # noqa: T201  # the output itself
        return
    table = Table(*(lines[0] if lines else {"no workspaces": ""}))
    for line in lines:
        table.add_row(*line.values())
    console.print(table)

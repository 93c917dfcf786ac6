"""`rowhouse key`: personal keys of members and service keys of the platform."""

from __future__ import annotations

import json
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table
from sqlalchemy import select

from partywall import system_scope
from rowhouse import clock
from rowhouse.commands.session import JsonOption, Program, TenantOption, console, run
from rowhouse.core import operations
from rowhouse.core.call import open_call
from rowhouse.core.errors import NotFound
from rowhouse.core.permissions import Principal, Role
from rowhouse.core.reads import Query
from rowhouse.identity import service_keys
from rowhouse.identity.keys import KeyMade, NewKey, create_key
from rowhouse.identity.models import Membership
from rowhouse.identity.people import normalise_email
from rowhouse.values.cursors import Cursors

app = typer.Typer(help="Make, list and revoke keys. A key is shown once.", no_args_is_help=True)


@app.command()
def create(
    tenant: TenantOption,
    member: Annotated[str, typer.Option("--member", "-m", help="Address of the member the key acts as.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "command line",
    scope: Annotated[list[str] | None, typer.Option(help='"*", "crm:read", "crm:write", "accounts:list" …; repeatable.')] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="Days until it expires.")] = 365,
) -> None:
    """Make a personal key and print it; it is shown only now."""

    async def work(program: Program) -> KeyMade:
        found = await program.tenant(tenant)
        async with program.call(found, reason="command line: make a key") as call:
            row = (
                await call.session.scalars(select(Membership).where(Membership.email == normalise_email(member)))
            ).one_or_none()
        if row is None or row.archived_at is not None:
            raise NotFound(f"{member} is no active member of {tenant}.")
        acting = Principal("session", row.id, row.id, Role(row.role))
        reason = "command line: made for the member by the operator"
        async with open_call(program.database, program.registry, found, acting, reason=reason) as call:
            made: KeyMade = await create_key.run(call, NewKey(name=name, scopes=scope or ["*"], expires_in_days=days))
            return made

    print(run(work).key)  # noqa: T201  # the output itself, for a script to take


@app.command("list")
def list_keys(tenant: TenantOption, as_json: JsonOption = False) -> None:
    """List a workspace's personal keys, without their secrets."""

    async def work(program: Program) -> list[dict[str, object]]:
        found = await program.tenant(tenant)
        async with program.call(found, reason="command line: list keys") as call:
            query = Query(fields=("id", "key_id", "name", "member_id", "scopes", "expires_at"), limit=100)
            page = await operations.list_(call, program.registry["api-keys"], query, Cursors(program.settings.secret))
            return page.items

    rows = run(work)
    if as_json:
        print(json.dumps(rows, indent=2))  # noqa: T201  # the output itself
        return
    table = Table("id", "key", "name", "scopes", "expires")
    for row in rows:
        scopes = row["scopes"]
        assert isinstance(scopes, list)
        table.add_row(str(row["id"]), f"rh_pk_{row['key_id']}_…", str(row["name"]), " ".join(scopes), str(row["expires_at"]))
    console.print(table)


@app.command()
def revoke(tenant: TenantOption, key_id: Annotated[UUID, typer.Argument(help="Id of the key, from the list.")]) -> None:
    """Revoke a personal key; it stops working within a second."""

    async def work(program: Program) -> None:
        found = await program.tenant(tenant)
        async with program.call(found, reason="command line: revoke a key") as call:
            await operations.archive(call, program.registry["api-keys"], key_id)

    run(work)
    console.print("The key is revoked.")


@app.command()
def service(
    name: Annotated[str, typer.Argument(help="What the service is.")],
    grant: Annotated[list[str], typer.Option(help="Slug of a workspace it may act for; repeatable.")],
    reason: Annotated[str, typer.Option(help="Why it needs them; the platform audit keeps it.")],
    role: Annotated[Role, typer.Option(help="Role it has there.")] = Role.MEMBER,
    scope: Annotated[list[str] | None, typer.Option(help="Scopes, as for a personal key; repeatable.")] = None,
) -> None:
    """Make a service key for the named workspaces and print it; it is shown only now."""

    async def work(program: Program) -> str:
        found = [await program.tenant(slug) for slug in grant]
        with system_scope(reason=reason):
            new = service_keys.NewServiceKey(
                name=name, scopes=tuple(scope or ["*"]), grants={tenant.id: role for tenant in found}
            )
            made = await service_keys.create_service_key(program.database, program.registry, new, now=clock.utc_now())
        return made.key

    print(run(work))  # noqa: T201  # the output itself, for a script to take

"""`rowhouse user`: people and their memberships, for the operator."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from rowhouse import clock
from rowhouse.commands.session import JsonOption, Program, TenantOption, console, run
from rowhouse.core import operations
from rowhouse.core.permissions import Role
from rowhouse.core.reads import Query
from rowhouse.identity import sessions
from rowhouse.identity.members import NewMember, add_member
from rowhouse.values.cursors import Cursors

app = typer.Typer(help="Add people to workspaces, list them, set passwords.", no_args_is_help=True)
Email = Annotated[str, typer.Argument(help="Address of the person.")]


@app.command()
def add(
    email: Email,
    tenant: TenantOption,
    name: Annotated[str, typer.Option(help="Name in this workspace.")] = "",
    role: Annotated[Role, typer.Option(help="Role in this workspace.")] = Role.MEMBER,
    password: Annotated[str | None, typer.Option(help="First password.", envvar="ROWHOUSE_USER_PASSWORD")] = None,
) -> None:
    """Make a person a member of a workspace; doing it again changes nothing."""

    async def work(program: Program) -> str:
        found = await program.tenant(tenant)
        async with program.call(found, reason="command line: add a member") as call:
            row = await add_member(call, NewMember(email=email, name=name, role=role, password=password))
            return f"{row.name} <{row.email}> is {row.role} of {found.slug}."

    console.print(run(work), highlight=False, markup=False)


@app.command("list")
def list_members(tenant: TenantOption, as_json: JsonOption = False) -> None:
    """List the members of a workspace."""

    async def work(program: Program) -> list[dict[str, object]]:
        found = await program.tenant(tenant)
        async with program.call(found, reason="command line: list members") as call:
            query = Query(fields=("email", "name", "role", "archived_at"), archived="all", limit=100)
            rows: list[dict[str, object]] = []
            while True:
                page = await operations.list_(call, program.registry["members"], query, Cursors(program.settings.secret))
                rows += page.items
                if not page.next_cursor:
                    return rows
                query = Query(fields=query.fields, archived="all", limit=100, cursor=page.next_cursor)

    rows = run(work)
    if as_json:
        print(json.dumps(rows, indent=2))  # noqa: T201  # the output itself
        return
    table = Table("email", "name", "role", "ended")
    for row in rows:
        table.add_row(*(str(row[key] or "") for key in ("email", "name", "role", "archived_at")))
    console.print(table)


@app.command()
def password(
    email: Email,
    new: Annotated[str, typer.Option("--new", prompt=True, hide_input=True, confirmation_prompt=True, help="The new password.")],
) -> None:
    """Set a person's password; all their sessions end."""

    async def work(program: Program) -> None:
        await sessions.reset_password(program.database, email, new, now=clock.utc_now())

    run(work)
    console.print("The password is set; every session of this person has ended.")

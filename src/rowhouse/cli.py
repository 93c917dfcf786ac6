"""The command `rowhouse`. A composition root: the commands themselves stand in `rowhouse.commands`."""

from __future__ import annotations

import sys

import typer
from pydantic import ValidationError
from rich.console import Console

from partywall.errors import PartywallError
from rowhouse.commands import data, keys, members, searching, serving, show, tenants, verifying
from rowhouse.core.errors import RowhouseError
from rowhouse.embedded.postgres import PostgresError

app = typer.Typer(
    name="rowhouse",
    help="Run and operate Rowhouse. Commands on a workspace's data need --tenant; across workspaces --all and --reason.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serving.up)
app.command()(serving.serve)
app.command()(serving.worker)
app.command()(serving.stop)
app.command()(serving.migrate)
app.add_typer(tenants.app, name="tenant")
app.add_typer(members.app, name="user")
app.add_typer(keys.app, name="key")
app.command("import")(data.import_file)
app.command("export")(data.export_file)
app.command("undo")(data.undo_import)
app.command()(searching.reindex)
app.command()(verifying.verify)
app.add_typer(show.app, name="show")


def main() -> None:
    """Run the command line; an expected error is one line on standard error and exit status 1."""
    try:
        app()
    except (RowhouseError, PartywallError, PostgresError, ValidationError, ValueError, OSError) as error:
        Console(stderr=True).print(f"[bold red]rowhouse:[/] {_said(error)}", highlight=False)
        sys.exit(1)


def _said(error: Exception) -> str:
    if isinstance(error, ValidationError):
        lines = [f"{'.'.join(str(p) for p in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        return "a setting is not valid. " + "; ".join(lines)
    faults = getattr(error, "faults", ())
    return "; ".join([str(error), *(f"{fault.field}: {fault.message}" for fault in faults if fault.message != str(error))])

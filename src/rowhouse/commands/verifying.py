"""`rowhouse verify`: does the live database hold the declared isolation?"""

from __future__ import annotations

import asyncio
import json

import typer
from rich.box import SIMPLE
from rich.table import Table

from rowhouse.commands.isolation import check_isolation
from rowhouse.commands.session import JsonOption, console
from rowhouse.migrate import find_addresses
from rowhouse.settings import Settings


def verify(as_json: JsonOption = False) -> None:
    """Check every table's class, keys, policy and privileges, and probe each with two tenants. Exit status 1 on any finding."""
    settings = Settings()
    found = asyncio.run(asyncio.to_thread(check_isolation, find_addresses(settings)))
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))  # noqa: T201  # the output itself
    else:
        table = Table("table", "class", "keys", "policy", "role", "probe", title="Isolation of the live database", box=SIMPLE)
        for line in found.tables:
            if line.table_class != "exempt":
                table.add_row(line.table, line.table_class, line.keys, line.policy, line.role, line.probe)
        console.print(table)
        exempt = ", ".join(line.table for line in found.tables if line.table_class == "exempt")
        console.print(f"Exempt, out of reach of every tenant's role (--json says why): {exempt}", highlight=False)
        for finding in found.findings:
            console.print(f"[bold red]{finding.table}[/] {finding.rule}: {finding.message}", highlight=False)
        console.print("[bold green]Every table holds.[/]" if found.ok else f"[bold red]{len(found.findings)} findings.[/]")
    if not found.ok:
        raise typer.Exit(1)

"""`rowhouse show`: what the program consists of."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.table import Table

from rowhouse.api.openapi import complete
from rowhouse.commands.session import JsonOption, console
from rowhouse.registry import build_registry
from rowhouse.settings import Settings

app = typer.Typer(help="Show what the program consists of: resources, routes, settings.", no_args_is_help=True)


@app.command()
def resources(as_json: JsonOption = False) -> None:
    """List every resource with its kind, table, verbs, actions and reports."""
    rows = [
        {
            "name": resource.name,
            "group": resource.group,
            "kind": resource.kind.value,
            "table": resource.table.name,
            "verbs": list(resource.verbs),
            "actions": [action.name for action in resource.actions],
            "reports": [report.name for report in resource.reports],
        }
        for resource in build_registry()
    ]
    _print(rows, as_json, title="Resources")


@app.command()
def routes(as_json: JsonOption = False) -> None:
    """List every generated route with the permission it asks."""
    document = complete_document()
    rows = [
        {"method": method.upper(), "path": path, "permission": operation.get("x-permission", "")}
        for path, place in document["paths"].items()
        for method, operation in place.items()
    ]
    _print(rows, as_json, title="Routes")


@app.command()
def settings(as_json: JsonOption = False) -> None:
    """List every setting: its variable, its default, what it is for."""
    rows = [
        {
            "variable": field.alias or f"ROWHOUSE_{name.upper()}",
            "default": "" if field.default is None else _plain(field.default),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]
    _print(rows, as_json, title="Settings")


def complete_document() -> dict[str, Any]:
    """Return the OpenAPI document of the generated routes."""
    return complete(build_registry(), {"openapi": "3.1.0", "info": {}, "paths": {}})


def _plain(value: Any) -> str:
    return ",".join(str(part) for part in value) if isinstance(value, tuple) else str(value)


def _print(rows: list[dict[str, Any]], as_json: bool, *, title: str) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))  # noqa: T201  # the output itself
        return
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(", ".join(cell) if isinstance(cell, list) else str(cell) for cell in row.values()))
    console.print(table)

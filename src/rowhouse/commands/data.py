"""`rowhouse import`, `export`, `undo`: a workspace's data in and out of files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from partywall import Tenant
from rowhouse.commands.session import Program, TenantOption, console, run
from rowhouse.core.call import open_call
from rowhouse.core.errors import Invalid
from rowhouse.core.reads import Query
from rowhouse.core.resource import Resource
from rowhouse.identity.members import system_principal
from rowhouse.transfer.batches import undo_import as take_back
from rowhouse.transfer.drafts import fields_of
from rowhouse.transfer.exporter import write_file
from rowhouse.transfer.importer import ImportReport, Mode, Options, run_import
from rowhouse.transfer.mapping import MappingFile, Plan, load_mapping, plan_by_guess, plan_of
from rowhouse.transfer.sources import Source, open_source
from rowhouse.transfer.undo import UndoReport

_SHOWN_ERRORS = 20
Pairs = dict[str, str]


def import_file(
    file: Annotated[Path, typer.Argument(help="CSV or XLSX file.", exists=True, dir_okay=False)],
    tenant: TenantOption,
    resource: Annotated[str, typer.Option("--resource", "-r", help="What the rows are, such as accounts.")] = "",
    mapping: Annotated[Path | None, typer.Option("--mapping", "-m", help="TOML file; see docs/guide/import.md.")] = None,
    map_: Annotated[list[str] | None, typer.Option("--map", help="header=field, over the guess; repeatable.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="field=value for every row; repeatable.")] = None,
    var: Annotated[list[str] | None, typer.Option("--var", help="name=value for the mapping file; repeatable.")] = None,
    mode: Annotated[str, typer.Option(help="create, update or both.")] = "both",
    match: Annotated[str, typer.Option(help="Fields that recognise a record, comma-separated.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and change nothing.")] = False,
    encoding: Annotated[str, typer.Option(help="Encoding of the file, when the detection is wrong.")] = "",
    delimiter: Annotated[str, typer.Option(help="Delimiter of the file, when the detection is wrong.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Import a file into a workspace. Every row is checked; what an import did can be undone."""
    if mode not in ("create", "update", "both"):
        raise Invalid("--mode is create, update or both.", field="mode")
    chosen: Mode = mode  # type: ignore[assignment]  # checked above
    found = load_mapping(mapping, variables=_pairs(var)) if mapping is not None else None
    source = open_source(file, encoding=encoding, delimiter=delimiter)

    async def work(program: Program) -> ImportReport:
        name = resource or (found.resource if found is not None else "")
        target = _resource(program, name)
        plan = _plan(program, target, source, found, (_pairs(map_), _pairs(set_)))
        plan = replace(plan, match=tuple(match.split(","))) if match else plan
        _say(source, plan, target, as_json)
        options = Options(mode=chosen, dry_run=dry_run, filename=file.name)
        return await _import(program, await program.tenant(tenant), target, (source, plan, options))

    report = run(work)
    _print_report(report, dry_run=dry_run, as_json=as_json)
    if report.failed or report.unlinked:
        raise typer.Exit(1)


async def _import(program: Program, tenant: Tenant, resource: Resource, job: tuple[Source, Plan, Options]) -> ImportReport:
    source, plan, options = job

    def again() -> Any:
        reason = f"command line: import {options.filename}"
        return open_call(program.database, program.registry, tenant, system_principal(), reason=reason)

    with _progress() as progress:
        bar = progress.add_task("Checking" if options.dry_run else "Importing", total=source.total)
        return await run_import(
            again,
            resource,
            rows=source.rows(),
            plan=plan,
            options=options,
            on_progress=lambda report: progress.update(bar, completed=report.done),
        )


def _plan(program: Program, resource: Resource, source: Source, mapping: MappingFile | None, given: tuple[Pairs, Pairs]) -> Plan:
    columns, defaults = given
    fields = fields_of(resource)
    if mapping is None:
        return plan_by_guess(source.header, fields, singular=resource.singular, columns=columns, defaults=defaults)
    overrides = Plan(columns={header: (field,) if field else () for header, field in columns.items()}, defaults=defaults)
    return plan_of(mapping, source.header, fields, folder=source.path.parent, overrides=overrides)


def _say(source: Source, plan: Plan, resource: Resource, as_json: bool) -> None:
    if as_json:
        return
    console.print(f"{source.path.name}: {source.encoding}, delimiter {source.delimiter!r}", highlight=False)
    table = Table("column", "field", title=f"Into {resource.name}")
    for header, fields in plan.columns.items():
        table.add_row(header, ", ".join(fields))
    for header in plan.ignored:
        table.add_row(header, "[dim]not imported[/]")
    console.print(table)


def export_file(
    file: Annotated[Path, typer.Argument(help="File to write; .csv or .xlsx. It must not exist.")],
    tenant: TenantOption,
    resource: Annotated[str, typer.Option("--resource", "-r", help="What to export, such as accounts.")],
    fields: Annotated[str, typer.Option(help="Names, comma-separated; all when left out.")] = "",
    where: Annotated[str, typer.Option("--filter", help="A filter tree in JSON, as in the API.")] = "",
    archived: Annotated[bool, typer.Option(help="Archived records too.")] = False,
) -> None:
    """Export a workspace's records of one kind to a file."""
    names = tuple(part for part in fields.split(",") if part)
    query = Query(fields=names, filter=_tree(where), archived="all" if archived else "exclude")

    if file.exists():
        raise Invalid(f"{file} exists; name another file, or move it away.", field="file")

    async def work(program: Program) -> int:
        target = _resource(program, resource)
        found = await program.tenant(tenant)
        with _progress() as progress:
            bar = progress.add_task("Exporting", total=None)
            async with program.call(found, reason=f"command line: export {resource}") as call:
                return await write_file(
                    call, target, query, path=file, on_progress=lambda done: progress.update(bar, completed=done)
                )

    console.print(f"{run(work)} records written to {file}")


def undo_import(
    batch: Annotated[UUID, typer.Argument(help="The import's id, printed when it ended.")], tenant: TenantOption
) -> None:
    """Undo an import: created records are removed, changed ones get their old values back."""

    async def work(program: Program) -> UndoReport:
        found = await program.tenant(tenant)

        def again() -> Any:
            return open_call(program.database, program.registry, found, system_principal(), reason=f"command line: undo {batch}")

        with _progress() as progress:
            bar = progress.add_task("Undoing", total=None)
            return await take_back(
                again, batch, on_progress=lambda report: progress.update(bar, completed=report.removed + report.restored)
            )

    report = run(work)
    console.print(f"{report.removed} records removed, {report.restored} given their old values back, {report.left} left alone.")
    for conflict in report.conflicts[:_SHOWN_ERRORS]:
        console.print(f"  {conflict.entity} {conflict.entity_id}: {conflict.message}", highlight=False, markup=False)


def _tree(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError as error:
        example = '{"field": "type", "op": "eq", "value": "CUSTOMER"}'
        raise Invalid(f"--filter takes JSON, such as {example}.", field="filter") from error


def _resource(program: Program, name: str) -> Resource:
    if name not in program.registry:
        raise Invalid(f"There is no resource {name or '(none named)'}; rowhouse show resources lists them.", field="resource")
    return program.registry[name]


def _pairs(given: list[str] | None) -> Pairs:
    found: Pairs = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise Invalid(f"{text} is not of the form name=value.")
        found[name.strip()] = value.strip()
    return found


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)


def _print_report(report: ImportReport, *, dry_run: bool, as_json: bool) -> None:
    counts = {name: getattr(report, name) for name in ("created", "updated", "unchanged", "failed", "left_out", "unlinked")}
    if as_json:
        errors = [{"line": e.line, "field": e.field, "code": e.code, "message": e.message} for e in report.errors]
        print(json.dumps({"batch_id": str(report.batch_id), "dry_run": dry_run, **counts, "errors": errors}))  # noqa: T201
        return
    words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count or name == "created")
    console.print(f"{'Would be' if dry_run else 'Rows'}: {words}", highlight=False)
    if report.errors:
        table = Table("line", "field", "code", "what")
        for error in report.errors[:_SHOWN_ERRORS]:
            table.add_row(str(error.line), error.field, error.code, error.message)
        console.print(table)
        if report.failed > _SHOWN_ERRORS:
            console.print(f"… and {report.failed - _SHOWN_ERRORS} more; --json lists up to 1,000.")
    if not dry_run:
        console.print(f"Batch {report.batch_id}; take it back with: rowhouse undo {report.batch_id} --tenant …", highlight=False)

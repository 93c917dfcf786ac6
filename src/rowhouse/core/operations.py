"""The operations: the only way anything is done to a resource.

Every walker (REST, pages, CLI, import, jobs, tools) comes through here, so permission, reference checks, versions,
audit and events happen once. All of them run inside an open `Call` of one tenant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy import inspect, select

from rowhouse.core.audit import AuditEntry, changes_of, entry
from rowhouse.core.call import Call
from rowhouse.core.db import Record
from rowhouse.core.errors import Conflict, Fault, Forbidden, Invalid, NotFound, ReferenceNotFound, RowhouseError, StaleVersion
from rowhouse.core.permissions import READS, Role, allows
from rowhouse.core.reads import Page, Query, check_query, get_row, list_rows, stream_rows
from rowhouse.core.references import check_references, models_by_table
from rowhouse.core.resource import Action, Change, Kind, Report, Resource, parent_table
from rowhouse.core.schemas import create_schema, update_schema, validated
from rowhouse.values.cursors import Cursors
from rowhouse.values.jsonable import as_json

MOST_IN_BULK = 500
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class BulkItem:
    """The outcome for one item of a bulk call. error: None when it was done."""

    index: int
    id: UUID | None
    error: RowhouseError | None = None


def require(call: Call, resource: Resource, verb: str, *, reads: bool = False) -> None:
    """Name the running operation and raise Forbidden unless the caller holds the permission."""
    permission = resource.permission(verb)
    call.operation = str(permission)
    if not allows(call.principal, permission, reads=reads or verb in READS):
        raise Forbidden(f"This needs the permission {permission}; ask an administrator of the workspace.")


async def list_(call: Call, resource: Resource, query: Query, cursors: Cursors) -> Page:
    """Return one page of a resource's rows."""
    require(call, resource, "list")
    return await list_rows(call, resource, query, cursors)


async def export(call: Call, resource: Resource, query: Query) -> AsyncIterator[dict[str, Any]]:
    """Yield every matching row, in bounded memory; the export itself is audited."""
    await check_export(call, resource, query)
    call.session.add(entry(call, "export", None, {"resource": resource.name}))
    await call.flush()
    async for row in stream_rows(call, resource, query):
        yield row


async def check_export(call: Call, resource: Resource, query: Query) -> None:
    """Raise what `export` would raise, before the first row is asked for."""
    require(call, resource, "list")
    require(call, resource, "export", reads=True)
    await _check_parent(call, resource, query.parent_id)
    await check_query(call, resource, query)


async def get(
    call: Call, resource: Resource, row_id: UUID, *, fields: tuple[str, ...] = (), parent_id: UUID | None = None
) -> bytes:
    """Return one row as a JSON object in UTF-8.  Raises NotFound, also for a row of another tenant."""
    require(call, resource, "get")
    return await get_row(call, resource, row_id, fields=fields, parent_id=parent_id)


async def create(call: Call, resource: Resource, data: Mapping[str, Any], *, parent_id: UUID | None = None) -> Any:
    """Validate, add and return a row.

    Raises Invalid with one fault per field, ReferenceNotFound for an id that is not of this tenant, Conflict for a
    duplicate.
    """
    require(call, resource, "create")
    values = _validated(create_schema(resource.name, resource), data)
    if resource.parent is not None:
        parent = await _check_parent(call, resource, parent_id, lock=True)
        _may_edit(call, parent)
        values[resource.parent.key] = parent_id
    await check_references(call, resource, values)
    replaced = resource.replace.get("create")
    if replaced is not None:
        row = await replaced.run(call, values)
    else:
        row = resource.model(**values)
        call.session.add(row)
    await _finish(call, resource, Change(row, "create"))
    return row


async def update(
    call: Call,
    resource: Resource,
    row_id: UUID,
    data: Mapping[str, Any],
    *,
    version: int | None = None,
    parent_id: UUID | None = None,
) -> Any:
    """Change the named fields of a row and return it; a field that is not named stays.

    version: the version the caller read, None to change whatever is there.  Raises StaleVersion, NotFound, Invalid.
    """
    require(call, resource, "update")
    values = _validated(update_schema(resource.name, resource), data)
    row = await _load(call, resource, row_id, lock=True, parent_id=parent_id)
    _check_version(row, version)
    _may_edit(call, row)
    _not_archived(row)
    before, written = {name: getattr(row, name) for name in values if hasattr(row, name)}, call.session.sync_session.written
    await check_references(call, resource, {n: v for n, v in values.items() if before.get(n) != v})
    replaced = resource.replace.get("update")
    if replaced is not None:
        row = await replaced.run(call, row, values)
    else:
        assign(row, values)
    changed = {name: old for name, old in before.items() if getattr(row, name) != old}
    if changed or replaced is not None:
        # A module's own update may have written already, to the row or to its parts.
        own = replaced is not None and (call.session.sync_session.written != written or bool(changes_of(row)))
        await _finish(call, resource, Change(row, "update", changed), is_change=bool(changed) or own)
    return row


async def archive(call: Call, resource: Resource, row_id: UUID, *, version: int | None = None) -> Any:
    """Hide a row from lists; it can be restored."""
    return await _toggle_archive(call, resource, row_id, "archive", version)


async def restore(call: Call, resource: Resource, row_id: UUID, *, version: int | None = None) -> Any:
    """Bring an archived row back.  Raises Conflict (duplicate) when another row has taken its unique value."""
    return await _toggle_archive(call, resource, row_id, "restore", version)


async def delete(
    call: Call, resource: Resource, row_id: UUID, *, version: int | None = None, parent_id: UUID | None = None
) -> None:
    """Remove a row for good; the audit log keeps its values.  Raises Conflict (has_dependents) while others refer to it."""
    require(call, resource, "delete" if resource.kind is Kind.RECORD else "update")
    row = await _load(call, resource, row_id, lock=True, parent_id=parent_id)
    _check_version(row, version)
    if resource.parent is not None:
        _may_edit(call, await _check_parent(call, resource, getattr(row, resource.parent.key), lock=True))
    await remove(call, resource, row)


async def remove(call: Call, resource: Resource, row: Any) -> None:
    """Remove a loaded row, with its check and event; for operations that have asked for permission already."""
    if inspect(row).pending:
        call.session.expunge(row)
        return
    await call.session.delete(row)
    try:
        await _finish(call, resource, Change(row, "delete"))
    except ReferenceNotFound as error:
        raise Conflict("Other records still refer to this one; move or remove them first.", code="has_dependents") from error


async def act(
    call: Call,
    resource: Resource,
    action: Action,
    data: Mapping[str, Any],
    *,
    row_id: UUID | None = None,
    version: int | None = None,
) -> Any:
    """Run an action and return what it returns: a row, an output instance, or None."""
    require(call, resource, action.name, reads=action.reads)
    values = parse(action.input, data)
    if action.on == "collection":
        result = await action.run(call, values)
    else:
        assert row_id is not None
        row = await _load(call, resource, row_id, lock=not action.reads)
        _check_version(row, version)
        if not action.reads:
            _may_edit(call, row)
            _not_archived(row)
        result = await action.run(call, row, values)
    call.note_changes()
    await call.flush()
    return result


async def report(
    call: Call, resource: Resource, declared: Report, params: Mapping[str, Any], *, row_id: UUID | None = None
) -> Any:
    """Run a report and return its lines, or its one answer."""
    require(call, resource, declared.name, reads=True)
    values = parse(declared.params, params)
    if declared.on == "collection":
        return await declared.run(call, values)
    found: Any = await call.rows(select(resource.model).where(resource.model.id == row_id))
    if not found:
        raise NotFound
    return await declared.run(call, found[0][0], values)


async def settings(call: Call, resource: Resource) -> Any:
    """Return the one settings row of the tenant, made with its defaults when it was never saved."""
    require(call, resource, "get")
    return await _settings_row(call, resource)


async def change_settings(call: Call, resource: Resource, data: Mapping[str, Any], *, version: int | None = None) -> Any:
    """Change the named fields of the tenant's settings row and return it."""
    require(call, resource, "update")
    row = await _settings_row(call, resource)
    return await update(call, resource, row.id, data, version=version)


async def recompute(call: Call, resource: Resource, data: Mapping[str, Any]) -> list[Any]:
    """Compute a rollup's rows anew, as its module declares under `replace`, and return those that were touched."""
    require(call, resource, "recompute")
    declared = resource.replace["recompute"]
    rows: list[Any] = await declared.run(call, parse(declared.extra, data))
    await call.flush()
    return rows


async def _settings_row(call: Call, resource: Resource) -> Any:
    # The row's id is the tenant's, so that two first readers at once cannot make two rows.
    row: Any = await call.find(resource.model, call.tenant.id)
    if row is None:
        row = resource.model()
        row.id = call.tenant.id
        call.session.add(row)
        await call.flush()
    return row


async def bulk(call: Call, resource: Resource, verb: str, items: Sequence[Mapping[str, Any]]) -> list[BulkItem]:
    """Create, update, archive or restore up to 500 rows; each item succeeds or fails by itself.

    items: for create the body; for update {"id", "version"?, …fields}; else {"id", "version"?}.
    Raises Invalid for too many items, Forbidden without the bulk permission.
    """
    require(call, resource, "bulk")
    if not 1 <= len(items) <= MOST_IN_BULK:
        raise Invalid(f"Send 1 to {MOST_IN_BULK} items at a time.", code="bulk_size", field="items")
    done: list[BulkItem] = []
    for index, item in enumerate(items):
        try:
            async with call.session.begin_nested():
                row = await _one_of_bulk(call, resource, verb, item)
            done.append(BulkItem(index, row.id))
        except RowhouseError as error:
            # What the rolled-back item had loaded is stale; later items read afresh.
            call.session.expunge_all()
            done.append(BulkItem(index, None, error))
    return done


async def history(call: Call, resource: Resource, row_id: UUID, *, limit: int = 100) -> list[dict[str, Any]]:
    """Return the changes of one row, newest first: who, when, and each field's old and new value."""
    require(call, resource, "history")
    await _load(call, resource, row_id)
    hidden = {column.key for column in resource.hidden}
    statement = select(
        AuditEntry.id,
        AuditEntry.created_at,
        AuditEntry.operation,
        AuditEntry.verb,
        AuditEntry.changes,
        AuditEntry.actor_kind,
        AuditEntry.actor_id,
    ).where(AuditEntry.entity == resource.table.name, AuditEntry.entity_id == row_id)
    rows = (await call.session.execute(statement.order_by(AuditEntry.id.desc()).limit(limit))).all()
    lines = [as_json(list(row._fields), row) for row in rows]
    return [{**line, "changes": {k: v for k, v in line["changes"].items() if k not in hidden}} for line in lines]


def parse(schema: type[_Model], data: Mapping[str, Any]) -> _Model:
    """Return an instance of an input class.  Raises Invalid with one fault per field."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise invalid_input(error) from error


def invalid_input(error: ValidationError) -> Invalid:
    """Return the answer to a failed validation: the field (dotted), a stable code, what to do. Values are not repeated."""
    faults = tuple(_fault(problem) for problem in error.errors(include_url=False, include_context=False, include_input=False))
    return Invalid(f"{len(faults)} field{'s are' if len(faults) > 1 else ' is'} not valid.", faults=faults)


def assign(row: Any, values: Mapping[str, Any]) -> None:
    """Set the values that differ, so that an unchanged row stays untouched."""
    for name, value in values.items():
        if getattr(row, name) != value:
            setattr(row, name, value)


async def _one_of_bulk(call: Call, resource: Resource, verb: str, item: Mapping[str, Any]) -> Any:
    if verb == "create":
        return await create(call, resource, item)
    rest = dict(item)
    row_id = validated(UUID, rest.pop("id", None), "id")
    version = validated(int | None, rest.pop("version", None), "version")
    if verb == "update":
        return await update(call, resource, row_id, rest, version=version)
    if rest:
        raise Invalid(f"{verb} takes only id and version.", code="unknown_field", field=next(iter(rest)))
    run = {"archive": archive, "restore": restore}[verb]
    return await run(call, resource, row_id, version=version)


async def _toggle_archive(call: Call, resource: Resource, row_id: UUID, verb: str, version: int | None) -> Any:
    require(call, resource, verb)
    row = await _load(call, resource, row_id, lock=True)
    _check_version(row, version)
    _may_archive(call, row)
    if (row.archived_at is not None) == (verb == "archive"):
        return row
    before = {"archived_at": row.archived_at}
    row.archived_at = call.now if verb == "archive" else None
    row.archived_by_id = call.principal.subject_id if verb == "archive" else None
    await _finish(call, resource, Change(row, verb, before))
    return row


async def _finish(call: Call, resource: Resource, change: Change, *, is_change: bool = True) -> None:
    if resource.check is not None:
        await resource.check(call, change)
    if resource.kind is Kind.RECORD and is_change:
        past = {"create": "created", "update": "updated", "archive": "archived", "restore": "restored", "delete": "deleted"}
        call.emit(f"{resource.group}.{resource.singular}_{past[change.verb]}", id=str(change.row.id))
    call.note_changes()
    await call.flush()


async def _load(call: Call, resource: Resource, row_id: UUID, *, lock: bool = False, parent_id: UUID | None = None) -> Any:
    row: Any = await call.load(resource.model, row_id, lock=lock)
    if lock:
        call.tick()
    if resource.parent is not None and parent_id is not None and getattr(row, resource.parent.key) != parent_id:
        raise NotFound
    return row


async def _check_parent(call: Call, resource: Resource, parent_id: UUID | None, *, lock: bool = False) -> Any:
    if resource.parent is None or parent_id is None:
        return None
    return await call.load(models_by_table()[parent_table(resource)], parent_id, lock=lock)


def _validated(schema: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Any]:
    parsed = parse(schema, data)
    return {name: getattr(parsed, name) for name in parsed.model_fields_set}


def _fault(problem: Any) -> Fault:
    field = ".".join(str(part) for part in problem["loc"])
    code = {"extra_forbidden": "unknown_field", "missing": "required"}.get(problem["type"], "invalid_value")
    message = {"unknown_field": "There is no such field here.", "required": "This field is required."}.get(
        code, problem["msg"].removeprefix("Value error, ")
    )
    return Fault(field, code, message)


def _check_version(row: Any, version: int | None) -> None:
    if version is not None and row.version != version:
        raise StaleVersion


def _not_archived(row: Any) -> None:
    if isinstance(row, Record) and row.archived_at is not None:
        raise Conflict("The record is archived; restore it before changing it.", code="archived")


def _may_edit(call: Call, row: Any) -> None:
    """Members change their own rows and unowned ones; all of them where the workspace edits openly."""
    owner = getattr(row, "owner_user_id", None)
    if call.tenant.open_edit or call.principal.role.at_least(Role.ADMIN) or owner in (None, call.member_id):
        return
    raise Forbidden("This record belongs to another member, and this workspace lets members change only their own.")


def _may_archive(call: Call, row: Any) -> None:
    owner = getattr(row, "owner_user_id", None)
    if call.principal.role.at_least(Role.ADMIN) or owner in (None, call.member_id):
        return
    raise Forbidden("Members archive only their own records; ask an administrator of the workspace.")

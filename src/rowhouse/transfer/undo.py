"""Taking an import back, derived from the audit log: what it created is removed, what it changed gets its old values.

A record somebody has changed since is left alone and reported. The work goes newest first in chunks, each its own
transaction, and finds what is left to do from the records themselves, so an interrupted undo is simply started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import inspect, select

from rowhouse.core import operations
from rowhouse.core.audit import AuditEntry
from rowhouse.core.call import Call
from rowhouse.core.db import Base
from rowhouse.core.errors import Conflict, ReferenceNotFound, RowhouseError
from rowhouse.core.references import references
from rowhouse.core.resource import Resource
from rowhouse.transfer.halving import OpenCall, in_halves
from rowhouse.values.jsonable import jsonable

OPERATION = "imports:undo"
_CHUNK = 500
_MOST_CONFLICTS = 1000
_TYPED = (UUID, datetime, date, Decimal)


@dataclass(frozen=True, slots=True)
class UndoConflict:
    """A record that was left as it is, and why."""

    entity: str
    entity_id: UUID
    code: str
    message: str


@dataclass(slots=True)
class UndoReport:
    """What an undo did. conflicts: the records left as they are, the first 1,000; left: how many there are."""

    removed: int = 0
    restored: int = 0
    left: int = 0
    conflicts: list[UndoConflict] = field(default_factory=list)

    def add(self, change: _Change, code: str, message: str) -> None:
        """Note a record that was left as it is."""
        if any(known.entity_id == change.entity_id for known in self.conflicts):
            return
        self.left += 1
        if len(self.conflicts) < _MOST_CONFLICTS:
            self.conflicts.append(UndoConflict(change.entity, change.entity_id, code, message))


@dataclass(frozen=True, slots=True)
class _Change:
    """One line of the audit log."""

    id: UUID
    verb: str
    entity: str
    entity_id: UUID
    changes: dict[str, list[Any]]


async def undo_changes(
    open_call: OpenCall, batch_id: UUID, *, on_progress: Callable[[UndoReport], None] | None = None
) -> UndoReport:
    """Take back every change of a batch, newest first, and return what was done; running it again does what is left."""
    report = UndoReport()
    before: UUID | None = None

    async def attempt(chunk: Sequence[_Change]) -> None:
        async with open_call() as call:
            call.operation, call.reason = OPERATION, f"undo of import {batch_id}"
            done = await _take_back(call, batch_id, chunk, report)
        report.removed += done[0]
        report.restored += done[1]

    while True:
        async with open_call() as call:
            chunk = await _changes(call, batch_id, before)
        if not chunk:
            return report
        before = chunk[-1].id
        await in_halves(chunk, attempt, lambda change, error: report.add(change, *_why(change, error)))
        if on_progress is not None:
            on_progress(report)


async def _changes(call: Call, batch_id: UUID, before: UUID | None) -> list[_Change]:
    columns = (AuditEntry.id, AuditEntry.verb, AuditEntry.entity, AuditEntry.entity_id, AuditEntry.changes)
    statement = select(*columns).where(AuditEntry.batch_id == batch_id, AuditEntry.entity_id.is_not(None))
    if before is not None:
        statement = statement.where(AuditEntry.id < before)
    rows = (await call.session.execute(statement.order_by(AuditEntry.id.desc()).limit(_CHUNK))).all()
    return [_Change(*row) for row in rows]


async def _take_back(call: Call, batch_id: UUID, chunk: Sequence[_Change], report: UndoReport) -> tuple[int, int]:
    """Restore, then remove; return how many rows were (removed, restored)."""
    rows = await _rows(call, chunk)
    restored: set[UUID] = set()
    for change in chunk:
        row = rows.get(change.entity_id)
        if change.verb in {"update", "archive", "restore"} and row is not None and _restore(change, row, report):
            restored.add(change.entity_id)
    await call.flush()
    created = [change for change in chunk if change.verb == "create" and change.entity_id in rows]
    created = await _without_carried(call, batch_id, created)
    created = await _unchanged_since(call, batch_id, created, rows=rows, report=report)
    for table in reversed(Base.metadata.sorted_tables):
        await _remove(call, [rows[change.entity_id] for change in created if change.entity == table.name])
    return len(created), len(restored)


async def _rows(call: Call, chunk: Sequence[_Change]) -> dict[UUID, Any]:
    found: dict[UUID, Any] = {}
    for table, model in _models({change.entity for change in chunk}):
        ids = {change.entity_id for change in chunk if change.entity == table}
        statement = select(model).where(model.id.in_(ids)).with_for_update()
        found |= {row.id: row for row in await call.session.scalars(statement)}
    return found


def _restore(change: _Change, row: Any, report: UndoReport) -> bool:
    """Give a row its old values back; False when it has them already or was changed since."""
    differing = {name: pair for name, pair in change.changes.items() if jsonable(getattr(row, name)) != pair[0]}
    if not differing:
        return False
    for name, (_, new) in differing.items():
        if jsonable(getattr(row, name)) != new or new == "***":
            report.add(change, "changed_since", f"{name} was changed after the import; the record keeps all its values.")
            return False
    for name, (old, _) in differing.items():
        setattr(row, name, _typed(row, name, old))
    return True


async def _without_carried(call: Call, batch_id: UUID, created: Sequence[_Change]) -> list[_Change]:
    """Return the rows to remove one by one: not the parts of rows this batch created, which go with their parent."""
    parents: dict[UUID, UUID] = {}
    for change in created:
        part = call.registry.of_table(change.entity)
        if part is not None and part.parent is not None:
            parents[change.entity_id] = UUID(change.changes[part.parent.key][1])
    ours = await _created_ids(call, batch_id, parents.values())
    return [change for change in created if parents.get(change.entity_id) not in ours]


async def _unchanged_since(
    call: Call, batch_id: UUID, created: Sequence[_Change], *, rows: dict[UUID, Any], report: UndoReport
) -> list[_Change]:
    """Return the rows nobody else has changed or added parts to; the others are reported."""
    changed = await _changed_by_others(call, batch_id, created, rows)
    extended = await _extended_by_others(call, batch_id, created)
    kept: list[_Change] = []
    for change in created:
        if change.entity_id in changed:
            report.add(change, "changed_since", f"{changed[change.entity_id]} was changed after the import; the record stays.")
        elif change.entity_id in extended:
            report.add(change, "extended_since", f"{extended[change.entity_id]} were added after the import; the record stays.")
        else:
            kept.append(change)
    return kept


async def _changed_by_others(call: Call, batch_id: UUID, created: Sequence[_Change], rows: dict[UUID, Any]) -> dict[UUID, str]:
    """Return the first column of each row that differs from what the batch left, going by the later audit entries."""
    first = {change.entity_id: change.id for change in created}
    statement = (
        select(AuditEntry.id, AuditEntry.entity_id, AuditEntry.changes)
        .where(AuditEntry.entity_id.in_(first), AuditEntry.operation != OPERATION)
        .where(AuditEntry.batch_id.is_distinct_from(batch_id))
        .order_by(AuditEntry.id)
    )
    left: dict[tuple[UUID, str], Any] = {}
    for entry_id, entity_id, changes in (await call.session.execute(statement)).all():
        for name, pair in changes.items():
            if entry_id > first[entity_id] and isinstance(pair, list):
                left.setdefault((entity_id, name), pair[0])
    # A change that was taken back since is no change.
    return {row_id: name for (row_id, name), old in left.items() if jsonable(getattr(rows[row_id], name, old)) != old}


async def _extended_by_others(call: Call, batch_id: UUID, created: Sequence[_Change]) -> dict[UUID, str]:
    found: dict[UUID, str] = {}
    for table in {change.entity for change in created}:
        resource = call.registry.of_table(table)
        for part in call.registry.parts_of(resource) if resource is not None else ():
            column: Any = part.parent
            ids = [change.entity_id for change in created if change.entity == table]
            rows = (await call.session.execute(select(part.model.id, column).where(column.in_(ids)))).all()
            ours = await _created_ids(call, batch_id, (part_id for part_id, _ in rows))
            found |= {parent_id: part.name for part_id, parent_id in rows if part_id not in ours}
    return found


async def _created_ids(call: Call, batch_id: UUID, ids: Iterable[UUID]) -> set[UUID | None]:
    wanted = list(ids)
    if not wanted:
        return set()
    statement = select(AuditEntry.entity_id).where(
        AuditEntry.batch_id == batch_id, AuditEntry.verb == "create", AuditEntry.entity_id.in_(wanted)
    )
    return set((await call.session.scalars(statement)).all())


async def _remove(call: Call, rows: list[Any]) -> None:
    """Remove rows of one table, those that others of them refer to after those others."""
    while rows:
        columns = [name for name, model in references(type(rows[0])).items() if model is type(rows[0])]
        referred = {getattr(row, name) for row in rows for name in columns}
        free = [row for row in rows if row.id not in referred] or rows
        async with call.deferred():
            for row in free:
                await _remove_one(call, row)
        gone = {row.id for row in free}
        rows = [row for row in rows if row.id not in gone]


async def _remove_one(call: Call, row: Any) -> None:
    resource: Resource | None = call.registry.of_table(row.__table__.name)
    try:
        if resource is not None:
            await operations.remove(call, resource, row)
    except Conflict as error:
        if error.code != "archive_instead":
            raise
    # What may only be archived once it was in use may go when nothing refers to it; the foreign keys see to that.
    await call.session.delete(row)


def _why(change: _Change, error: RowhouseError) -> tuple[str, str]:
    # A row that is removed refers to nothing, so a broken reference is another row's.
    if change.verb == "create" and isinstance(error, ReferenceNotFound):
        return "has_dependents", "Other records refer to it; the record stays."
    return error.code, error.message


def _models(tables: set[str]) -> list[tuple[str, Any]]:
    mappers = [mapper for mapper in Base.registry.mappers if mapper.local_table is not None]
    return [(mapper.local_table.name, mapper.class_) for mapper in mappers if mapper.local_table.name in tables]  # type: ignore[attr-defined]


def _typed(row: Any, name: str, value: Any) -> Any:
    kind = inspect(type(row)).columns[name].type.python_type
    return TypeAdapter(kind).validate_python(value) if value is not None and kind in _TYPED else value

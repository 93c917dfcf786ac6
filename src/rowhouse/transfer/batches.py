"""The list of imports: what was imported when, what went wrong, and taking one back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import update
from sqlalchemy.orm import Mapped, mapped_column

from partywall import tenant_index
from rowhouse.core import operations
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Base, Record, choice, short_text
from rowhouse.core.errors import Conflict, TooMany
from rowhouse.core.permissions import Role
from rowhouse.core.resource import Kind, NoInput, Resource, action
from rowhouse.transfer.halving import OpenCall
from rowhouse.transfer.sources import RowFault
from rowhouse.transfer.undo import UndoReport, undo_changes

_SILENT_FOR = timedelta(minutes=2)


class BatchState(StrEnum):
    """How far an import has come."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    STOPPED = "STOPPED"
    UNDONE = "UNDONE"


class ImportBatch(Record, Base):
    """One import. Its id stands in the audit entry of every change it made; counts are in rows of the file.

    errors: the first 1,000, each {line, field, code, message}.  seen_at: when its last batch of rows was written.
    """

    __tablename__ = "import_batch"
    __table_args__ = (tenant_index("ix_import_batch_started", "started_at"),)

    resource_name: Mapped[str] = short_text(63)
    filename: Mapped[str] = short_text(255, default="")
    mode: Mapped[str] = short_text(10)
    status: Mapped[str] = choice("status", BatchState, default=BatchState.RUNNING)
    created_count: Mapped[int] = mapped_column(default=0)
    updated_count: Mapped[int] = mapped_column(default=0)
    unchanged_count: Mapped[int] = mapped_column(default=0)
    failed_count: Mapped[int] = mapped_column(default=0)
    errors: Mapped[list[Any]] = mapped_column(default=list)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    undone_at: Mapped[datetime | None]


class Undone(BaseModel):
    """What an undo did, in records. left: how many were changed since and stay; conflicts: the first 1,000 of them."""

    removed: int
    restored: int
    left: int
    conflicts: list[dict[str, Any]]


class _Counts(Protocol):
    created: int
    updated: int
    unchanged: int


class _Report(_Counts, Protocol):
    failed: int
    errors: list[RowFault]


# Each undo of a request holds one connection and needs another; as many at once as the pool has would all wait.
_places = [1, 2]


@action(input=NoInput, output=Undone, role=Role.ADMIN)
async def undo(call: Call, batch: ImportBatch, data: NoInput) -> Undone:
    """Take an import back: its records are removed, changed ones get their old values; what was changed since stays.

    Works in transactions of its own, so what it has done stays done; repeating it does the rest.
    Raises Conflict (import_running), TooMany while others are being undone.
    """
    _check_at_rest(call, batch)
    if not _places:
        raise TooMany("Other imports are being undone; try again shortly.", retry_after_s=10)
    place = _places.pop()
    try:
        return await _take_back(call, batch)
    finally:
        _places.append(place)


async def _take_back(call: Call, batch: ImportBatch) -> Undone:

    def again() -> Any:
        return open_call(call.database, call.registry, call.tenant, call.principal, request_id=call.request_id, ip=call.ip)

    report = await undo_changes(again, batch.id)
    batch.status, batch.undone_at = BatchState.UNDONE, call.now
    return _undone(report)


IMPORTS = Resource(
    model=ImportBatch,
    name="imports",
    group="workspace",
    kind=Kind.JOURNAL,
    filters=(ImportBatch.resource_name, ImportBatch.status, ImportBatch.started_at),
    search=(ImportBatch.filename,),
    order=(ImportBatch.started_at,),
    actions=(undo,),
)


async def undo_import(
    open_call: OpenCall, batch_id: UUID, *, on_progress: Callable[[UndoReport], None] | None = None
) -> UndoReport:
    """Take an import back as the action does, with progress after each chunk.

    Raises NotFound, Forbidden, Conflict (import_running).
    """
    async with open_call() as call:
        operations.require(call, IMPORTS, "undo")
        _check_at_rest(call, await call.load(ImportBatch, batch_id))
    report = await undo_changes(open_call, batch_id, on_progress=on_progress)
    async with open_call() as call:
        operations.require(call, IMPORTS, "undo")
        batch = await call.load(ImportBatch, batch_id, lock=True)
        batch.status, batch.undone_at = BatchState.UNDONE, call.now
    return report


async def begin_batch(call: Call, batch_id: UUID, *, resource: Resource, filename: str, mode: str) -> None:
    """Note that an import has begun."""
    row = ImportBatch(id=batch_id, resource_name=resource.name, filename=filename[-255:], mode=mode, status=BatchState.RUNNING)
    row.started_at = row.seen_at = call.now
    call.session.add(row)
    await call.flush()


async def advance_batch(call: Call, batch_id: UUID, outcome: _Counts) -> None:
    """Count what a transaction of an import wrote, in that transaction; the audit log has the changes themselves."""
    statement = update(ImportBatch).where(ImportBatch.id == batch_id)
    await call.session.execute(
        statement.values(
            created_count=ImportBatch.created_count + outcome.created,
            updated_count=ImportBatch.updated_count + outcome.updated,
            unchanged_count=ImportBatch.unchanged_count + outcome.unchanged,
            seen_at=call.now,
        ).execution_options(synchronize_session=False)
    )


async def finish_batch(call: Call, batch_id: UUID, *, state: BatchState, report: _Report) -> None:
    """Note how an import ended and what went wrong."""
    errors = [{"line": e.line, "field": e.field, "code": e.code, "message": e.message} for e in report.errors]
    statement = update(ImportBatch).where(ImportBatch.id == batch_id)
    await call.session.execute(
        statement.values(
            status=state, failed_count=report.failed, errors=errors, seen_at=call.now, finished_at=call.now
        ).execution_options(synchronize_session=False)
    )


def _check_at_rest(call: Call, batch: ImportBatch) -> None:
    # An import that was killed stays RUNNING, but says nothing any more.
    if batch.status == BatchState.RUNNING and batch.seen_at > call.now - _SILENT_FOR:
        raise Conflict("The import is still running; stop it, or wait until it is done.", code="import_running")


def _undone(report: UndoReport) -> Undone:
    conflicts = [{"entity": c.entity, "id": str(c.entity_id), "code": c.code, "message": c.message} for c in report.conflicts]
    return Undone(removed=report.removed, restored=report.restored, left=report.left, conflicts=conflicts)

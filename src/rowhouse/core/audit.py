"""The audit log and the stamps, written from the unit of work: a change cannot reach the database without its entry."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import event, inspect
from sqlalchemy.orm import Mapped, PassiveFlag, mapped_column
from sqlalchemy.orm.attributes import get_history

from partywall import TenantScoped, tenant_index
from rowhouse.core.db import Audited, Base, CallSession, Journal, Record, short_text
from rowhouse.core.permissions import Capability, Role
from rowhouse.core.resource import Access, Kind, Resource
from rowhouse.values.jsonable import jsonable

_STAMPS = frozenset(
    {"tenant_id", "id", "created_at", "created_by_id", "updated_at", "updated_by_id", "version", "archived_by_id"}
)


class AuditEntry(TenantScoped, Base):
    """One change of one row: `changes` maps each column to [old, new]. Nobody can update or delete it."""

    __tablename__ = "audit_entry"
    __append_only__ = True
    __table_args__ = (
        tenant_index("ix_audit_entry_entity", "entity_id", "id"),
        tenant_index("ix_audit_entry_created", "created_at", "id"),
        tenant_index("ix_audit_entry_batch", "batch_id", "id", postgresql_where="batch_id IS NOT NULL"),
    )

    created_at: Mapped[datetime]
    operation: Mapped[str] = short_text(100)
    verb: Mapped[str] = short_text(20)
    entity: Mapped[str] = short_text(63)
    entity_id: Mapped[UUID | None]
    changes: Mapped[dict[str, Any]]
    actor_kind: Mapped[str] = short_text(20)
    actor_id: Mapped[UUID | None]
    credential_id: Mapped[UUID | None]
    request_id: Mapped[str] = short_text(64)
    ip: Mapped[str] = short_text(45)
    reason: Mapped[str] = short_text(500)
    batch_id: Mapped[UUID | None] = mapped_column(default=None)


AUDIT = Resource(
    model=AuditEntry,
    name="audit-entries",
    group="platform",
    kind=Kind.JOURNAL,
    filters=(
        AuditEntry.created_at,
        AuditEntry.operation,
        AuditEntry.verb,
        AuditEntry.entity,
        AuditEntry.entity_id,
        AuditEntry.actor_id,
        AuditEntry.batch_id,
    ),
    order=(AuditEntry.created_at,),
    access=Access(read=Role.OWNER, write=Role.OWNER, capability=Capability.AUDIT_READ),
)


@event.listens_for(CallSession, "before_flush")
def _stamp_and_record(session: CallSession, _context: Any, _instances: Any) -> None:
    call = session.info.get("call")
    if call is None:
        return
    entries = [*_created(session, call), *_changed(session, call), *_deleted(session)]
    session.written += len(entries)
    for verb, row, changes in entries:
        session.add(entry(call, verb, row, changes, _moment(session, call, row)))


def _moment(session: CallSession, call: Any, row: Any) -> Any:
    return session.moments.get(inspect(row)) or call.moment


def _created(session: CallSession, call: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for row in list(session.new):
        if isinstance(row, Audited):
            moment = _moment(session, call, row)
            row.created_at = row.updated_at = row.created_at or moment.now
            row.created_by_id = row.updated_by_id = moment.principal.subject_id
            yield "create", row, {name: [None, value] for name, value in _values(row) if name not in _STAMPS}
        elif isinstance(row, Journal):
            moment = _moment(session, call, row)
            row.created_at = row.created_at or moment.now
            row.created_by_id = row.created_by_id or moment.principal.subject_id


def _changed(session: CallSession, call: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for row in list(session.dirty):
        if not isinstance(row, Audited) or not session.is_modified(row):
            continue
        changes = changes_of(row)
        if not changes:
            continue
        moment = _moment(session, call, row)
        row.updated_at, row.updated_by_id = moment.now, moment.principal.subject_id
        yield _update_verb(row, changes), row, changes


def _update_verb(row: Any, changes: dict[str, Any]) -> str:
    if isinstance(row, Record) and "archived_at" in changes:
        return "archive" if row.archived_at else "restore"
    return "update"


def _deleted(session: CallSession) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for row in list(session.deleted):
        if isinstance(row, Audited):
            yield "delete", row, {name: [value, None] for name, value in _values(row)}


def changes_of(row: Any) -> dict[str, list[Any]]:
    """Return the pending changes of a loaded row as {column: [old, new]}, in JSON values, stamps left out."""
    found: dict[str, list[Any]] = {}
    columns = inspect(type(row)).column_attrs
    # What was never set is not looked at: a row has many more columns than an operation changes.
    for name in [name for name in inspect(row).committed_state if name in columns and name not in _STAMPS]:
        history = get_history(row, name, PassiveFlag.PASSIVE_NO_INITIALIZE)
        old = history.deleted[0] if history.deleted else None
        new = history.added[0] if history.added else None
        if history.has_changes() and old != new:
            found[name] = _redacted(columns[name], [jsonable(old), jsonable(new)])
    return found


def _values(row: Any) -> Iterator[tuple[str, Any]]:
    state = inspect(row)
    columns = state.mapper.column_attrs
    # What is set is read, not every column: most are empty, and this runs for each new row.
    for name, value in state.dict.items():
        if value is not None and name in columns:
            yield name, _redacted(columns[name], [jsonable(value)])[0]


def _redacted(attribute: Any, values: list[Any]) -> list[Any]:
    # A secret is recorded as having changed, never as what it was.
    if attribute.columns[0].info.get("secret"):
        return ["***" if value is not None else None for value in values]
    return values


def entry(call: Any, verb: str, row: Any, changes: dict[str, Any], moment: Any = None) -> AuditEntry:
    """Return an audit entry of this call about a row; None stands for the workspace as a whole.

    moment: under what the row was changed, when that is not what the call is doing now.
    """
    under = moment or call.moment
    principal = under.principal
    return AuditEntry(
        tenant_id=call.tenant.id,
        created_at=under.now,
        operation=under.operation or verb,
        verb=verb,
        entity=row.__table__.name if row is not None else "workspace",
        entity_id=row.id if row is not None else None,
        changes=changes,
        actor_kind=principal.kind,
        actor_id=principal.subject_id,
        credential_id=principal.credential_id,
        request_id=call.request_id,
        ip=call.ip,
        reason=call.reason,
        batch_id=call.batch_id,
    )

"""Taking a merge back, as long as nothing it touched was changed since."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import inspect, select

from rowhouse.core.call import Call
from rowhouse.core.db import Base
from rowhouse.core.errors import Conflict
from rowhouse.core.permissions import Role
from rowhouse.core.resource import NoInput, action
from rowhouse.modules.crm.models import MergeLog
from rowhouse.values.jsonable import jsonable

_STAMPS = frozenset({"tenant_id", "version", "updated_at", "updated_by_id"})
_EXACT = (UUID, datetime, date, Decimal)
# Written by every activity; what is newer than the merge stays.
_DATES = frozenset({"last_activity_at", "next_activity_at"})


@action(role=Role.ADMIN)
async def undo(call: Call, merge: MergeLog, data: NoInput) -> MergeLog:
    """Restore everything a merge changed, within thirty days.

    Raises Conflict (merge_undone, merge_undo_expired, merge_undo_conflict), the last one naming the row that has changed
    since; of the merged records themselves only the columns the merge wrote must be as it left them.
    """
    if merge.undone_at is not None:
        raise Conflict("The merge was undone already.", code="merge_undone")
    if call.now > merge.undo_until:
        raise Conflict("The merge is older than thirty days and stays.", code="merge_undo_expired")
    rows = await _rows(call, merge)
    own = {str(merge.target_id), *merge.source_ids}
    changes = [change for change in merge.moved if not _is_newer_date(rows, change)]
    for change in changes:
        _must_be_untouched(rows, change, own)
    # A unique value leaves the target before its old row takes it back.
    for of_target in (True, False):
        for change in changes:
            if (change["id"] == str(merge.target_id)) == of_target:
                row = rows[change["table"], change["id"]]
                setattr(row, change["column"], _value(type(row), change["column"], change["before"]))
        await call.flush()
    for dropped in merge.dropped:
        call.session.add(_rebuilt(dropped["table"], dropped["row"]))
    merge.undone_at, merge.undone_by_id = call.now, call.member_id
    call.emit("crm.merge_undone", merge_id=str(merge.id), target_id=str(merge.target_id))
    return merge


async def _rows(call: Call, merge: MergeLog) -> dict[tuple[str, str], Any]:
    wanted: dict[str, set[UUID]] = {}
    for change in merge.moved:
        wanted.setdefault(change["table"], set()).add(UUID(change["id"]))
    found: dict[tuple[str, str], Any] = {}
    for table in sorted(wanted):
        model = _model(table)
        statement = select(model).where(model.id.in_(wanted[table])).order_by(model.id).with_for_update()
        rows = await call.session.scalars(statement.execution_options(populate_existing=True))
        found |= {(table, str(row.id)): row for row in rows}
    return found


def _is_newer_date(rows: Mapping[tuple[str, str], Any], change: Mapping[str, Any]) -> bool:
    row = rows.get((change["table"], change["id"]))
    return row is not None and change["column"] in _DATES and jsonable(getattr(row, change["column"])) != change["after"]


def _must_be_untouched(rows: Mapping[tuple[str, str], Any], change: Mapping[str, Any], own: set[str]) -> None:
    row = rows.get((change["table"], change["id"]))
    if row is not None:
        now = jsonable(getattr(row, change["column"]))
        same = now == change["after"] if change["id"] in own else row.version == change["version"]
        if same:
            return
    raise Conflict(
        f"{change['table']} {change['id']} was {'changed' if row is not None else 'deleted'} since the merge; "
        "what was merged then cannot be taken apart any more.",
        code="merge_undo_conflict",
        field=change["column"],
    )


def _rebuilt(table: str, values: Mapping[str, Any]) -> Any:
    model = _model(table)
    return model(**{name: _value(model, name, value) for name, value in values.items() if name not in _STAMPS})


def _model(table: str) -> Any:
    return next(mapper.class_ for mapper in Base.registry.mappers if inspect(mapper.class_).local_table.name == table)


def _value(model: type[Any], name: str, value: Any) -> Any:
    kind = inspect(model).columns[name].type.python_type
    return TypeAdapter(kind).validate_python(value) if value is not None and kind in _EXACT else value

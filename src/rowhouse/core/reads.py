"""Reading rows: the one door behind which the statement of a list, a get and a count is built."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, Date, DateTime, Numeric, Select, and_, false, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from rowhouse.core.audit import jsonable
from rowhouse.core.call import Call
from rowhouse.core.errors import Invalid, NotFound
from rowhouse.core.filters import Filters
from rowhouse.core.resource import Column, Resource
from rowhouse.core.schemas import is_nullable, python_type
from rowhouse.core.text import clean_text

LARGEST_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a caller asks of a list.

    filter: a filter tree or None.  params: simple comparisons (field, operator, text).  q: text to search.
    sort: column names, "-" before one for descending.  fields: names to return, all when empty.  limit: 1 to 100.
    """

    filter: Any = None
    params: tuple[tuple[str, str, Any], ...] = ()
    q: str = ""
    sort: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    cursor: str = ""
    limit: int = 50
    archived: Literal["exclude", "only", "all"] = "exclude"
    parent_id: UUID | None = None
    total: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One page of rows as JSON objects. next_cursor: "" on the last page.  total: None unless asked for."""

    items: list[dict[str, Any]]
    next_cursor: str = ""
    total: int | None = None


@dataclass(frozen=True, slots=True)
class _Key:
    column: Column
    descending: bool


@dataclass(frozen=True, slots=True)
class Cursors:
    """Makes and reads cursors, which are signed and hold good for one tenant, resource, filter and order."""

    secret: bytes
    _size: int = field(default=16)

    def encode(self, scope: str, values: Sequence[Any]) -> str:
        """Return the cursor that continues after a row's key values."""
        body = json.dumps([jsonable(value) for value in values], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(scope, body) + body).decode().rstrip("=")

    def decode(self, scope: str, cursor: str) -> list[Any]:
        """Return the key values of a cursor.  Raises Invalid (invalid_cursor) for any other than our own of this scope."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raw = b""
        if len(raw) <= self._size or not hmac.compare_digest(raw[: self._size], self._sign(scope, raw[self._size :])):
            raise Invalid("This cursor is not of this list; start again without a cursor.", code="invalid_cursor", field="cursor")
        values: list[Any] = json.loads(raw[self._size :])
        return values

    def _sign(self, scope: str, body: bytes) -> bytes:
        return hmac.new(self.secret, scope.encode() + b"\0" + body, hashlib.sha256).digest()[: self._size]


async def list_rows(call: Call, resource: Resource, query: Query, cursors: Cursors) -> Page:
    """Return one page.  Raises Invalid for whatever the resource does not declare."""
    if not 1 <= query.limit <= LARGEST_PAGE:
        raise Invalid(f"limit is 1 to {LARGEST_PAGE}.", field="limit")
    columns = _columns(resource, query.fields)
    keys = _keys(resource, query.sort)
    conditions = conditions_of(call, resource, query)
    scope = _scope(call, resource, query)
    after = _after(keys, _read_cursor(keys, cursors.decode(scope, query.cursor))) if query.cursor else None
    read = [*columns, *(key.column for key in keys)]
    statement: Select[Any] = select(*read).where(*conditions, *([after] if after is not None else []))
    rows = (await call.session.execute(statement.order_by(*_ordering(keys)).limit(query.limit + 1))).all()
    total = await _count(call, resource, conditions) if query.total else None
    names = [column.key for column in columns]
    items = [as_json(names, row) for row in rows[: query.limit]]
    more = len(rows) > query.limit
    return Page(items, cursors.encode(scope, rows[query.limit - 1][len(columns) :]) if more else "", total)


async def get_row(call: Call, resource: Resource, row_id: UUID, *, fields: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return one row as a JSON object, archived ones too.  Raises NotFound."""
    columns = _columns(resource, fields)
    row = (await call.session.execute(select(*columns).where(resource.model.id == row_id))).one_or_none()
    if row is None:
        raise NotFound
    return as_json([column.key for column in columns], row)


async def stream_rows(call: Call, resource: Resource, query: Query) -> AsyncIterator[dict[str, Any]]:
    """Yield every matching row as a JSON object, in the list's order, in bounded memory."""
    columns = _columns(resource, query.fields)
    names = [column.key for column in columns]
    statement = select(*columns).where(*conditions_of(call, resource, query)).order_by(*_ordering(_keys(resource, query.sort)))
    result = await call.session.stream(statement.execution_options(yield_per=500))
    async for row in result:
        yield as_json(names, row)


def names_of(resource: Resource, query: Query) -> list[str]:
    """Return the names of the fields a query answers with, in their order."""
    return [column.key for column in _columns(resource, query.fields)]


def check_query(call: Call, resource: Resource, query: Query) -> None:
    """Raise Invalid for whatever a query asks that the resource does not declare."""
    _columns(resource, query.fields)
    _keys(resource, query.sort)
    conditions_of(call, resource, query)


def conditions_of(call: Call, resource: Resource, query: Query) -> list[ColumnElement[bool]]:
    """Return the conditions of a query, without its cursor."""
    filters = Filters(resource, now=call.now, zone=call.tenant.timezone)
    found = [filters.single(name, operator, value) for name, operator, value in query.params]
    if query.filter is not None:
        found.append(filters.condition(query.filter))
    if query.q:
        found.append(_search(resource, query.q))
    archived: Any = getattr(resource.model, "archived_at", None)
    if archived is not None and query.archived != "all":
        found.append(archived.is_(None) if query.archived == "exclude" else archived.is_not(None))
    if query.parent_id is not None and resource.parent is not None:
        found.append(resource.parent == query.parent_id)
    return found


def row_as_json(resource: Resource, row: Any) -> dict[str, Any]:
    """Return a loaded row as the JSON object a get would return."""
    names = [column.key for column in resource.shown()]
    return as_json(names, [getattr(row, name) for name in names])


def as_json(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Return names and values as a JSON object: ids and exact numbers as text, times in ISO 8601."""
    return {name: jsonable(value) for name, value in zip(names, values, strict=False)}


def _columns(resource: Resource, fields: tuple[str, ...]) -> tuple[Column, ...]:
    shown = resource.shown()
    if not fields:
        return shown
    by_name = {column.key: column for column in shown}
    unknown = [name for name in fields if name not in by_name]
    if unknown:
        raise Invalid(f"{resource.name} has no field {unknown[0][:100]}.", code="unknown_field", field="fields")
    return tuple(by_name[name] for name in dict.fromkeys(fields))


def _keys(resource: Resource, sort: tuple[str, ...]) -> list[_Key]:
    declared = {column.key: column for column in resource.order}
    keys: list[_Key] = []
    for name in sort:
        column = declared.get(name.removeprefix("-"))
        if column is None:
            allowed = ", ".join(declared)
            raise Invalid(f"{resource.name} can be sorted by: {allowed}.", code="not_sortable", field="sort")
        keys.append(_Key(column, name.startswith("-")))
    if not keys and resource.order:
        # Newest first for a moment, A to Z for anything else.
        first = resource.order[0]
        keys.append(_Key(first, isinstance(first.property.columns[0].type, Date | DateTime)))
    identity: InstrumentedAttribute[Any] = resource.model.id
    return [*keys, _Key(identity, keys[-1].descending if keys else True)]


def _ordering(keys: Sequence[_Key]) -> list[Any]:
    return [key.column.desc().nulls_last() if key.descending else key.column.asc().nulls_last() for key in keys]


def _after(keys: Sequence[_Key], values: Sequence[Any]) -> ColumnElement[bool]:
    """Return "comes after these values" for keys of mixed direction, empty values last."""
    branches = []
    for index, (key, value) in enumerate(zip(keys, values, strict=True)):
        equal = [_same(k.column, v) for k, v in zip(keys[:index], values[:index], strict=True)]
        branches.append(and_(*equal, _beyond(key, value)))
    return or_(false(), *branches)


def _same(column: Column, value: Any) -> ColumnElement[bool]:
    return column.is_(None) if value is None else column == value


def _beyond(key: _Key, value: Any) -> ColumnElement[bool]:
    if value is None:
        return false()
    beyond: ColumnElement[bool] = key.column < value if key.descending else key.column > value
    return or_(beyond, key.column.is_(None)) if is_nullable(key.column) else beyond


def _read_cursor(keys: Sequence[_Key], values: list[Any]) -> list[Any]:
    try:
        return [
            None if value is None else TypeAdapter(_cursor_type(key.column)).validate_python(value)
            for key, value in zip(keys, values, strict=True)
        ]
    except (ValidationError, ValueError) as error:
        raise Invalid("This cursor is not of this list; start again.", code="invalid_cursor", field="cursor") from error


def _cursor_type(column: Column) -> Any:
    kind = column.property.columns[0].type
    if isinstance(kind, Numeric):
        return Decimal
    python = kind.python_type
    return python if python in (datetime, date, UUID, int, bool) else python_type(column) if python is not str else str


def _scope(call: Call, resource: Resource, query: Query) -> str:
    about = [query.filter, query.params, query.q, query.sort, query.archived, str(query.parent_id)]
    return f"{call.tenant.id}:{resource.name}:{json.dumps(about, sort_keys=True, default=str)}"


def _search(resource: Resource, q: str) -> ColumnElement[bool]:
    if not resource.search:
        raise Invalid(f"{resource.name} cannot be searched by text.", code="not_searchable", field="q")
    try:
        words = clean_text(q[:200]).lower().split()
    except ValueError as error:
        raise Invalid(str(error), code="invalid_value", field="q") from error
    return and_(
        *(or_(*(func.lower(column).contains(word, autoescape=True) for column in resource.search)) for word in words[:10])
    )


async def _count(call: Call, resource: Resource, conditions: list[ColumnElement[bool]]) -> int:
    return await call.session.scalar(select(func.count(resource.model.id)).where(*conditions)) or 0

"""Reading rows: the one door behind which the statement of a list, a get and a count is built.

PostgreSQL builds the JSON and it is passed on as bytes; how the statements run is told by `rowhouse.exchange`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, Literal
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from sqlalchemy import (
    ColumnElement,
    Date,
    DateTime,
    Integer,
    Numeric,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    false,
    func,
    or_,
    select,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute

from rowhouse.core.call import Call
from rowhouse.core.errors import Invalid, NotFound
from rowhouse.core.filters import Filters
from rowhouse.core.references import models_by_table
from rowhouse.core.resource import Column, Resource, parent_table
from rowhouse.core.schemas import is_nullable, python_type
from rowhouse.core.search.query import narrow
from rowhouse.exchange import Ask, Statement
from rowhouse.values.cursors import Cursors
from rowhouse.values.jsonable import as_json

LARGEST_PAGE = 100
# Few different LIMITs make few different statements; what is read too much is cut off.
_LIMITS = (10, 25, 50, LARGEST_PAGE)


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


@dataclass(frozen=True)
class Page:
    """One page of rows, each a JSON object in UTF-8. next_cursor: "" on the last page.  total: None unless asked for."""

    rows: tuple[bytes, ...]
    next_cursor: str = ""
    total: int | None = None

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        """Return the rows as objects."""
        return [json.loads(row) for row in self.rows]


@dataclass(frozen=True, slots=True)
class _Key:
    column: Column
    descending: bool


async def list_rows(call: Call, resource: Resource, query: Query, cursors: Cursors) -> Page:
    """Return one page, and its total when asked, in one exchange.

    Raises Invalid for whatever the resource does not declare, NotFound for a parent that is not there.
    """
    if not 1 <= query.limit <= LARGEST_PAGE:
        raise Invalid(f"limit is 1 to {LARGEST_PAGE}.", field="limit")
    listing = await _listing(call, resource, query)
    scope = _scope(call, resource, query)
    if query.cursor:
        listing.start_after(_place(listing.keys, cursors, scope, query.cursor))
    is_part = resource.parent is not None and query.parent_id is not None
    asks = [listing.page(), *([listing.parent()] if is_part else []), *([listing.count()] if query.total else [])]
    found, *others = await call.read(*asks)
    if is_part and not others[0]:
        raise NotFound
    rows = [line[0] or b"" for line in found]
    cursor = cursors.encode(scope, listing.key_values(rows[query.limit - 1])) if len(rows) > query.limit else ""
    total = int(others[-1][0][0] or 0) if query.total else None
    return Page(tuple(listing.without_keys(rows[: query.limit])), cursor, total)


async def get_row(
    call: Call, resource: Resource, row_id: UUID, *, fields: tuple[str, ...] = (), parent_id: UUID | None = None
) -> bytes:
    """Return one row as a JSON object in UTF-8, an archived one too.  Raises NotFound, also for one of another parent."""
    columns, model = _columns(resource, fields), resource.model
    parent = resource.parent if parent_id is not None else None

    def build() -> Statement:
        chosen = [model.id == bindparam("row_id", row_id, Uuid())]
        if parent is not None:
            chosen.append(parent == bindparam("parent_id", parent_id, Uuid()))
        return select(func.row_to_json(select(*_as_shown(columns)).where(*chosen).subquery("p").table_valued()))

    shape = ("get", resource, fields, parent is not None)
    (found,) = await call.read(Ask(shape, build, {"row_id": row_id, "parent_id": parent_id}))
    if not found:
        raise NotFound
    return found[0][0] or b""


async def stream_rows(call: Call, resource: Resource, query: Query) -> AsyncIterator[dict[str, Any]]:
    """Yield every matching row as a JSON object, in the list's order, in bounded memory."""
    listing = await _listing(call, resource, query)
    names = [column.key for column in listing.columns]
    statement = select(*listing.columns).where(*listing.conditions).order_by(*_ordering(listing.keys))
    result = await call.session.stream(statement.execution_options(yield_per=500))
    async for row in result:
        yield as_json(names, row)


def names_of(resource: Resource, query: Query) -> list[str]:
    """Return the names of the fields a query answers with, in their order."""
    return [column.key for column in _columns(resource, query.fields)]


async def check_query(call: Call, resource: Resource, query: Query) -> None:
    """Raise Invalid for whatever a query asks that the resource does not declare."""
    await _listing(call, resource, query)


async def _listing(call: Call, resource: Resource, query: Query) -> _Listing:
    found = _Listing(call, resource, query)
    if query.q:
        found.filters.append(await narrow(call, resource, query.q))
    return found


class _Listing:
    """One list as it was asked for: its columns, its order, its conditions, and the statements made of them.

    Raises Invalid for whatever the resource does not declare.
    """

    def __init__(self, call: Call, resource: Resource, query: Query) -> None:
        self.resource, self.query = resource, query
        self.columns = _columns(resource, query.fields)
        self.keys = _keys(resource, query.sort)
        self._extra = _extra(self.columns, self.keys)
        filters = Filters(resource, now=call.now, zone=call.tenant.timezone)
        self.filters = [filters.single(name, operator, value) for name, operator, value in query.params]
        if query.filter is not None:
            filters.shape.append("filter")
            self.filters.append(filters.condition(query.filter))
        self.values, self.shape = filters.values, filters.shape
        self.values["parent_id"] = query.parent_id
        self.shape += [query.archived, query.parent_id is not None]
        self._after: ColumnElement[bool] | None = None

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions of the list, without its cursor. Made only for a statement that is not known yet."""
        query, archived, found = self.query, getattr(self.resource.model, "archived_at", None), list(self.filters)
        if archived is not None and query.archived != "all":
            found.append(archived.is_(None) if query.archived == "exclude" else archived.is_not(None))
        if query.parent_id is not None and self.resource.parent is not None:
            found.append(self.resource.parent == bindparam("parent_id", query.parent_id, Uuid()))
        return found

    def start_after(self, values: list[Any]) -> None:
        """Begin with the row that follows these key values."""
        self.values |= {f"after_{place}": value for place, value in enumerate(values)}
        self.shape.append(tuple(value is None for value in values))
        self._after = _after(self.keys, values)

    def page(self) -> Ask:
        """Return the reading of one row more than a page holds."""
        limit = next(size for size in _LIMITS if size >= self.query.limit) + 1
        return self._ask(("page", self.query.fields, self.query.sort, limit), lambda: self._page(limit))

    def count(self) -> Ask:
        """Return the reading of how many rows there are."""
        return self._ask("count", lambda: select(func.count(self.resource.model.id)).where(*self.conditions))

    def parent(self) -> Ask:
        """Return the reading of the parent's id, which comes back empty when it is not there."""
        parent = models_by_table()[parent_table(self.resource)]
        wanted = bindparam("parent_id", self.query.parent_id, Uuid())
        return Ask(("parent", parent), lambda: select(parent.id).where(parent.id == wanted), self.values)

    def key_values(self, row: bytes) -> list[Any]:
        """Return the values a row is ordered by, as JSON holds them."""
        found = from_json(row)
        return [found[name] for name in (self._extra or [key.column.key for key in self.keys])]

    def without_keys(self, rows: list[bytes]) -> list[bytes]:
        """Return the rows without what was read for the cursor alone."""
        if not self._extra:
            return rows
        # Quotes inside a text are escaped and nested objects have spaces, so this is the first of the added names.
        mark = f',"{self._extra[0]}":'.encode()
        return [row[: row.rfind(mark)] + b"}" for row in rows]

    def _ask(self, what: Any, build: Any) -> Ask:
        # What a search becomes depends on what it finds, so its statement is built each time.
        return Ask((what, self.resource, *self.shape), build, None if self.query.q else self.values)

    def _page(self, limit: int) -> Statement:
        extra = [key.column.label(name) for key, name in zip(self.keys, self._extra, strict=False)]
        chosen = [*self.conditions, *([self._after] if self._after is not None else [])]
        # Written into the statement: a plan kept for any LIMIT would be a plan for a tenth of the table.
        most = bindparam("rows", limit, Integer(), literal_execute=True)
        rows = select(*_as_shown(self.columns), *extra).where(*chosen).order_by(*_ordering(self.keys)).limit(most)
        return select(func.row_to_json(rows.subquery("p").table_valued()))


@lru_cache(2_000)
def _extra(columns: tuple[Column, ...], keys: tuple[_Key, ...]) -> tuple[str, ...]:
    """Return names for the key columns, when a caller did not ask for all of them."""
    is_enough = {key.column.key for key in keys} <= {column.key for column in columns}
    return () if is_enough else tuple(f"~{place}" for place in range(len(keys)))


def _as_shown(columns: Sequence[Column]) -> list[Any]:
    """Return columns as a document shows them: exact numbers as text."""
    exact = [isinstance(column.property.columns[0].type, Numeric) for column in columns]
    return [cast(c, Text).label(c.key) if is_exact else c.label(c.key) for c, is_exact in zip(columns, exact, strict=True)]


@lru_cache(2_000)
def _columns(resource: Resource, fields: tuple[str, ...]) -> tuple[Column, ...]:
    shown = resource.shown()
    if not fields:
        return shown
    by_name = {column.key: column for column in shown}
    if len(set(fields)) != len(fields):
        raise Invalid("Name each field once.", field="fields")
    unknown = [name for name in fields if name not in by_name]
    if unknown:
        raise Invalid(f"{resource.name} has no field {unknown[0][:100]}.", code="unknown_field", field="fields")
    return tuple(by_name[name] for name in fields)


@lru_cache(2_000)
def _keys(resource: Resource, sort: tuple[str, ...]) -> tuple[_Key, ...]:
    declared = {column.key: column for column in resource.order}
    if len({name.removeprefix("-") for name in sort}) != len(sort):
        raise Invalid("Sort by each field once.", code="not_sortable", field="sort")
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
    return (*keys, _Key(identity, keys[-1].descending if keys else True))


def _ordering(keys: Sequence[_Key]) -> list[Any]:
    # Where a column is never empty, saying where the empty ones go would only keep its index from being used.
    ordered = [(key.column, key.column.desc() if key.descending else key.column.asc()) for key in keys]
    return [order.nulls_last() if is_nullable(column) else order for column, order in ordered]


def _after(keys: Sequence[_Key], values: Sequence[Any]) -> ColumnElement[bool]:
    """Return "comes after these values", empty ones last."""
    kinds = [key.column.property.columns[0].type for key in keys]
    bound = [
        None if value is None else bindparam(f"after_{place}", value, kind)
        for place, (value, kind) in enumerate(zip(values, kinds, strict=True))
    ]
    if len({key.descending for key in keys}) == 1 and not any(is_nullable(key.column) for key in keys):
        # One comparison of rows is one place in the index.
        row, edge = tuple_(*(key.column for key in keys)), tuple_(*bound)
        return row < edge if keys[0].descending else row > edge
    branches = []
    for index, (key, value) in enumerate(zip(keys, bound, strict=True)):
        equal = [_same(k.column, v) for k, v in zip(keys[:index], bound[:index], strict=True)]
        branches.append(and_(*equal, _beyond(key, value)))
    return or_(false(), *branches)


def _same(column: Column, value: Any) -> ColumnElement[bool]:
    return column.is_(None) if value is None else column == value


def _beyond(key: _Key, value: Any) -> ColumnElement[bool]:
    if value is None:
        return false()
    beyond: ColumnElement[bool] = key.column < value if key.descending else key.column > value
    return or_(beyond, key.column.is_(None)) if is_nullable(key.column) else beyond


def _place(keys: Sequence[_Key], cursors: Cursors, scope: str, cursor: str) -> list[Any]:
    try:
        return [
            None if value is None else TypeAdapter(_cursor_type(key.column)).validate_python(value)
            for key, value in zip(keys, cursors.decode(scope, cursor), strict=True)
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
    tree = json.dumps(query.filter, sort_keys=True) if query.filter is not None else ""
    return repr((str(call.tenant.id), resource.name, tree, query.params, query.q, query.sort, query.archived, query.parent_id))

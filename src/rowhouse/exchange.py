"""Running the SELECTs of a call: together, in one exchange with the database, each compiled once per shape.

SQLAlchemy builds a statement and the guard scopes it; after that its text is kept, and a later statement of the same
shape sends only its values. A call that has written reads through its own transaction, so that it sees what it wrote.
"""

from __future__ import annotations

import hashlib
from collections import namedtuple
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, partial
from typing import Any
from uuid import UUID

from psycopg.adapt import Transformer
from psycopg.pq.abc import PGresult
from sqlalchemy import ARRAY, ColumnElement, Select, String, Text, any_, cast, inspect, literal
from sqlalchemy.dialects.postgresql import psycopg as dialects
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.util import AliasedInsp

from partywall import GuardRefusal, guard
from rowhouse.pipeline import Pipeline, Read

_MOST_KEPT = 1_000
# What gathers the columns of a class into one value.
Maker = Any
# Any: the class is not annotated.
DIALECT: Any = dialects.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

# A SELECT of any columns.
Statement = Select[*tuple[Any, ...]]
# One line of a result: each value in PostgreSQL's text form, None for NULL.
Line = tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """One SELECT to run.

    shape: asks of equal shape build equal SQL.  build: makes the statement, every varying value a named parameter.
    values: of those parameters; None when they have no names, so that the statement has to be built each time.
    """

    shape: Hashable
    build: Callable[[], Statement]
    values: Mapping[str, Any] | None


def ask_of(statement: Statement) -> Ask:
    """Return the ask of a statement that is built anew each time."""
    return Ask("rows", partial(_itself, statement), None)


@dataclass(frozen=True, slots=True)
class _Kept:
    text: bytes
    name: bytes
    order: tuple[str, ...]
    constants: Mapping[str, Any]
    # SQLAlchemy's own, to find the values of statements whose parameters have no names.
    compiled: Any


_kept: dict[Hashable, _Kept] = {}


async def over_pipeline(pipeline: Pipeline, tenant_id: UUID, asks: Sequence[Ask]) -> list[PGresult]:
    """Return the result of each ask, all read in one exchange and one transaction of the tenant."""
    return await pipeline.run(tenant_id, [read_of(ask, tenant_id) for ask in asks])


async def of_people(pipeline: Pipeline, ask: Ask) -> list[tuple[Any, ...]]:
    """Return the rows of an ask of the identity role, which belongs to no tenant; each a tuple of Python values."""
    if pipeline.of_tenants:
        raise GuardRefusal("tenants' rows are read by a call, which names the tenant")
    kept, given = _find(ask, is_scoped=False)
    # Constants of the statement are parameters too. For tenants' reads a missing value is an error instead.
    values = {**kept.constants, **given}
    (result,) = await pipeline.run(None, [Read(kept.text, kept.name, tuple([as_text(values[n]) for n in kept.order]))])
    return rows_of(result)


async def in_session(session: AsyncSession, ask: Ask) -> list[Line]:
    """Return the lines of an ask, read in the open transaction of a session."""
    statement = ask.build()
    texts = [cast(column, Text).label(f"c{place}") for place, column in enumerate(statement.selected_columns)]
    rows = await session.execute(statement.with_only_columns(*texts, maintain_column_froms=True))
    return [tuple(None if value is None else value.encode() for value in row) for row in rows]


def lines_of(result: PGresult) -> list[Line]:
    """Return the lines of a result as they came."""
    get, columns = result.get_value, range(result.nfields)
    if len(columns) == 1:
        return [(get(row, 0),) for row in range(result.ntuples)]
    return [tuple([get(row, column) for column in columns]) for row in range(result.ntuples)]


def rows_of(result: PGresult, makers: Sequence[Maker] = ()) -> list[tuple[Any, ...]]:
    """Return the lines of a result as Python values; a mapped class that was selected as one value with its columns."""
    loader = Transformer()
    loader.set_pgresult(result)
    rows = loader.load_rows(0, result.ntuples, tuple)
    return [_gathered(row, makers) for row in rows] if any(makers) else rows


def makers_of(statement: Statement) -> list[Maker]:
    """Return, for each thing a SELECT names, the tuple that gathers its columns, or None for a single value."""
    things = [inspect(described["expr"], raiseerr=False) for described in statement.column_descriptions]
    return [_record(thing.mapper) if isinstance(thing, Mapper | AliasedInsp) else None for thing in things]


@cache
def _record(mapper: Mapper[Any]) -> Maker:
    return namedtuple(mapper.class_.__name__, [column.key for column in mapper.column_attrs])  # made of data


def _gathered(row: tuple[Any, ...], makers: Sequence[Maker]) -> tuple[Any, ...]:
    values, at = [], 0
    for maker in makers:
        width = len(maker._fields) if maker is not None else 1
        values.append(maker(*row[at : at + width]) if maker is not None else row[at])
        at += width
    if at != len(row):
        raise GuardRefusal("a class was selected together with a column of its own; select one of the two")
    return tuple(values)


def one_of(column: Any, values: Iterable[Any]) -> ColumnElement[bool]:
    """Return "the column is one of these". A list sent as one array has one shape, whatever its length."""
    kind = column.property.columns[0].type
    return column == any_(literal(list(values), ARRAY(Text() if isinstance(kind, String) else kind)))  # type: ignore[no-any-return]


def read_of(ask: Ask, tenant_id: UUID) -> Read:
    """Return what is sent for an ask: the kept text of its shape, and its values."""
    kept, values = _find(ask)
    own = {guard.TENANT_PARAMETER: tenant_id}
    return Read(kept.text, kept.name, tuple([as_text(own[n] if n in own else values[n]) for n in kept.order]))


def _itself(statement: Statement) -> Statement:
    return statement


def _find(ask: Ask, *, is_scoped: bool = True) -> tuple[_Kept, Mapping[str, Any]]:
    if ask.values is not None:
        known = _kept.pop(ask.shape, None)
        if known is None:
            statement = ask.build()
            kept = replace(_compile(guard.scoped(statement) if is_scoped else statement, None), compiled=None)
        else:
            kept = _named(known)
        _keep(ask.shape, kept)
        return kept, ask.values
    statement = ask.build()
    found = statement._generate_cache_key()
    shape = (ask.shape, found.key) if found is not None else None
    known = _kept.pop(shape, None) if shape is not None else None
    kept = _named(known) if known is not None else _compile(guard.scoped(statement) if is_scoped else statement, found)
    if found is None:
        return kept, kept.compiled.construct_params()
    _keep(shape, kept)
    return kept, kept.compiled.construct_params(extracted_parameters=found.bindparams, escape_names=False)


def _named(kept: _Kept) -> _Kept:
    """Return a kept statement with its name: what comes a second time is worth a plan that stays on the connection."""
    return kept if kept.name else replace(kept, name=hashlib.sha256(kept.text).hexdigest()[:32].encode())


def _keep(shape: Hashable, kept: _Kept) -> None:
    _kept[shape] = kept
    if len(_kept) > _MOST_KEPT:
        # In the order of their last use, so the first is the one not asked for the longest.
        del _kept[next(iter(_kept))]


def _compile(statement: Statement, key: Any) -> _Kept:
    options = {"render_postcompile": True}
    if any(bind.expanding for bind in (key.bindparams if key is not None else ())):
        raise GuardRefusal("an IN list has no one shape; write one_of(column, values)")
    compiled = statement.compile(dialect=DIALECT, cache_key=key, compile_kwargs=options)
    text = compiled.string.encode()
    return _Kept(text, b"", tuple(compiled.positiontup or ()), compiled.params, compiled)


def as_text(value: Any) -> bytes | None:
    """Return a parameter's value in PostgreSQL's text form."""
    if value is None:
        return None
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("PostgreSQL holds no NUL; libpq would send what stands before it")
        return value.encode()
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    if isinstance(value, date):
        return value.isoformat().encode()
    if isinstance(value, list | tuple):
        return ("{" + ",".join(_element(item) for item in value) + "}").encode()
    return str(value).encode()


def _element(value: Any) -> str:
    text = as_text(value)
    if text is None:
        return "NULL"
    return '"' + text.decode().replace("\\", "\\\\").replace('"', '\\"') + '"'

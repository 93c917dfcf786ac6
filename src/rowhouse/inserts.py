"""New rows as INSERT statements that are compiled once per table and number of rows, to be sent in one exchange."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Table, bindparam, inspect
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Mapper

from rowhouse.exchange import DIALECT, as_text
from rowhouse.pipeline import Read

# Any number is a sum of these, so a table has few different statements.
_SIZES = (16, 8, 4, 2, 1)


def inserts_of(rows: Iterable[Any]) -> list[tuple[Table, list[dict[str, Any]]]]:
    """Return the values of new mapped rows by table, parents before their children.

    A column that was not set gets its default, on the row too, so that the row shows what is written.
    """
    found: dict[Table, list[dict[str, Any]]] = {}
    for row in rows:
        mapper: Mapper[Any] = inspect(type(row))
        for column, key in _defaults(mapper):
            if getattr(row, key) is None:
                setattr(row, key, _default(column))
        values = inspect(row).dict
        table = mapper.local_table
        assert isinstance(table, Table)
        found.setdefault(table, []).append({name: values[key] for name, key in _names(mapper) if values.get(key) is not None})
    return [(table, found[table]) for table in _ordered(next(iter(found)).metadata) if table in found] if found else []


def reads_of(table: Table, rows: Sequence[Mapping[str, Any]]) -> Iterator[Read]:
    """Yield the statements that insert rows, each a mapping of its columns; what a row leaves out stays empty."""
    used = set().union(*rows)
    names = tuple(column.name for column in table.columns if column.name in used)
    at = 0
    for size in _SIZES:
        while len(rows) - at >= size:
            text, name, columns = _statement(table, names, size)
            values = [_text(row.get(column), is_json) for row in rows[at : at + size] for column, is_json in columns]
            yield Read(text, name, tuple(values))
            at += size


@lru_cache(2_000)
def _statement(table: Table, names: tuple[str, ...], size: int) -> tuple[bytes, bytes, tuple[tuple[str, bool], ...]]:
    kinds = [(name, table.columns[name].type) for name in names]
    lines = [{name: bindparam(f"v{place}_{name}", None, kind) for name, kind in kinds} for place in range(size)]
    compiled = insert(table).values(lines).compile(dialect=DIALECT)
    if list(compiled.positiontup or ()) != [f"v{place}_{name}" for place in range(size) for name in names]:
        raise TypeError(f"the parameters of {table.name} do not come in the order of its columns")
    text = compiled.string.encode()
    return text, hashlib.sha256(text).hexdigest()[:32].encode(), tuple((name, isinstance(kind, JSONB)) for name, kind in kinds)


@cache
def _names(mapper: Mapper[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((prop.columns[0].name, prop.key) for prop in mapper.column_attrs)


@cache
def _defaults(mapper: Mapper[Any]) -> tuple[tuple[Any, str], ...]:
    return tuple((prop.columns[0], prop.key) for prop in mapper.column_attrs if prop.columns[0].default is not None)


def _default(column: Any) -> Any:
    default = column.default
    # SQLAlchemy has given every callable a context to take.
    return default.arg(None) if default.is_callable else default.arg


@cache
def _ordered(metadata: Any) -> tuple[Table, ...]:
    return tuple(metadata.sorted_tables)


def _text(value: Any, is_json: bool) -> bytes | None:
    return to_json(value) if is_json and value is not None else as_text(value)

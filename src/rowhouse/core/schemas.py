"""Input and output classes derived from a resource's columns; unknown fields are refused everywhere."""

from __future__ import annotations

import unicodedata
from datetime import date, datetime
from decimal import Decimal
from functools import cache, partial
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, create_model
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Uuid,
)
from sqlalchemy import Column as TableColumn

from rowhouse.core.errors import Invalid
from rowhouse.core.resource import Column, Resource
from rowhouse.values.text import PointInTime, clean_text

_LONGEST_TEXT = 100_000
_RANGES: dict[type, tuple[int, int]] = {
    SmallInteger: (-(2**15), 2**15 - 1),
    BigInteger: (-(2**63), 2**63 - 1),
    Integer: (-(2**31), 2**31 - 1),
}


def _short(value: dict[str, Any]) -> dict[str, Any]:
    def walk(item: Any, depth: int) -> int:
        if depth > 5:
            raise ValueError("nests deeper than 5 levels")
        if isinstance(item, str):
            return len(clean_text(item))
        if isinstance(item, dict):
            return sum(len(clean_text(key)) + walk(inner, depth + 1) for key, inner in item.items())
        return sum(walk(inner, depth + 1) for inner in item) if isinstance(item, list) else 8

    if walk(value, 0) > 16_384:
        raise ValueError("holds more than 16 KiB")
    return value


def _written(value: str) -> str:
    text = clean_text(value)
    # Joiners and other invisible characters alone would make a name nobody can see or click.
    if not any(unicodedata.category(character) not in {"Cf", "Zs"} for character in text):
        raise ValueError("must not be blank")
    return text


def _scaled(value: Decimal, *, scale: int) -> Decimal:
    # As the column will hold it, so that a create answers what a later get answers.
    return value.quantize(Decimal(1).scaleb(-scale))


def python_type(column: Column) -> Any:
    """Return the annotated Python type a column's values have on the way in, limits included."""
    table_column: TableColumn[Any] = column.property.columns[0]
    info, kind = table_column.info, table_column.type
    if "choices" in info:
        return info["choices"]
    if isinstance(kind, ARRAY):
        tag = Annotated[str, StringConstraints(min_length=1, max_length=50), AfterValidator(clean_text)]
        return Annotated[list[tag], Field(max_length=50)]
    if isinstance(kind, String):
        return Annotated[
            str,
            StringConstraints(max_length=kind.length or _LONGEST_TEXT, pattern=info.get("pattern")),
            AfterValidator(clean_text if table_column.nullable else _written),
        ]
    if isinstance(kind, Numeric):
        low = info.get("minimum")
        limits = Field(max_digits=kind.precision, decimal_places=kind.scale, ge=low)
        return Annotated[Decimal, limits, AfterValidator(partial(_scaled, scale=kind.scale or 0))]
    if isinstance(kind, Integer):
        low, high = _RANGES[next(known for known in _RANGES if isinstance(kind, known))]
        return Annotated[int, Field(ge=info.get("minimum", low), le=info.get("maximum", high))]
    return _plain_type(kind)


def _plain_type(kind: Any) -> Any:
    if isinstance(kind, Uuid):
        return UUID
    if isinstance(kind, Boolean):
        return bool
    if isinstance(kind, DateTime):
        return PointInTime
    if isinstance(kind, Date):
        return date
    return Annotated[dict[str, Any], AfterValidator(_short)]


def is_required(column: Column) -> bool:
    """Return whether a create must name the column: not nullable and without a default."""
    found = column.property.columns[0]
    return not found.nullable and found.default is None and found.server_default is None


def is_nullable(column: Column) -> bool:
    """Return whether the column may hold null."""
    return bool(column.property.columns[0].nullable)


@cache
def create_schema(resource_name: str, resource: Resource) -> type[BaseModel]:
    """Return the class of a create's body: the writable columns, and a replaced create's extra fields."""
    fields: dict[str, Any] = {}
    for column in resource.write:
        kind = python_type(column)
        if is_required(column) and "create" not in resource.replace:
            fields[column.key] = (kind, ...)
        else:
            fields[column.key] = (kind | None if is_nullable(column) or "create" in resource.replace else kind, None)
    return _with_extra(f"{_title(resource_name)}Create", fields, resource, "create")


@cache
def update_schema(resource_name: str, resource: Resource) -> type[BaseModel]:
    """Return the class of an update's body: every field optional; null only where the column takes it."""
    fields: dict[str, Any] = {}
    for column in resource.write:
        kind = python_type(column)
        fields[column.key] = (kind | None if is_nullable(column) else kind, None)
    return _with_extra(f"{_title(resource_name)}Update", fields, resource, "update")


@cache
def read_schema(resource_name: str, resource: Resource) -> type[BaseModel]:
    """Return the class that describes a row in answers."""
    fields: dict[str, Any] = {}
    for column in resource.shown():
        kind = _output_type(column)
        fields[column.key] = (kind | None if is_nullable(column) else kind, Field(default=None))
    return create_model(_title(resource_name), __config__=ConfigDict(extra="forbid"), **fields)


def _output_type(column: Column) -> Any:
    table_column = column.property.columns[0]
    if "choices" in table_column.info:
        return table_column.info["choices"]
    if isinstance(table_column.type, ARRAY):
        return list[str]
    if isinstance(table_column.type, String):
        return str
    if isinstance(table_column.type, Numeric):
        return Annotated[str, Field(pattern=r"^-?\d+(\.\d+)?$")]
    if isinstance(table_column.type, Integer):
        return int
    if isinstance(table_column.type, DateTime):
        return datetime
    kind = _plain_type(table_column.type)
    return dict[str, Any] | list[Any] if kind not in (UUID, bool, date) else kind


def _with_extra(name: str, fields: dict[str, Any], resource: Resource, verb: str) -> type[BaseModel]:
    replaced = resource.replace.get(verb)
    if replaced is not None:
        for key, field in replaced.extra.model_fields.items():
            fields[key] = (Annotated[field.annotation, field], ... if field.is_required() else field.default)
    return create_model(name, __config__=ConfigDict(extra="forbid", str_strip_whitespace=True), **fields)


def _title(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def validated(kind: Any, value: Any, field: str) -> Any:
    """Return a single value in a type.  Raises Invalid (invalid_value), naming the field."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise Invalid(error.errors()[0]["msg"], code="invalid_value", field=field) from error

"""The text of a cell as a value of a field: dates, money, numbers, lists, words of a closed set."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel

from rowhouse.values.money import minor_digits

_FACTORS = {"major": 1, "thousands": 1_000, "millions": 1_000_000}
_TRUE = frozenset({"true", "yes", "y", "1", "x", "on"})
_FALSE = frozenset({"false", "no", "n", "0", "off"})


class Unreadable(ValueError):
    """A cell's text is no value of its field; the message says what would be."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the cells of one file are to be read.

    date: a strptime format, "" for ISO dates.  decimal: "." or ",".  list: what parts the words of a list.
    zone: IANA name that dates without a time belong to.  currency: that of amounts whose row names none.
    """

    date: str = ""
    decimal: str = "."
    list: str = ";"
    zone: str = "UTC"
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class FieldKind:
    """What a field takes. type: a Python class, or `list` for words.  is_money: whole minor units."""

    type: Any
    is_money: bool = False


def kinds_of(schema: type[BaseModel], prefix: str = "") -> dict[str, FieldKind]:
    """Return the fields of an input class by name; those of a list of objects as "lines.name"."""
    found: dict[str, FieldKind] = {}
    for name, field in schema.model_fields.items():
        kind, inner = _plain(field.annotation)
        if inner is not None:
            found |= kinds_of(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = FieldKind(kind, name.endswith("_minor"))
    return found


def read_value(text: str, kind: FieldKind, reading: Reading, *, unit: str = "minor", currency: str = "") -> Any:
    """Return the value of a cell that is not empty.

    unit: of money, "minor", "major", "thousands" or "millions".  Raises Unreadable.
    """
    if kind.is_money:
        return _money(text, reading, unit=unit, currency=currency or reading.currency)
    if isinstance(kind.type, type) and issubclass(kind.type, StrEnum):
        return _choice(text, kind.type)
    read = _READERS.get(kind.type)
    return read(text, reading) if read is not None else text


def _plain(annotation: Any) -> tuple[Any, type[BaseModel] | None]:
    """Return the class behind Annotated and Optional, and for a list of objects the class of one."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _plain(next(part for part in get_args(annotation) if part is not type(None)))
    if origin is list:
        kind, _ = _plain(get_args(annotation)[0])
        return list, kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    return origin or annotation, None


def _money(text: str, reading: Reading, *, unit: str, currency: str) -> int:
    number = _decimal(re.sub(r"[^\d.,()+-]", "", text), reading)
    if unit != "minor":
        number = number * _FACTORS[unit] * 10 ** minor_digits(currency)
    if number != number.to_integral_value():
        raise Unreadable(f"The amount has more decimals than {currency} has; round it in the file.")
    return int(number)


def _decimal(text: str, reading: Reading) -> Decimal:
    negative = text.startswith("(") and text.endswith(")")
    groups = "." if reading.decimal == "," else ","
    plain = (
        text.strip("()").replace(groups, "").replace(" ", "").replace("\u00a0", "").replace("'", "").replace(reading.decimal, ".")
    )
    try:
        number = Decimal(plain)
    except InvalidOperation as error:
        raise Unreadable(f"Write it as a number with {reading.decimal!r} before the decimals.") from error
    if not number.is_finite():
        raise Unreadable("Write it as a finite number.")
    return -number if negative else number


def _integer(text: str, reading: Reading) -> int:
    number = _decimal(text, reading)
    if number != number.to_integral_value() or abs(number) > 2**63:
        raise Unreadable("Write it as a whole number.")
    return int(number)


def _boolean(text: str, _reading: Reading) -> bool:
    word = text.casefold()
    if word not in _TRUE | _FALSE:
        raise Unreadable("Write true or false.")
    return word in _TRUE


def _date(text: str, reading: Reading) -> date:
    return _moment(text, reading).date()


def _datetime(text: str, reading: Reading) -> datetime:
    return _moment(text, reading)


def _moment(text: str, reading: Reading) -> datetime:
    zone = ZoneInfo(reading.zone)
    try:
        if reading.date:
            found = datetime.strptime(text, reading.date)  # the zone is added below
        else:
            found = datetime.fromisoformat(text) if len(text) > 10 else datetime.combine(date.fromisoformat(text), time())
    except ValueError as error:
        shown = datetime(2026, 1, 31).strftime(reading.date) if reading.date else "2026-01-31"
        raise Unreadable(f"Write the date as {shown}, or say how it is written (date format).") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=zone)


def _words(text: str, reading: Reading) -> list[str]:
    return [word.strip() for word in text.split(reading.list) if word.strip()]


def _object(text: str, _reading: Reading) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("Write it as a JSON object.") from error
    if not isinstance(found, dict):
        raise Unreadable("Write it as a JSON object.")
    return found


def _uuid(text: str, _reading: Reading) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise Unreadable("Write it as an id of this workspace.") from error


def _choice(text: str, choices: type[StrEnum]) -> str:
    word = re.sub(r"\W+", "_", text.strip()).upper()
    for choice in choices:
        if text == choice.value or word == choice.value.upper():
            return choice.value
    raise Unreadable(f"Write one of: {', '.join(choices)}.")


_READERS: Mapping[Any, Callable[[str, Reading], Any]] = {
    int: _integer,
    Decimal: _decimal,
    bool: _boolean,
    date: _date,
    datetime: _datetime,
    AwareDatetime: _datetime,
    list: _words,
    dict: _object,
    UUID: _uuid,
}

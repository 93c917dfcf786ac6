"""Typed filters: the tree a caller sends, checked against the declared columns and turned into a SQL condition."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Boolean,
    ColumnElement,
    Date,
    DateTime,
    Integer,
    Numeric,
    String,
    Text,
    all_,
    and_,
    any_,
    bindparam,
    false,
    func,
    not_,
    or_,
)
from sqlalchemy import true as always

from rowhouse.core.errors import Invalid
from rowhouse.core.resource import Column, Resource
from rowhouse.core.schemas import python_type, validated
from rowhouse.values.dates import relative_day, relative_period
from rowhouse.values.text import clean_text

_DEEPEST, _MOST = 5, 50
_EQUALITY = frozenset({"eq", "ne", "in", "not_in", "is_null"})
_ORDERED = _EQUALITY | {"lt", "lte", "gt", "gte", "between"}
_COMPARE: Mapping[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "eq": lambda column, value: column == value,
    "ne": lambda column, value: column.is_distinct_from(value),
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "in": lambda column, value: column == any_(value),
    "not_in": lambda column, value: or_(column.is_(None), column != all_(value)),
    "between": lambda column, value: column.between(*value),
    "contains": lambda column, value: func.lower(column).like(value, escape="/"),
    "starts_with": lambda column, value: func.starts_with(func.lower(column), value),
    "has": lambda column, value: column.contains(value),
}


def operators(column: Column) -> frozenset[str]:
    """Return the operators a column can be filtered with."""
    kind = column.property.columns[0].type
    if isinstance(kind, ARRAY):
        return frozenset({"has", "is_null"})
    if "choices" in column.property.columns[0].info or isinstance(kind, Boolean):
        return _EQUALITY
    if isinstance(kind, String):
        return _ORDERED | {"contains", "starts_with"}
    if isinstance(kind, Date | DateTime):
        return _ORDERED | {"within"}
    if isinstance(kind, Integer | Numeric):
        return _ORDERED
    return _EQUALITY


class Filters:
    """Turns filter trees of one resource into conditions; dates are read in the tenant's zone.

    A tree is {"field", "op", "value"}, {"and": […]}, {"or": […]} or {"not": …}; at most 5 deep and 50 conditions.
    shape: what the conditions look like without their values: equal shapes are equal SQL.  values: of the parameters, by
    name.  Raises Invalid, naming the field: unknown_field, not_filterable, unknown_operator, invalid_value,
    filter_too_large.
    """

    def __init__(self, resource: Resource, *, now: datetime, zone: str) -> None:
        self.shape: list[Any] = []
        self.values: dict[str, Any] = {}
        self._resource = resource
        self._columns = {column.key: column for column in resource.filters}
        self._zone = ZoneInfo(zone)
        self._today = now.astimezone(self._zone).date()
        self._count = 0

    def condition(self, tree: Any, depth: int = 0) -> ColumnElement[bool]:
        """Return the condition of a tree."""
        if not isinstance(tree, dict):
            raise Invalid('A filter is an object such as {"field": "name", "op": "eq", "value": "Acme"}.', field="filter")
        if depth > _DEEPEST:
            raise Invalid(f"Filters nest at most {_DEEPEST} deep.", code="filter_too_large", field="filter")
        if set(tree) == {"and"} or set(tree) == {"or"}:
            ((word, branches),) = tree.items()
            if not isinstance(branches, list) or not branches:
                raise Invalid(f'"{word}" takes a list of at least one filter.', field="filter")
            self.shape.append((word, len(branches)))
            parts = [self.condition(branch, depth + 1) for branch in branches]
            return and_(always(), *parts) if word == "and" else or_(false(), *parts)
        if set(tree) == {"not"}:
            self.shape.append("not")
            # NULL counts as "does not match", so that a filter and its negation divide the rows between them.
            return not_(func.coalesce(self.condition(tree["not"], depth + 1), false()))
        if not {"field", "value"} <= set(tree) <= {"field", "op", "value"}:
            raise Invalid('A filter has "field", "op" and "value", or one of "and", "or", "not".', field="filter")
        return self.single(tree["field"], tree.get("op", "eq"), tree["value"])

    def single(self, name: Any, operator: Any, value: Any) -> ColumnElement[bool]:
        """Return the condition of one comparison."""
        self._count += 1
        if self._count > _MOST:
            raise Invalid(f"A filter holds at most {_MOST} conditions.", code="filter_too_large", field="filter")
        column = self._column(name)
        if not isinstance(operator, str) or operator not in operators(column):
            allowed = ", ".join(sorted(operators(column)))
            raise Invalid(f"{name} can be filtered by: {allowed}.", code="unknown_operator", field=str(name))
        self.shape.append((name, operator))
        if operator == "is_null":
            is_empty = _boolean(value, column.key)
            self.shape.append(is_empty)
            return column.is_(None) if is_empty else column.is_not(None)
        if operator == "within":
            return self._within(column, value)
        kind = column.property.columns[0].type
        if operator == "between":
            return _COMPARE[operator](column, [self._bind(item, kind) for item in self._values(column, operator, value)])
        if operator in {"in", "not_in"}:
            return _COMPARE[operator](column, self._bind(self._values(column, operator, value), ARRAY(kind)))
        return _COMPARE[operator](column, self._bind(*self._bound(column, operator, self._value(column, operator, value))))

    def _bind(self, value: Any, kind: Any) -> BindParameter[Any]:
        name = f"value_{len(self.values)}"
        self.values[name] = value
        return bindparam(name, value, kind)

    def _bound(self, column: Column, operator: str, value: Any) -> tuple[Any, Any]:
        """Return what is sent for a value, and its type."""
        if operator == "contains":
            return f"%{_escaped(value.lower())}%", Text()
        if operator == "starts_with":
            return value.lower(), Text()
        kind = column.property.columns[0].type
        return ([value], kind) if operator == "has" else (value, kind)

    def _column(self, name: Any) -> Column:
        if isinstance(name, str) and name in self._columns:
            return self._columns[name]
        shown = {column.key for column in self._resource.shown()}
        code = "not_filterable" if isinstance(name, str) and name in shown else "unknown_field"
        allowed = ", ".join(sorted(self._columns))
        raise Invalid(f"{self._resource.name} can be filtered by: {allowed}.", code=code, field=str(name)[:100])

    def _values(self, column: Column, operator: str, value: Any) -> list[Any]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list) or not 1 <= len(items) <= 500 or (operator == "between" and len(items) != 2):
            raise Invalid(
                f"{operator} takes a list of {'two' if operator == 'between' else '1 to 500'} values.", field=column.key
            )
        return [self._value(column, operator, item) for item in items]

    def _value(self, column: Column, operator: str, value: Any) -> Any:
        kind = column.property.columns[0].type
        if isinstance(kind, Date | DateTime) and isinstance(value, str):
            day = self._day(column, value)
            if day is not None:
                return self._edge(day, kind, operator, field=column.key)
        if operator in {"contains", "starts_with", "has"}:
            return _text(value, column.key)
        if isinstance(kind, DateTime) and isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            return self._edge(validated(date, value, column.key), kind, operator, field=column.key)
        return validated(python_type(column), value, column.key)

    def _day(self, column: Column, text: str) -> date | None:
        try:
            return relative_day(text, self._today)
        except ValueError as error:
            raise Invalid(f"{error}.", code="invalid_value", field=column.key) from error

    def _edge(self, day: date, kind: Any, operator: str, *, field: str) -> date | datetime:
        if isinstance(kind, Date):
            return day
        if operator in {"gt", "lte"}:
            # "up to a day" includes that day, and "after a day" begins with the next.
            return datetime.combine(_next(day, field), time(), self._zone) - timedelta(microseconds=1)
        return datetime.combine(day, time(), self._zone)

    def _within(self, column: Column, value: Any) -> ColumnElement[bool]:
        period = relative_period(value, self._today) if isinstance(value, str) else None
        if period is None:
            raise Invalid(
                "within takes today, yesterday, tomorrow, this/last/next_week/month/quarter/year, last_N_days or next_N_days.",
                code="invalid_value",
                field=column.key,
            )
        kind = column.property.columns[0].type
        edges = period if isinstance(kind, Date) else [datetime.combine(day, time(), self._zone) for day in period]
        start, end = (self._bind(edge, kind) for edge in edges)
        return and_(column >= start, column < end)


def _next(day: date, field: str) -> date:
    if day.year not in range(1000, 3001):
        raise Invalid("A day lies between the years 1000 and 3000.", code="invalid_value", field=field)
    return day + timedelta(days=1)


def _text(value: Any, field: str) -> str:
    text = validated(str, value, field)
    try:
        # What no column can hold is in no record; blanks around it may be meant.
        clean_text(text)
    except ValueError as error:
        raise Invalid(f"{error}.", code="invalid_value", field=field) from error
    return str(text)


def _escaped(text: str) -> str:
    return text.replace("/", "//").replace("%", "/%").replace("_", "/_")


def _boolean(value: Any, field: str) -> bool:
    return bool(validated(bool, value, field))

"""The text of a cell as a value."""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum

import pytest
from pydantic import AwareDatetime, BaseModel

from rowhouse.transfer.values import FieldKind, Reading, Unreadable, kinds_of, minor_digits, read_value

pytestmark = pytest.mark.no_database

PLAIN = Reading()


class Colour(StrEnum):
    LIGHT_RED = "LIGHT_RED"


class Line(BaseModel):
    name: str
    price_minor: int | None = None


class Thing(BaseModel):
    name: str
    colour: Colour | None = None
    seen_at: AwareDatetime | None = None
    tags: list[str] | None = None
    lines: list[Line] | None = None


def test_the_fields_of_a_class_include_those_of_its_lines():
    kinds = kinds_of(Thing)
    assert list(kinds) == ["name", "colour", "seen_at", "tags", "lines.name", "lines.price_minor"]
    assert kinds["lines.price_minor"].is_money
    assert kinds["tags"].type is list


@pytest.mark.parametrize(
    ("text", "unit", "currency", "minor"),
    [
        ("1054", "major", "USD", 105_400),
        ("$1,054.50", "major", "USD", 105_450),
        ("1100.04", "millions", "USD", 110_004_000_000),
        ("12", "thousands", "USD", 1_200_000),
        ("500", "major", "JPY", 500),
        ("1.5", "major", "KWD", 1500),
        ("105450", "minor", "USD", 105_450),
    ],
)
def test_money_becomes_minor_units(text, unit, currency, minor):
    assert read_value(text, FieldKind(int, is_money=True), PLAIN, unit=unit, currency=currency) == minor


def test_money_with_a_decimal_comma():
    assert read_value("1.054,50 €", FieldKind(int, is_money=True), Reading(decimal=","), unit="major", currency="EUR") == 105_450


@pytest.mark.parametrize(
    ("text", "kind", "reading", "value"),
    [
        ("10/20/2016", date, Reading(date="%m/%d/%Y"), date(2016, 10, 20)),
        ("2016-10-20", date, PLAIN, date(2016, 10, 20)),
        ("2016-10-20", datetime, PLAIN, datetime(2016, 10, 20, tzinfo=UTC)),
        ("2016-10-20", datetime, Reading(zone="Asia/Tokyo"), datetime(2016, 10, 19, 15, tzinfo=UTC)),
        ("2016-10-20T08:00:00+02:00", AwareDatetime, PLAIN, datetime(2016, 10, 20, 6, tzinfo=UTC)),
        ("2,822", int, PLAIN, 2822),
        ("(12)", int, PLAIN, -12),
        ("0.5", Decimal, PLAIN, Decimal("0.5")),
        ("Yes", bool, PLAIN, True),
        ("a; b;;c", list, PLAIN, ["a", "b", "c"]),
        ('{"country": "Kenya"}', dict, PLAIN, {"country": "Kenya"}),
        ("light red", Colour, PLAIN, "LIGHT_RED"),
        ("text", str, PLAIN, "text"),
    ],
)
def test_values_of_each_kind(text, kind, reading, value):
    assert read_value(text, FieldKind(kind), reading) == value


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("20/10/2016", date, "2026-01-31"),
        ("twelve", int, "number"),
        ("1.5", int, "whole"),
        ("NaN", Decimal, "finite"),
        ("maybe", bool, "true or false"),
        ("[1]", dict, "object"),
        ("green", Colour, "LIGHT_RED"),
    ],
)
def test_what_cannot_be_read_says_what_would_be(text, kind, says):
    with pytest.raises(Unreadable, match=says):
        read_value(text, FieldKind(kind), PLAIN)


def test_an_amount_finer_than_its_currency_is_refused():
    with pytest.raises(Unreadable, match="more decimals"):
        read_value("0.5", FieldKind(int, is_money=True), PLAIN, unit="major", currency="JPY")


def test_minor_digits():
    assert [minor_digits(code) for code in ("USD", "JPY", "KWD")] == [2, 0, 3]

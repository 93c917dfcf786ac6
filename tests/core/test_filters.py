"""Relative dates, periods and CSV cells: pure rules."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowhouse.values.csv_lines import csv_cell, escape_formula, unescape_formula
from rowhouse.values.dates import add_months, relative_day, relative_period
from rowhouse.values.text import clean_text

pytestmark = pytest.mark.no_database
TODAY = date(2024, 2, 29)
DAYS = st.dates(date(1990, 1, 1), date(2090, 1, 1))


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("today", date(2024, 2, 29)),
        ("yesterday", date(2024, 2, 28)),
        ("tomorrow", date(2024, 3, 1)),
        ("-30d", date(2024, 1, 30)),
        ("+2w", date(2024, 3, 14)),
        ("1m", date(2024, 3, 29)),
        ("-12m", date(2023, 2, 28)),
        ("4y", date(2028, 2, 29)),
        ("2024-01-01", None),
        ("soon", None),
    ],
)
def test_a_relative_day_is_counted_from_today(text: str, day: date | None) -> None:
    assert relative_day(text, TODAY) == day


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("this_week", date(2024, 2, 26), date(2024, 3, 4)),
        ("last_month", date(2024, 1, 1), date(2024, 2, 1)),
        ("this_quarter", date(2024, 1, 1), date(2024, 4, 1)),
        ("next_year", date(2025, 1, 1), date(2026, 1, 1)),
        ("last_7_days", date(2024, 2, 22), date(2024, 3, 1)),
        ("next_1_days", date(2024, 2, 29), date(2024, 3, 2)),
    ],
)
def test_a_period_runs_from_its_first_day_to_the_day_after_its_last(text: str, start: date, end: date) -> None:
    assert relative_period(text, TODAY) == (start, end)


def test_a_day_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves the calendar"):
        relative_day("9999y", TODAY)


@given(DAYS, st.integers(-600, 600))
def test_months_keep_the_day_or_shorten_it(day: date, count: int) -> None:
    moved = add_months(day, count)
    assert (moved.year * 12 + moved.month) - (day.year * 12 + day.month) == count
    assert moved.day == day.day or (moved + timedelta(days=1)).day == 1


@given(DAYS, st.sampled_from(["week", "month", "quarter", "year"]))
def test_last_this_and_next_touch_without_gap(day: date, unit: str) -> None:
    last, this, following = (relative_period(f"{word}_{unit}", day) for word in ("last", "this", "next"))
    assert last
    assert this
    assert following
    assert last[1] == this[0]
    assert this[1] == following[0]
    assert this[0] <= day < this[1]


@given(st.text(max_size=30) | st.text("'=+-@a", max_size=4))
def test_an_escaped_cell_comes_back_as_it_was(text: str) -> None:
    escaped = escape_formula(text)
    assert not escaped.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unescape_formula(escaped) == text


def test_cells_are_plain_text() -> None:
    assert [csv_cell(v) for v in (None, True, 3, ["a", "b"], "=1+1")] == ["", "true", "3", "a;b", "'=1+1"]


@pytest.mark.parametrize("text", ["a\0b", "a\u202eb", "a\x07b", "\ud800"])
def test_control_and_direction_characters_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="remove"):
        clean_text(text)


def test_text_is_trimmed_and_composed() -> None:
    assert clean_text("  Cafe\u0301 ") == "Café"

"""Days and periods told relative to today."""

from __future__ import annotations

import re
from datetime import date, timedelta

_OFFSET = re.compile(r"^([+-]?)(\d{1,4})([dwmy])$")


def relative_day(text: str, today: date) -> date | None:
    """Return the day that "today", "yesterday", "tomorrow", "-30d", "+2w", "-6m" or "1y" means; None for other text.

    Raises ValueError for a day outside the calendar.
    """
    named = {"today": 0, "yesterday": -1, "tomorrow": 1}
    if text in named:
        return today + timedelta(days=named[text])
    found = _OFFSET.match(text)
    if found is None:
        return None
    count = int(found[2]) * (-1 if found[1] == "-" else 1)
    try:
        if found[3] in "dw":
            return today + timedelta(days=count * (7 if found[3] == "w" else 1))
        return add_months(today, count * (12 if found[3] == "y" else 1))
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{text} leaves the calendar") from error


def relative_period(text: str, today: date) -> tuple[date, date] | None:
    """Return the first day and the day after the last of a named period; None when it is no such name."""
    rolling = re.fullmatch(r"(last|next)_(\d{1,4})_days", text)
    if rolling:
        days = timedelta(days=int(rolling[2]))
        return (today - days, today + timedelta(days=1)) if rolling[1] == "last" else (today, today + days + timedelta(days=1))
    if text in {"today", "yesterday", "tomorrow"}:
        day = relative_day(text, today)
        assert day is not None
        return day, day + timedelta(days=1)
    found = re.fullmatch(r"(this|last|next)_(week|month|quarter|year)", text)
    if found is None:
        return None
    step = {"last": -1, "this": 0, "next": 1}[found[1]]
    if found[2] == "week":
        start = today - timedelta(days=today.weekday()) + timedelta(weeks=step)
        return start, start + timedelta(weeks=1)
    months = {"month": 1, "quarter": 3, "year": 12}[found[2]]
    first = date(today.year, (today.month - 1) // months * months + 1, 1)
    return add_months(first, step * months), add_months(first, (step + 1) * months)


def add_months(day: date, count: int) -> date:
    """Return the same day `count` months on, or the last day of a shorter month."""
    index = day.year * 12 + day.month - 1 + count
    year, month = divmod(index, 12)
    last = (date(year + (month == 11), (month + 1) % 12 + 1, 1) - timedelta(days=1)).day
    return date(year, month + 1, min(day.day, last))

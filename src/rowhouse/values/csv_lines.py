"""CSV that a spreadsheet opens without running anything in it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_line(values: Sequence[Any]) -> bytes:
    """Return one line in UTF-8. Text a spreadsheet would take for a formula gets a leading apostrophe."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([csv_cell(value) for value in values])
    return text.getvalue().encode()


async def csv_file(names: Sequence[str], rows: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    """Yield the header, then one line per row, in UTF-8."""
    yield csv_line(names)
    async for row in rows:
        yield csv_line([row[name] for name in names])


def csv_cell(value: Any) -> str:
    """Return one value as text: empty for None, JSON for objects, words parted by ";" for lists of text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return escape_formula(";".join(value))
    if isinstance(value, dict | list):
        return escape_formula(json.dumps(value, ensure_ascii=False))
    return escape_formula(value) if isinstance(value, str) else str(value)


def escape_formula(text: str) -> str:
    """Return text that a spreadsheet shows instead of calculating; `unescape_formula` gives it back."""
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA_STARTS) else text


def unescape_formula(text: str) -> str:
    """Return the text that `escape_formula` was given."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA_STARTS) else text

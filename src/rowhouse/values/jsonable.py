"""Values as JSON holds them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID


def jsonable(value: Any) -> Any:
    """Return a value as JSON holds it: ids, times and exact numbers become text."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        # As PostgreSQL writes it into JSON, so that a create answers what a later get answers.
        moment = value.astimezone(UTC).isoformat()
        return f"{moment[:19]}.{moment[20:26].rstrip('0')}{moment[26:]}" if value.microsecond else moment
    if isinstance(value, date):
        return value.isoformat()
    return value


def as_json(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Return names and values as a JSON object: ids and exact numbers as text, times in ISO 8601."""
    return {name: jsonable(value) for name, value in zip(names, values, strict=False)}

"""Loaded rows as answers show them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import Numeric

from rowhouse.core.resource import Resource
from rowhouse.values.jsonable import as_json


def row_as_json(resource: Resource, row: Any) -> dict[str, Any]:
    """Return a loaded row as the JSON object a get would return."""
    found = as_json([column.key for column in resource.shown()], [getattr(row, column.key) for column in resource.shown()])
    for name, scale in _scales(resource):
        # A default was never read back, so it does not have its column's places yet.
        if found[name] is not None:
            found[name] = f"{getattr(row, name):.{scale}f}"
    return found


@lru_cache(2_000)
def _scales(resource: Resource) -> tuple[tuple[str, int], ...]:
    kinds = ((column.key, column.property.columns[0].type) for column in resource.shown())
    return tuple((name, kind.scale) for name, kind in kinds if isinstance(kind, Numeric) and kind.scale is not None)

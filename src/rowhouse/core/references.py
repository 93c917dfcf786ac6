"""Which columns name rows of other tenant tables, and whether what they name is there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from sqlalchemy import Table, Uuid, bindparam, inspect, select

from partywall import TenantScoped
from rowhouse.core.call import Call
from rowhouse.core.db import Base
from rowhouse.core.resource import Resource
from rowhouse.exchange import Ask, Statement


async def check_references(call: Call, resource: Resource, values: Mapping[str, Any]) -> None:
    """Raise ReferenceNotFound, naming the column, for an id that names no live row of this tenant."""
    named = {column: model for column, model in references(resource.model).items() if values.get(column) is not None}
    if not named:
        return
    asks = [Ask(("reference", model), partial(_live, model), {"row_id": values[column]}) for column, model in named.items()]
    for column, lines in zip(named, await call.read(*asks), strict=True):
        if not lines:
            # A row this call has added and not sent yet, or none.
            await call.reference(named[column], values[column], column)


def _live(model: Any) -> Statement:
    statement = select(model.id).where(model.id == bindparam("row_id", None, Uuid()))
    return statement.where(model.archived_at.is_(None)) if hasattr(model, "archived_at") else statement


def references(model: type[TenantScoped]) -> Mapping[str, type[TenantScoped]]:
    """Return the columns of a model that name a row of a tenant table, and that table's model."""
    return _references(inspect(model).local_table)


@cache
def _references(table: Table) -> Mapping[str, type[TenantScoped]]:
    found: dict[str, type[TenantScoped]] = {}
    for key in table.foreign_key_constraints:
        for element in key.elements:
            target, column = element.target_fullname.rsplit(".", 1)
            if column == "id" and target in models_by_table():
                found[element.parent.name] = models_by_table()[target]
    return found


@cache
def models_by_table() -> Mapping[str, type[TenantScoped]]:
    """Return the mapped class of every tenant table."""
    return {
        inspect(mapper.class_).local_table.name: mapper.class_
        for mapper in Base.registry.mappers
        if issubclass(mapper.class_, TenantScoped)
    }

"""Names in a file become ids of this workspace: looked up for a whole batch at a time, never row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ForeignKeyConstraint, func, or_, select

from partywall import TenantScoped
from rowhouse.core.call import Call
from rowhouse.core.references import references
from rowhouse.core.resource import Registry, Resource

_Model = type[TenantScoped]
Wanted = tuple[_Model, str]


@dataclass(frozen=True, slots=True)
class Target:
    """What a field refers to. within: columns of the same row that narrow the choice, such as a stage's pipeline."""

    model: _Model
    within: tuple[str, ...] = ()


def targets_of(registry: Registry, resource: Resource, fields: Iterable[str]) -> dict[str, Target]:
    """Return the fields that name a record, those of parts ("contacts.contact_id") included."""
    parts = registry.parts_of(resource)
    found: dict[str, Target] = {}
    for field in fields:
        owners = [part.model for part in parts] if "." in field else [resource.model]
        name = field.rsplit(".", 1)[-1]
        model = next((references(owner)[name] for owner in owners if name in references(owner)), None)
        if model is not None:
            found[field] = Target(model, _within(owners[0], name))
    return found


def key_names(registry: Registry, model: _Model) -> tuple[str, ...]:
    """Return the columns that recognise a record by text: its import key, then its name."""
    resource = registry.of_table(model.__table__.name)  # type: ignore[attr-defined]
    names = [column.key for column in resource.import_key] if resource is not None else []
    return tuple(dict.fromkeys([*names, *(["name"] if hasattr(model, "name") else [])]))


class References:
    """The records a batch refers to, kept loaded so that checking a reference costs no statement."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._rows: dict[_Model, dict[UUID, Any]] = {}
        self._by_text: dict[Wanted, list[Any]] = {}

    async def load(self, wanted: Iterable[Wanted]) -> None:
        """Look up texts, one statement per table, a second one for those that differ in upper and lower case."""
        by_model: dict[_Model, set[str]] = {}
        for model, text in wanted:
            by_model.setdefault(model, set()).add(text)
        for model, texts in by_model.items():
            await self._load(model, texts, exact=True)
            missing = {text for text in texts if (model, text) not in self._by_text}
            if missing:
                await self._load(model, missing, exact=False)

    def add(self, row: Any) -> None:
        """Let later rows of the batch find a record this batch has added."""
        for name in key_names(self._call.registry, type(row)):
            text = getattr(row, name)
            if isinstance(text, str) and text:
                known = self._by_text.setdefault((type(row), text), [])
                if row not in known:
                    known.append(row)
        self._rows.setdefault(type(row), {})[row.id] = row

    def find(self, model: _Model, text: str, within: Mapping[str, Any]) -> list[Any]:
        """Return the records a text names: none, one, or several that stay ambiguous.

        within: values of columns that must agree; None counts as agreeing.
        """
        found = self._by_text.get((model, text), [])
        if len(found) > 1:
            return [row for row in found if all(value in (None, getattr(row, name)) for name, value in within.items())]
        return found

    async def _load(self, model: _Model, texts: set[str], *, exact: bool) -> None:
        names = key_names(self._call.registry, model)
        conditions = [_is_one_of(getattr(model, name), texts, exact=exact) for name in names]
        ids = {text: found for text in texts if (found := _uuid(text)) is not None}
        if ids:
            conditions.append(model.id.in_(ids.values()))
        statement = select(model).where(or_(*conditions))
        if hasattr(model, "archived_at"):
            statement = statement.where(model.archived_at.is_(None))
        rows = {row.id: row for row in await self._call.session.scalars(statement)}
        self._rows.setdefault(model, {}).update(rows)
        for text in texts:
            named = [rows[ids[text]]] if ids.get(text) in rows else _first_key(rows.values(), names, text, exact=exact)
            if named:
                self._by_text[model, text] = named


def _first_key(rows: Iterable[Any], names: tuple[str, ...], text: str, *, exact: bool) -> list[Any]:
    rows = list(rows)
    for name in names:
        found = [row for row in rows if _same(getattr(row, name), text, exact=exact)]
        if found:
            return found
    return []


def _same(value: Any, text: str, *, exact: bool) -> bool:
    return value == text if exact else isinstance(value, str) and value.lower() == text.lower()


def _is_one_of(column: Any, texts: set[str], *, exact: bool) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = column.in_(texts) if exact else func.lower(column).in_({text.lower() for text in texts})
    return condition


def _within(owner: _Model, name: str) -> tuple[str, ...]:
    """Return the columns that one foreign key holds beside a name and the tenant, called the same on both sides."""
    for key in owner.__table__.foreign_key_constraints:  # type: ignore[attr-defined]
        assert isinstance(key, ForeignKeyConstraint)
        pairs = {element.parent.name: element.column.name for element in key.elements}
        if pairs.get(name) == "id":
            return tuple(mine for mine, theirs in pairs.items() if mine == theirs and mine != "tenant_id")
    return ()


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

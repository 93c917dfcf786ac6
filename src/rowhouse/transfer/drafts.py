"""Rows of a file as typed input of a resource, with every fault by line, and what of it an existing record still lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from rowhouse.core.call import Call
from rowhouse.core.errors import RowhouseError
from rowhouse.core.operations import parse
from rowhouse.core.resource import Registry, Resource
from rowhouse.core.schemas import create_schema, update_schema
from rowhouse.transfer.mapping import Plan
from rowhouse.transfer.references import References, Target, Wanted, targets_of
from rowhouse.transfer.sources import RowFault, SourceRow
from rowhouse.transfer.values import FieldKind, Reading, Unreadable, kinds_of, read_value
from rowhouse.values.csv_lines import csv_cell, unescape_formula
from rowhouse.values.jsonable import jsonable

_ID = FieldKind(UUID)


@dataclass(slots=True)
class Draft:
    """One row on its way: values by field ("lines.name" for parts), the text each was read from, what is still missing.

    links: fields that name a record of the same kind which does not exist yet.
    """

    line: int
    texts: dict[str, str]
    values: dict[str, Any] = field(default_factory=dict)
    faults: list[RowFault] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)

    def fault(self, name: str, code: str, message: str) -> None:
        """Note what is wrong with a field."""
        self.faults.append(RowFault(self.line, name, code, message))


def fields_of(resource: Resource) -> dict[str, FieldKind]:
    """Return every field an import of a resource may fill."""
    created, updated = create_schema(resource.name, resource), update_schema(resource.name, resource)
    return kinds_of(created) | kinds_of(updated) | {"id": _ID}


class Drafter:
    """Turns rows into drafts for one call: texts to values, names to ids."""

    def __init__(self, call: Call, resource: Resource, plan: Plan) -> None:
        self._plan, self._resource = plan, resource
        formats = plan.formats
        zone, currency = call.tenant.timezone, call.tenant.currency
        self._reading = Reading(formats.date, formats.decimal, formats.list, zone=zone, currency=currency)
        self._kinds = fields_of(resource)
        self._targets = targets_of(call.registry, resource, (name for name in plan.fields if name != "id"))
        self._units = {name: plan.unit_of(name) for name in plan.fields}
        self.references = References(call)

    async def drafts(self, rows: Iterable[SourceRow]) -> list[Draft]:
        """Return the drafts of the rows the plan does not leave out, references resolved as far as they exist."""
        drafts = [self._draft(row.line, texts) for row in rows if (texts := self._plan.texts(row)) is not None]
        await self.references.load(self._wanted(drafts))
        return drafts

    def resolve(self, draft: Draft) -> None:
        """Put ids in place of names; a record of the same kind that is not there yet becomes a link."""
        for name in sorted(self._targets, key=lambda name: len(self._targets[name].within)):
            text = draft.texts.get(name)
            if text:
                self._resolve(draft, name, text)

    def _resolve(self, draft: Draft, name: str, text: str) -> None:
        target = self._targets[name]
        found = self.references.find(target.model, text, {column: draft.values.get(column) for column in target.within})
        if len(found) == 1:
            draft.values[name] = found[0].id
        elif found:
            draft.fault(name, "ambiguous_reference", _ambiguous(text, len(found), target))
        elif target.model is self._resource.model:
            draft.links[name] = text
        else:
            draft.fault(name, "reference_not_found", f"{_shown(text)} names no record in this workspace; import it first.")

    def _draft(self, line: int, texts: dict[str, str]) -> Draft:
        draft = Draft(line, texts)
        for name, text in texts.items():
            if not text:
                if self._plan.formats.blank == "clear" and "." not in name:
                    draft.values[name] = None
                continue
            if name in self._targets:
                continue
            currency = texts.get("currency", "")
            try:
                draft.values[name] = read_value(text, self._kinds[name], self._reading, unit=self._units[name], currency=currency)
            except Unreadable as error:
                draft.fault(name, "invalid_value", str(error))
        return draft

    def _wanted(self, drafts: Iterable[Draft]) -> set[Wanted]:
        return {
            (target.model, draft.texts[name])
            for draft in drafts
            for name, target in self._targets.items()
            if draft.texts.get(name)
        }


def create_input(draft: Draft) -> dict[str, Any]:
    """Return what a create is given."""
    return {name: value for name, value in _nested(draft.values).items() if value is not None and name != "id"}


class Comparer:
    """Tells what of a draft an existing record lacks, so that importing twice changes nothing."""

    def __init__(self, registry: Registry, resource: Resource, plan: Plan) -> None:
        self._resource = resource
        self._schema = update_schema(resource.name, resource)
        nested = {name.split(".", 1)[0]: set[str]() for name in plan.fields if "." in name}
        for name in plan.fields:
            if "." in name:
                nested[name.split(".", 1)[0]].add(name.split(".", 1)[1])
        self._parts = {name: _part_of(registry, resource, keys) for name, keys in nested.items()}

    def parts(self) -> list[Resource]:
        """Return the parts whose rows the comparison needs."""
        return [part for part in self._parts.values() if part is not None]

    def changes(self, draft: Draft, row: Any, parts: Mapping[str, list[Any]]) -> dict[str, Any]:
        """Return what an update is to be given, {} when the record has it all already; faults go into the draft.

        parts: the record's present parts by resource name.
        """
        given = {name: value for name, value in _nested(draft.values).items() if name != "id"}
        try:
            parsed = parse(self._schema, {name: value for name, value in given.items() if name in self._schema.model_fields})
        except RowhouseError as error:
            note_error(draft, error)
            return {}
        changes: dict[str, Any] = {}
        for name, value in given.items():
            if name in self._parts:
                if self._part_differs(name, value, parts):
                    changes[name] = value
            elif name not in self._schema.model_fields:
                self._check_fixed(draft, row, name, value)
            elif _differs(getattr(row, name, None), getattr(parsed, name), draft.texts.get(name, "")):
                changes[name] = value
        return changes

    def _part_differs(self, name: str, given: list[dict[str, Any]], parts: Mapping[str, list[Any]]) -> bool:
        part = self._parts[name]
        present = parts.get(part.name) if part is not None else None
        if present is None or len(present) != len(given):
            return True
        return any(
            getattr(row, key) != value for row, values in zip(present, given, strict=True) for key, value in values.items()
        )

    def _check_fixed(self, draft: Draft, row: Any, name: str, value: Any) -> None:
        before = getattr(row, name, value)
        same = before.casefold() == value.casefold() if isinstance(before, str) and isinstance(value, str) else before == value
        if value is not None and not same:
            draft.fault(name, "create_only", "This is set when a record is created and cannot be changed by an import.")


def note_error(draft: Draft, error: RowhouseError) -> None:
    """Note an operation's refusal of a draft, one fault per field."""
    for fault in error.faults:
        draft.fault(fault.field, fault.code, fault.message)
    if not error.faults:
        draft.fault("", error.code, error.message)


def _differs(before: Any, after: Any, text: str) -> bool:
    # What an export wrote is recognised as it was written, so that an exported file changes nothing.
    return bool(before != after) and unescape_formula(csv_cell(jsonable(before))) != text


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if "." in name:
            outer, inner = name.split(".", 1)
            found.setdefault(outer, [{}])[0][inner] = value
        else:
            found[name] = value
    return found


def _part_of(registry: Registry, resource: Resource, keys: set[str]) -> Resource | None:
    """Return the part that has all these columns, when exactly one has."""
    fitting = [part for part in registry.parts_of(resource) if keys <= {column.key for column in part.write}]
    return fitting[0] if len(fitting) == 1 else None


def _ambiguous(text: str, count: int, target: Target) -> str:
    narrower = f"name {' and '.join(target.within)} too, or " if target.within else ""
    return f"{_shown(text)} names {count} records; {narrower}use the id or an external id."


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")

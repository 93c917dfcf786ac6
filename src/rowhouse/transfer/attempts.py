"""One pass over a batch of rows in one transaction: match, compare, then create or update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import and_, or_, select

from rowhouse.core import operations
from rowhouse.core.audit import changes_of
from rowhouse.core.call import Call
from rowhouse.core.errors import Invalid, RowhouseError
from rowhouse.core.operations import parse
from rowhouse.core.resource import Resource
from rowhouse.core.schemas import create_schema
from rowhouse.transfer.drafts import Comparer, Draft, Drafter, create_input, note_error
from rowhouse.transfer.mapping import Plan
from rowhouse.transfer.references import key_names
from rowhouse.transfer.sources import RowFault, SourceRow

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """A row that names a record of its own kind which was not there yet."""

    line: int
    row_id: UUID
    field: str
    text: str


@dataclass(slots=True)
class Outcome:
    """What one pass did, in rows. faults: by line, rows that were not written.

    refused: by line, rows an operation refused half-way; the transaction must not be kept.  keys: hashes of the names
    and keys of the rows written.
    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    left_out: int = 0
    faults: dict[int, list[RowFault]] = field(default_factory=dict)
    refused: dict[int, list[RowFault]] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    keys: set[int] = field(default_factory=set)


class Attempt:
    """One pass over a batch. plan: with its match.  seen: hashes of names and keys that count as existing in a dry run."""

    def __init__(self, call: Call, resource: Resource, plan: Plan, mode: str, seen: set[int]) -> None:
        self._call, self._resource, self._plan, self._mode, self._seen = call, resource, plan, mode, seen
        self._drafter = Drafter(call, resource, plan)
        self._comparer = Comparer(call.registry, resource, plan)
        self._match = plan.match
        self._known: dict[Key, list[Any]] = {}
        self._parts: dict[UUID, dict[str, list[Any]]] = {}
        self._names = key_names(call.registry, resource.model)
        self._outcome = Outcome()

    async def run(self, rows: Sequence[SourceRow]) -> Outcome:
        """Write the rows and return what was done; rows with faults are left out."""
        drafts = await self._drafter.drafts(rows)
        self._outcome.left_out = len(rows) - len(drafts)
        await self._find_existing(drafts)
        for draft in drafts:
            self._drafter.resolve(draft)
            if not draft.faults:
                await self._write(draft)
            if draft.faults and draft.line not in self._outcome.refused:
                self._outcome.faults[draft.line] = draft.faults
        return self._outcome

    async def _write(self, draft: Draft) -> None:
        row = self._existing(draft)
        if draft.faults:
            return
        if row is None:
            await self._create(draft)
        else:
            await self._update(draft, row)

    def _existing(self, draft: Draft) -> Any:
        """Return the record a draft is about, None when there is none; what its mode forbids becomes a fault."""
        field_name = self._match[0] if self._match else ""
        key = self._key(draft)
        if key is None:
            if self._mode == "update" or "id" in self._match:
                draft.fault(field_name, "match_missing", "The row does not say which record it is about; fill this in.")
            return None
        found = self._known.get(key, [])
        live = [row for row in found if getattr(row, "archived_at", None) is None] or found
        if len(live) > 1:
            draft.fault(field_name, "ambiguous_match", f"{len(live)} records have this value; match by another field.")
        elif not live and (self._mode == "update" or self._match == ("id",)):
            draft.fault(field_name, "match_not_found", "No record of this workspace has this value.")
        elif live and self._mode == "create":
            draft.fault(field_name, "duplicate", "A record with this value exists already; import in mode both to change it.")
        elif live and getattr(live[0], "archived_at", None) is not None:
            draft.fault(field_name, "archived", "The record is archived; restore it before changing it.")
        return live[0] if live else None

    async def _create(self, draft: Draft) -> None:
        before = len(self._added())
        try:
            data = create_input(draft)
            parse(create_schema(self._resource.name, self._resource), data)
        except RowhouseError as error:
            note_error(draft, error)
            return
        try:
            row = await operations.create(self._call, self._resource, data)
        except RowhouseError as error:
            self._refuse(draft, error, before)
            return
        self._drafter.references.add(row)
        self._remember(self._key(draft), row)
        # A dry run has rolled back what an earlier batch created, so a row met again is an update.
        if self._seen and self._key(draft) is not None and hash(self._key(draft)) in self._seen:
            self._outcome.updated += 1
        else:
            self._outcome.created += 1
        self._note_written(draft, row)

    async def _update(self, draft: Draft, row: Any) -> None:
        changes = self._comparer.changes(draft, row, self._parts.get(row.id, {}))
        if draft.faults:
            return
        if not changes:
            self._outcome.unchanged += 1
            self._note_written(draft, row)
            return
        before = len(self._added())
        try:
            await operations.update(self._call, self._resource, row.id, changes)
        except RowhouseError as error:
            self._refuse(draft, error, before)
            return
        touched = bool(changes_of(row)) or len(self._added()) > before or row in self._call.session.new
        self._outcome.updated += touched
        self._outcome.unchanged += not touched
        self._note_written(draft, row)

    def _refuse(self, draft: Draft, error: RowhouseError, before: int) -> None:
        note_error(draft, error)
        self._outcome.refused[draft.line] = draft.faults
        # What the refused row had added would make later rows look like duplicates of it.
        added = self._added()
        for key in list(added)[before:]:
            self._call.session.expunge(added.pop(key))

    def _added(self) -> dict[Any, Any]:
        """Return what this transaction has added so far, in order."""
        added: dict[Any, Any] = self._call.session.sync_session.info.setdefault("added", {})
        return added

    def _note_written(self, draft: Draft, row: Any) -> None:
        self._outcome.links += [Link(draft.line, row.id, name, text) for name, text in draft.links.items()]
        self._outcome.keys.add(hash(self._key(draft)))
        self._outcome.keys.update(hash(text) for name in self._names if (text := draft.texts.get(name)))

    async def _find_existing(self, drafts: Sequence[Draft]) -> None:
        keys = {key for draft in drafts if (key := self._key(draft)) is not None}
        if not keys:
            return
        for row in await self._call.session.scalars(select(self._resource.model).where(self._matches(keys))):
            self._remember(tuple(_comparable(name, getattr(row, name)) for name in self._match), row)
        rows = [row for found in self._known.values() for row in found]
        for part in self._comparer.parts():
            await self._load_parts(part, [row.id for row in rows])

    def _matches(self, keys: Iterable[Key]) -> Any:
        columns = [_column(self._resource.model, name) for name in self._match]
        if len(columns) == 1:
            return columns[0].in_([key[0] for key in keys])
        return or_(*(and_(*(column == value for column, value in zip(columns, key, strict=True))) for key in keys))

    async def _load_parts(self, part: Resource, ids: Sequence[UUID]) -> None:
        column: Any = part.parent
        order = [part.model.position] if hasattr(part.model, "position") else []
        statement = select(part.model).where(column.in_(ids)).order_by(*order, part.model.id)
        for row_id in ids:
            self._parts.setdefault(row_id, {})[part.name] = []
        for row in await self._call.session.scalars(statement):
            self._parts[getattr(row, column.key)][part.name].append(row)

    def _remember(self, key: Key | None, row: Any) -> None:
        if key is not None:
            self._known.setdefault(key, []).append(row)

    def _key(self, draft: Draft) -> Key | None:
        if not self._match:
            return None
        key = tuple(_comparable(name, draft.values.get(name)) for name in self._match)
        return None if None in key else key


def match_of(resource: Resource, plan: Plan) -> tuple[str, ...]:
    """Return what recognises a record when the plan does not say: its id, else the first column of its import key in the file.

    Raises Invalid (match_missing) when the file has none of them.
    """
    names = ("id", *(column.key for column in resource.import_key))
    for name in names:
        if name in plan.fields:
            return (name,)
    if not resource.import_key:
        return ()
    raise Invalid(
        f"Nothing in the file recognises a record; map a column to {' or '.join(names[1:])}, or name the field to match by.",
        code="match_missing",
        field="mapping",
    )


def _column(model: Any, name: str) -> Any:
    # Addresses are compared in their normal form where the table keeps one.
    return getattr(model, f"{name}_norm") if name == "email" and hasattr(model, "email_norm") else getattr(model, name)


def _comparable(name: str, value: Any) -> Any:
    return value.casefold() if name == "email" and isinstance(value, str) else value

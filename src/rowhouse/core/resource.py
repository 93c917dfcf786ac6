"""Declare the nouns: what a thing is, and which of its columns may be written, filtered, searched, shown.

A `Resource` is data. Its kind fixes the verbs; its actions and reports are plain functions. Everything else (labels,
types, limits, permissions, routes, CSV headers) is derived from it by the walkers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator
from sqlalchemy import Table
from sqlalchemy.orm import InstrumentedAttribute

from partywall import TenantScoped
from rowhouse.core.permissions import READS, Capability, Permission, Role
from rowhouse.values.text import clean_text

Column = InstrumentedAttribute[Any]


class Kind(StrEnum):
    """What a resource's rows are; it fixes the verbs."""

    RECORD = "record"
    PART = "part"
    SETTINGS = "settings"
    JOURNAL = "journal"
    ROLLUP = "rollup"


VERBS: Mapping[Kind, tuple[str, ...]] = {
    Kind.RECORD: (
        "list",
        "get",
        "create",
        "update",
        "archive",
        "restore",
        "delete",
        "bulk",
        "import",
        "export",
        "history",
    ),
    Kind.PART: ("list", "get", "create", "update", "delete", "export", "history"),
    Kind.SETTINGS: ("get", "update", "history"),
    Kind.JOURNAL: ("list", "get", "export"),
    Kind.ROLLUP: ("list", "get", "export", "recompute"),
}

# Verbs that ask for more than the resource's own writer role.
_ADMIN_VERBS = {"delete": None, "bulk": None, "import": None, "export": Capability.EXPORT_DATA}


class Input(BaseModel):
    """Base of every input class of an action, a report or a replaced verb: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    @field_validator("*", mode="after")
    @classmethod
    def _clean(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [clean_text(item) if isinstance(item, str) else item for item in value]
        return clean_text(value) if isinstance(value, str) and not isinstance(value, StrEnum) else value


class NoInput(Input):
    """An action that takes nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """What `check` is told before a write reaches the database.

    verb: "create", "update", "archive", "restore" or "delete".  before: old values of the changed columns, by name.
    """

    row: Any
    verb: str
    before: Mapping[str, Any] = field(default_factory=dict)


Run = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Action:
    """A named thing that is done to one row, or to the collection.

    run: `async (call, row, data)` for a row, `async (call, data)` for the collection; returns a row of the resource, an
    `output` instance, or None.  reads: it changes nothing (a preview).  shown_once: its answer holds a
    secret, so it is never kept for an Idempotency-Key.
    """

    run: Run
    name: str
    input: type[Input]
    output: type[BaseModel] | None
    on: Literal["row", "collection"]
    role: Role
    capability: Capability | None
    reads: bool
    shown_once: bool


@dataclass(frozen=True, slots=True)
class Report:
    """A read that is not a list: `async (call, params)`, or `async (call, row, params)` for one row.

    output: the class of one line when `many`, else of the whole answer.
    """

    run: Run
    name: str
    params: type[Input]
    output: type[BaseModel]
    on: Literal["row", "collection"]
    many: bool


def action(
    *,
    input: type[Input] = NoInput,
    output: type[BaseModel] | None = None,
    on: Literal["row", "collection"] = "row",
    role: Role = Role.MEMBER,
    capability: Capability | None = None,
    reads: bool = False,
    shown_once: bool = False,
) -> Callable[[Run], Action]:
    """Turn an async function into an `Action` named after it (underscores become hyphens)."""

    def declare(run: Run) -> Action:
        name = run.__name__.strip("_").replace("_", "-")
        return Action(run, name, input, output, on, role, capability, reads, shown_once)

    return declare


def report(
    *,
    output: type[BaseModel],
    params: type[Input] = NoInput,
    on: Literal["row", "collection"] = "collection",
    many: bool = True,
) -> Callable[[Run], Report]:
    """Turn an async function into a `Report` named after it (underscores become hyphens)."""

    def declare(run: Run) -> Report:
        return Report(run, run.__name__.strip("_").replace("_", "-"), params, output, on, many)

    return declare


@dataclass(frozen=True, slots=True)
class Replace:
    """A verb done by the module's own function: create, update, or a rollup's recompute.

    run: `async (call, values)` for create, `async (call, row, values)` for update; returns the row. For recompute
    `async (call, data)` with an `extra` instance; returns the touched rows.  extra: an input class whose fields are
    accepted beside the resource's `write` columns; they arrive in the same `values`.
    """

    run: Run
    extra: type[Input] = NoInput


@dataclass(frozen=True, slots=True)
class Access:
    """The weakest roles that may read and write; members who hold the capability may do both whatever their role."""

    read: Role = Role.VIEWER
    write: Role = Role.MEMBER
    capability: Capability | None = None


ADMIN_WRITES = Access(write=Role.ADMIN)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resource:
    """One noun. At most sixteen options; a column not named is read-only, unfilterable and unsearchable.

    model: the mapped class.  name: plural, as in the URL.  group: the permission and navigation group.
    parent: for a part, its column that names the parent.  write: columns a caller may set.  hidden: never shown.
    filters, search, order: columns that may be filtered, searched by text, sorted by; the first of `order` is the
    default, newest first for a moment, else ascending.  check: `async (call, Change)`, run before each write.
    import_key: columns, each of which recognises a row in an import.  access: who may read and write.
    replace: verbs done by the module.
    """

    model: type[TenantScoped]
    name: str
    group: str
    kind: Kind = Kind.RECORD
    parent: Column | None = None
    write: tuple[Column, ...] = ()
    hidden: tuple[Column, ...] = ()
    filters: tuple[Column, ...] = ()
    search: tuple[Column, ...] = ()
    order: tuple[Column, ...] = ()
    actions: tuple[Action, ...] = ()
    reports: tuple[Report, ...] = ()
    check: Callable[[Any, Change], Awaitable[None]] | None = None
    import_key: tuple[Column, ...] = ()
    access: Access = Access()
    replace: Mapping[str, Replace] = field(default_factory=dict)

    @property
    def table(self) -> Table:
        """Return the mapped table."""
        table: Table = self.model.__table__  # type: ignore[attr-defined]
        return table

    @property
    def singular(self) -> str:
        """Return the name of one row, used in events and problem texts."""
        return self.table.name

    @property
    def verbs(self) -> tuple[str, ...]:
        """Return the verbs this resource has."""
        return VERBS[self.kind]

    def shown(self) -> tuple[Column, ...]:
        """Return the columns a caller may read, in table order."""
        hidden = {column.key for column in self.hidden} | {"tenant_id"}
        return tuple(getattr(self.model, c.key) for c in self.model.__mapper__.column_attrs if c.key not in hidden)  # type: ignore[attr-defined]

    @lru_cache(4_000)  # noqa: B019  # resources live as long as the program
    def permission(self, verb: str) -> Permission:
        """Return what a verb, an action or a report of this resource asks of the caller."""
        for named in self.actions:
            if named.name == verb:
                return Permission(self.name, self.group, verb, named.role, named.capability)
        capability = self.access.capability
        if verb in READS or any(named.name == verb for named in self.reports):
            return Permission(self.name, self.group, verb, self.access.read, capability)
        if verb in _ADMIN_VERBS:
            return Permission(self.name, self.group, verb, Role.ADMIN, _ADMIN_VERBS[verb])
        return Permission(self.name, self.group, verb, self.access.write, capability)


class Registry:
    """Every resource of the running program, by name and by table. Built once by the composition root."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._by_name: dict[str, Resource] = {}
        self._by_table: dict[str, Resource] = {}
        for resource in resources:
            check_declaration(resource)
            if resource.name in self._by_name:
                raise ValueError(f"two resources are named {resource.name}")
            self._by_name[resource.name] = resource
            self._by_table[resource.table.name] = resource

    def __iter__(self) -> Any:
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> Resource:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def of_table(self, table: str) -> Resource | None:
        """Return the resource of a table, or None when the table has none."""
        return self._by_table.get(table)

    def of_model(self, model: type) -> Resource:
        """Return the resource of a mapped class.  Raises KeyError when it has none."""
        return self._by_table[model.__table__.name]  # type: ignore[attr-defined]

    def parts_of(self, resource: Resource) -> tuple[Resource, ...]:
        """Return the parts that live in a resource's rows."""
        return tuple(part for part in self if part.kind is Kind.PART and parent_table(part) == resource.table.name)


def parent_table(part: Resource) -> str:
    """Return the name of the table a part lives in."""
    assert part.parent is not None
    name = part.parent.key
    for key in part.table.foreign_key_constraints:
        if name in [column.name for column in key.columns]:
            return key.elements[0].target_fullname.rsplit(".", 1)[0]
    raise ValueError(f"{part.name}: {name} refers to no parent")


def check_declaration(resource: Resource) -> None:
    """Raise ValueError, naming the fault, unless a declaration is sound."""
    if (resource.kind is Kind.PART) != (resource.parent is not None):
        raise ValueError(f"{resource.name}: a part names its parent column, and only a part does")
    hidden = {column.key for column in resource.hidden}
    exposed = {column.key for column in (*resource.filters, *resource.search, *resource.order)}
    if hidden & exposed:
        raise ValueError(f"{resource.name}: hidden columns cannot be filtered, searched or sorted: {hidden & exposed}")
    if resource.kind is Kind.ROLLUP and "recompute" not in resource.replace:
        raise ValueError(f"{resource.name}: a rollup says under replace how it is recomputed")
    if "tenant_id" in {column.key for column in resource.write}:
        raise ValueError(f"{resource.name}: tenant_id cannot be written")
    foreign = [column.key for column in (*resource.write, *resource.filters) if column.class_ is not resource.model]
    if foreign:
        raise ValueError(f"{resource.name}: columns of another class: {foreign}")

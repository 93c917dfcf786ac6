"""Tenancy classes of tables, and the composite keys that make a foreign row unreachable.

Every mapped table is one of

- *tenant*: rows belong to one tenant; `TenantScoped`. Guarded, under a policy, keyed by `(tenant_id, …)`.
- *shared*: reference data every tenant may read and none may write; `Shared`.
- *identity*: people, sessions, domains: read before a tenant is known, by the identity role alone; `IdentityTable`.
- *operator*: the platform's own tables, for the operator role alone; `OperatorTable`.

A table of no class stops the program (`classify`), so a new model cannot start unprotected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, Table, UniqueConstraint
from sqlalchemy.orm import Mapped, declared_attr, mapped_column, registry

from partywall.errors import Unclassified
from partywall.ids import uuid7

TENANT_COLUMN = "tenant_id"


class TableClass(StrEnum):
    """Who a table's rows belong to."""

    TENANT = "tenant"
    SHARED = "shared"
    IDENTITY = "identity"
    OPERATOR = "operator"


class TenantScoped:
    """Mixin of every table whose rows belong to one tenant.

    Adds `tenant_id` and `id` (UUIDv7) as the primary key `(tenant_id, id)`. On the declarative base,
    `__tenant_key__` may name the column of the tenants' table ("tenant.id") that `tenant_id` refers to.

    __append_only__: the application may insert and read, never update or delete (audit, history).
    __identity_access__: what the identity role may do beside the tenant ("SELECT", "INSERT", "UPDATE"), for the few
    tables that are read before a tenant is known, such as memberships.
    """

    __append_only__: ClassVar[bool] = False
    __identity_access__: ClassVar[tuple[str, ...]] = ()

    @declared_attr
    def tenant_id(cls) -> Mapped[UUID]:
        key = getattr(cls, "__tenant_key__", None)
        return mapped_column(*([ForeignKey(key)] if key else []), primary_key=True, sort_order=-1001)

    @declared_attr
    def id(cls) -> Mapped[UUID]:
        return mapped_column(primary_key=True, default=uuid7, sort_order=-1000)


class Shared:
    """Mixin of a table that belongs to no tenant; `__reason__` says why and is shown by `verify`."""

    __table_class__: ClassVar[TableClass] = TableClass.SHARED
    __reason__: ClassVar[str] = ""


class IdentityTable(Shared):
    """Mixin of a table that is read before a tenant is known, by the identity role only."""

    __table_class__: ClassVar[TableClass] = TableClass.IDENTITY


class OperatorTable(Shared):
    """Mixin of a table of the platform itself, for the operator role only."""

    __table_class__: ClassVar[TableClass] = TableClass.OPERATOR


@dataclass(frozen=True, slots=True)
class Classification:
    """The declared tenancy of one table."""

    table: Table
    table_class: TableClass
    reason: str = ""
    append_only: bool = False
    identity_access: tuple[str, ...] = ()


def tenant_reference(column: str, target: str, *, key: str = "id", ondelete: str | None = None) -> ForeignKeyConstraint:
    """Return the composite foreign key `(tenant_id, column)` to `target(tenant_id, key)`.

    ondelete: None, "CASCADE" or "RESTRICT".  Raises ValueError for SET NULL and SET DEFAULT, which would clear the
    tenant as well and which a distributed table refuses.
    """
    if ondelete is not None and ondelete not in {"CASCADE", "RESTRICT"}:
        raise ValueError(f"ondelete={ondelete!r} on {column}: use CASCADE or RESTRICT and clear the column in the action")
    return ForeignKeyConstraint([TENANT_COLUMN, column], [f"{target}.{TENANT_COLUMN}", f"{target}.{key}"], ondelete=ondelete)


def tenant_unique(*columns: str, name: str | None = None) -> UniqueConstraint:
    """Return a unique key that starts with the tenant."""
    return UniqueConstraint(TENANT_COLUMN, *columns, name=name)


def tenant_index(name: str, *columns: Any, **options: Any) -> Index:
    """Return an index led by the tenant. Columns are names or expressions; options go to `sqlalchemy.Index`."""
    return Index(name, TENANT_COLUMN, *columns, **options)


def classify(models: registry) -> Mapping[str, Classification]:
    """Return the classification of every table of a registry's metadata, by table name.

    Raises Unclassified, naming every table whose class inherits none of the mixins.
    """
    found: dict[str, Classification] = {}
    for mapper in models.mappers:
        cls, table = mapper.class_, mapper.local_table
        if not isinstance(table, Table):
            continue
        if issubclass(cls, TenantScoped):
            found[table.name] = Classification(table, TableClass.TENANT, "", cls.__append_only__, tuple(cls.__identity_access__))
        elif issubclass(cls, Shared) and cls.__reason__:
            found[table.name] = Classification(table, cls.__table_class__, cls.__reason__)
    missing = sorted({table.name for table in models.metadata.tables.values()} - set(found))
    if missing:
        raise Unclassified(
            f"tables without a tenancy class: {', '.join(missing)}; inherit TenantScoped, or Shared, IdentityTable or "
            "OperatorTable with a __reason__"
        )
    return found


def key_faults(classes: Mapping[str, Classification]) -> list[str]:
    """Return one line per key of a tenant table that does not carry the tenant; empty when all do."""
    tenant_tables = {name for name, found in classes.items() if found.table_class is TableClass.TENANT}
    faults: list[str] = []
    for name in sorted(tenant_tables):
        table = classes[name].table
        faults += _column_faults(table)
        faults += _foreign_key_faults(table, tenant_tables)
    return faults


def _column_faults(table: Table) -> Iterable[str]:
    column = table.columns.get(TENANT_COLUMN)
    if column is None or column.nullable:
        yield f"{table.name}: tenant_id is missing or nullable"
        return
    if next(iter(table.primary_key.columns), None) is not column:
        yield f"{table.name}: the primary key does not start with tenant_id"
    uniques: list[UniqueConstraint | Index] = [c for c in table.constraints if isinstance(c, UniqueConstraint)]
    for unique in [*uniques, *(index for index in table.indexes if index.unique)]:
        if next(iter(unique.columns), None) is not column:
            yield f"{table.name}: unique key {unique.name} does not start with tenant_id"


def _foreign_key_faults(table: Table, tenant_tables: set[str]) -> Iterable[str]:
    for key in table.foreign_key_constraints:
        target = key.elements[0].target_fullname.rsplit(".", 1)[0]
        columns = [column.name for column in key.columns]
        pairs = {(element.parent.name, element.target_fullname.rsplit(".", 1)[1]) for element in key.elements}
        if target in tenant_tables and (TENANT_COLUMN, TENANT_COLUMN) not in pairs:
            yield f"{table.name}: foreign key {columns} to {target} does not carry tenant_id"
        if (key.ondelete or "").upper().startswith(("SET NULL", "SET DEFAULT")):
            yield f"{table.name}: foreign key {columns} uses ON DELETE {key.ondelete}"

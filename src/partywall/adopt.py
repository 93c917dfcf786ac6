"""Alembic: turn a table without tenants into a tenant's table, in steps that lock briefly and can each be undone.

op.adopt_add_column(t)                the column, empty
op.adopt_stamp(t, rule)               fills it in batches; returns how many rows the rule left unresolved
op.adopt_key(t)                       proves that no row is left, and builds the unique index that references need
op.adopt_reference(t, column, to)     the composite foreign key in place of the single one
op.adopt_finish(t)                    NOT NULL, primary and unique keys led by the tenant, policies

Every table takes a step before any takes the next. `undo=True` takes it back, in reverse order. Stamps and keys commit
what was done before them, so a migration that fails goes on where it stopped when it is run again.
"""

from __future__ import annotations

from typing import Any

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import inspect

from partywall.errors import PartywallError
from partywall.rls import IDENTITY_POLICY, OPERATOR_POLICY, TENANT_POLICY, ProtectTable
from partywall.tables import TENANT_COLUMN as TENANT


class Unresolved(PartywallError):
    """A row without a tenant, or a key that cannot be led by one, stands in the way."""


class Adopt(MigrateOperation):
    """The steps, each an operation of Alembic."""

    @classmethod
    def adopt_add_column(cls, operations: Operations, table: str, *, undo: bool = False) -> None:
        """Add `tenant_id` without a value."""
        _run(operations, f"ALTER TABLE {_quoted(table)} {'DROP' if undo else 'ADD'} {TENANT}{'' if undo else ' uuid'}")

    @classmethod
    def adopt_stamp(cls, operations: Operations, table: str, rule: str, *, batch: int = 5000, undo: bool = False) -> int:
        """Give each row the tenant of `rule`, each batch in a transaction of its own, and return the rows left over.

        rule: SQL over the row, giving a uuid, such as "(SELECT tenant_id FROM folder WHERE folder.id = folder_id)".
        """
        name, value = _quoted(table), "NULL" if undo else f"({rule})::uuid"
        due = f"{TENANT} IS NOT NULL" if undo else f"{TENANT} IS NULL AND {value} IS NOT NULL"
        some = f"ARRAY(SELECT ctid FROM {name} WHERE {due} LIMIT {batch})"  # noqa: S608 - a migration's own words
        with operations.get_context().autocommit_block():
            while _run(operations, f"UPDATE {name} SET {TENANT} = {value} WHERE ctid = ANY ({some})").rowcount:  # noqa: S608
                pass
            return int(_run(operations, f"SELECT count(*) FROM {name} WHERE {TENANT} IS NULL").scalar_one())  # noqa: S608

    @classmethod
    def adopt_key(cls, operations: Operations, table: str, *, undo: bool = False) -> None:
        """Build the key without blocking writers.  Raises Unresolved, with the first rows, if some have no tenant."""
        name, index, check = _quoted(table), _quoted(f"{table}_tenant_key"), _quoted(f"{table}_tenant_known")
        with operations.get_context().autocommit_block():
            _run(operations, f"DROP INDEX IF EXISTS {index}")
            _run(operations, f"ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {check}")
            if undo:
                return
            left = _run(operations, f"SELECT t::text FROM {name} t WHERE {TENANT} IS NULL LIMIT 5").scalars().all()  # noqa: S608
            if left:
                raise Unresolved(f"rows of {table} have no tenant; extend the rule or move them away: {'; '.join(left)}")
            # SET NOT NULL later believes a valid CHECK, so it need not read the table under its lock.
            _run(operations, f"ALTER TABLE {name} ADD CONSTRAINT {check} CHECK ({TENANT} IS NOT NULL) NOT VALID")
            _run(operations, f"ALTER TABLE {name} VALIDATE CONSTRAINT {check}")
            _run(operations, f"CREATE UNIQUE INDEX CONCURRENTLY {index} ON {name} ({TENANT}, {_primary(operations, table)[1]})")

    @classmethod
    def adopt_reference(cls, operations: Operations, table: str, column: str, target: str, *, undo: bool = False) -> None:
        """Replace the single foreign key; it fails on a row that refers to another tenant's row."""
        name, key = _quoted(table), _primary(operations, target)[1]
        old, new = ([column], [TENANT, column])[:: -1 if undo else 1]
        found = [each for each in inspect(operations.get_bind()).get_foreign_keys(table) if each["constrained_columns"] == old]
        action = found[0]["options"].get("ondelete", "") if found else ""
        cascade = f" ON DELETE {action}" if action in ("CASCADE", "RESTRICT") else ""
        constraint, there = _quoted(f"{table}_{'_'.join(new)}_fkey"), key if undo else f"{TENANT}, {key}"
        columns = f"({', '.join(map(_quoted, new))}) REFERENCES {_quoted(target)} ({there})"
        _run(operations, f"ALTER TABLE {name} ADD CONSTRAINT {constraint} FOREIGN KEY {columns}{cascade} NOT VALID")
        _run(operations, f"ALTER TABLE {name} VALIDATE CONSTRAINT {constraint}")
        for each in found:
            _run(operations, f"ALTER TABLE {name} DROP CONSTRAINT {_quoted(str(each['name']))}")

    @classmethod
    def adopt_finish(cls, operations: Operations, table: str, *, undo: bool = False, **declared: Any) -> None:
        """Close the table.  declared: as for protect_table.  Raises Unresolved for a unique index that it cannot lead."""
        inspector, (primary, key), lead = (
            inspect(operations.get_bind()),
            _primary(operations, table),
            "" if undo else f"{TENANT}, ",
        )
        indexes = [each for each in inspector.get_indexes(table) if each["unique"] and not each.get("duplicates_constraint")]
        loose = {str(each["name"]) for each in indexes} - {f"{table}_tenant_key"}
        if loose and not undo:
            raise Unresolved(f"unique index {min(loose)} of {table} cannot be led by the tenant; drop it and make it anew after")
        changes = [f"DROP CONSTRAINT {primary}, ADD CONSTRAINT {primary} PRIMARY KEY ({lead}{key})"]
        for unique in inspector.get_unique_constraints(table):
            name, columns = (
                _quoted(str(unique["name"])),
                [_quoted(column) for column in unique["column_names"] if column != TENANT],
            )
            changes.append(f"DROP CONSTRAINT {name}, ADD CONSTRAINT {name} UNIQUE ({lead}{', '.join(columns)})")
        changes.append(f"ALTER {TENANT} {'DROP' if undo else 'SET'} NOT NULL")
        for change in changes:
            _run(operations, f"ALTER TABLE {_quoted(table)} {change}")
        if undo:
            for policy in (TENANT_POLICY, OPERATOR_POLICY, IDENTITY_POLICY):
                _run(operations, f"DROP POLICY IF EXISTS {policy} ON {_quoted(table)}")
            _run(operations, f"ALTER TABLE {_quoted(table)} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")
        else:
            ProtectTable.protect_table(operations, table, "tenant", **declared)


for _name in ("adopt_add_column", "adopt_stamp", "adopt_key", "adopt_reference", "adopt_finish"):
    Operations.register_operation(_name)(Adopt)


def _primary(operations: Operations, table: str) -> tuple[str, str]:
    """Return the name of the primary key, and its columns without the tenant."""
    found = inspect(operations.get_bind()).get_pk_constraint(table)
    columns = [_quoted(column) for column in found["constrained_columns"] if column != TENANT]
    return _quoted(str(found["name"])), ", ".join(columns)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _run(operations: Operations, sql: str) -> Any:
    return operations.get_bind().exec_driver_sql(sql.replace("%", "%%"))

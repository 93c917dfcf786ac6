"""Adoption: a schema of one customer becomes a tenants' schema, step by step, and back again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from engines import Engines, fresh_engines
from library import ROLES, TENANT_A, TENANT_B
from sqlalchemy import Connection, MetaData, Table
from sqlalchemy.exc import DBAPIError

from partywall import TableClass
from partywall.adopt import Unresolved
from partywall.rls import set_tenant_sql
from partywall.tables import Classification
from partywall.verify import verify

SCHEMA = """
DROP TABLE IF EXISTS note, folder;
CREATE TABLE folder (id int PRIMARY KEY, name text NOT NULL UNIQUE, customer text);
CREATE TABLE note (id int PRIMARY KEY, folder_id int NOT NULL REFERENCES folder ON DELETE CASCADE, body text);
INSERT INTO folder SELECT n, 'folder ' || n, CASE WHEN n <= 5 THEN 'a' ELSE 'b' END FROM generate_series(1, 10) n;
INSERT INTO note SELECT n, 1 + n %% 10, 'note ' || n FROM generate_series(1, 95) n;
"""
BY_CUSTOMER = f"CASE customer WHEN 'a' THEN '{TENANT_A.id}' WHEN 'b' THEN '{TENANT_B.id}' END"
BY_FOLDER = "(SELECT tenant_id FROM folder WHERE folder.id = folder_id)"


@pytest.fixture(scope="module")
def database() -> Iterator[Engines]:
    with fresh_engines("pwadopt") as engines:
        yield engines


@pytest.fixture
def owner(database: Engines) -> Iterator[Connection]:
    with database.owner.connect() as connection:
        connection.exec_driver_sql(SCHEMA)
        connection.commit()
        yield connection


@contextmanager
def migration(connection: Connection) -> Iterator[Any]:
    connection.rollback()
    context = MigrationContext.configure(connection, opts={"partywall_roles": ROLES, "transaction_per_migration": True})
    with context.begin_transaction(_per_migration=True):
        yield Operations(context)


STEPS: list[Callable[..., Any]] = [
    lambda op, undo: [op.adopt_add_column(table, undo=undo) for table in ("folder", "note")],
    lambda op, undo: [
        op.adopt_stamp(table, rule, batch=4, undo=undo) for table, rule in (("folder", BY_CUSTOMER), ("note", BY_FOLDER))
    ],
    lambda op, undo: [op.adopt_key(table, undo=undo) for table in ("folder", "note")],
    lambda op, undo: op.adopt_reference("note", "folder_id", "folder", undo=undo),
    lambda op, undo: [op.adopt_finish(table, undo=undo) for table in ("folder", "note")],
]


def take(connection: Connection, number: int, *, undo: bool = False) -> Any:
    with migration(connection) as op:
        return STEPS[number](op, undo)


def shape(connection: Connection) -> list[str]:
    """Return every column, constraint, index and policy of the two tables, and their rows."""
    of_two = "WHERE {} IN ('folder'::regclass, 'note'::regclass)"
    queries = (
        f"SELECT attrelid::regclass || attname || attnotnull FROM pg_attribute {of_two.format('attrelid')}"
        " AND attnum > 0 AND NOT attisdropped",
        f"SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint {of_two.format('conrelid')} AND contype <> 'n'",
        f"SELECT pg_get_indexdef(indexrelid) FROM pg_index {of_two.format('indrelid')}",
        f"SELECT polname FROM pg_policy {of_two.format('polrelid')}",
        f"SELECT relname || relrowsecurity || relforcerowsecurity FROM pg_class {of_two.format('oid')}",
    )
    connection.rollback()
    return sorted(row for query in queries for row in connection.exec_driver_sql(query).scalars())


def test_an_adopted_schema_is_green(database: Engines, owner: Connection) -> None:
    for number in range(len(STEPS)):
        take(owner, number)

    metadata = MetaData()
    classes = {
        name: Classification(Table(name, metadata, autoload_with=owner, resolve_fks=False), TableClass.TENANT)
        for name in ("folder", "note")
    }
    owner.commit()
    with database.app.connect() as probe:
        report = verify(owner, classes, ROLES, probe=probe, tenants=(TENANT_A.id, TENANT_B.id))
    assert report.findings == []
    assert {table.name: (table.probe, table.own_rows) for table in report.tables} == {
        "folder": ("proved", 10),
        "note": ("proved", 95),
    }


def test_the_app_sees_one_tenants_rows_after_adoption(database: Engines, owner: Connection) -> None:
    for number in range(len(STEPS)):
        take(owner, number)

    with database.app.connect() as app:
        app.exec_driver_sql(set_tenant_sql(TENANT_A.id))
        assert app.exec_driver_sql("SELECT array_agg(id ORDER BY id) FROM folder").scalar() == [1, 2, 3, 4, 5]


def test_the_rows_a_rule_leaves_over_are_counted(owner: Connection) -> None:
    owner.exec_driver_sql("UPDATE folder SET customer = NULL WHERE id IN (3, 7)")
    owner.commit()
    take(owner, 0)

    folders, notes = take(owner, 1)

    assert (folders, notes) == (2, 19)


def test_unresolved_rows_are_shown_and_stop_the_key(owner: Connection) -> None:
    owner.exec_driver_sql("UPDATE folder SET customer = NULL WHERE id = 3")
    owner.commit()
    take(owner, 0)
    take(owner, 1)

    with pytest.raises(Unresolved, match=r"folder have no tenant.*\(3,\"folder 3\",,\)"):
        take(owner, 2)


def test_a_second_rule_resolves_what_the_first_left(owner: Connection) -> None:
    owner.exec_driver_sql("UPDATE folder SET customer = NULL WHERE id = 3")
    owner.commit()
    take(owner, 0)
    take(owner, 1)

    with migration(owner) as op:
        left = op.adopt_stamp("folder", f"'{TENANT_B.id}'")

    assert left == 0
    owner.rollback()
    stamped = owner.exec_driver_sql("SELECT tenant_id, count(*) FROM folder GROUP BY 1").all()
    assert {row[0]: row[1] for row in stamped} == {TENANT_A.id: 4, TENANT_B.id: 6}


def test_a_row_that_refers_across_tenants_stops_the_reference(owner: Connection) -> None:
    for number in range(3):
        take(owner, number)
    owner.rollback()
    owner.exec_driver_sql(f"UPDATE note SET tenant_id = '{TENANT_B.id}' WHERE folder_id = 1")
    owner.commit()

    with pytest.raises(DBAPIError) as error:
        take(owner, 3)
    assert error.value.orig.sqlstate == "23503"  # type: ignore[union-attr]


def test_a_unique_index_without_the_tenant_stops_the_end(owner: Connection) -> None:
    owner.exec_driver_sql("CREATE UNIQUE INDEX loose ON folder (lower(name))")
    owner.commit()
    for number in range(4):
        take(owner, number)

    with pytest.raises(Unresolved, match="unique index loose of folder"):
        take(owner, 4)


@pytest.mark.parametrize("last", range(len(STEPS)))
def test_each_step_can_be_undone(owner: Connection, last: int) -> None:
    shapes = []
    for number in range(last + 1):
        shapes.append(shape(owner))
        take(owner, number)
    assert last == 1 or shape(owner) != shapes[-1]

    for number in reversed(range(last + 1)):
        take(owner, number, undo=True)
        assert shape(owner) == shapes[number]


def test_the_way_can_be_gone_again_after_it_was_undone(owner: Connection) -> None:
    for number in range(len(STEPS)):
        take(owner, number)
    there = shape(owner)
    for number in reversed(range(len(STEPS))):
        take(owner, number, undo=True)

    for number in range(len(STEPS)):
        take(owner, number)

    assert shape(owner) == there

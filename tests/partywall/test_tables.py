"""Classes of tables, composite keys, and the ids that nobody can count."""

import asyncio
import re
import time
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from library import CLASSES, Book
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Index, MetaData, Table, UniqueConstraint, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from partywall import (
    IdentityTable,
    Shared,
    TableClass,
    TenantScoped,
    Unclassified,
    classify,
    tenant_index,
    tenant_reference,
    tenant_unique,
    uuid7,
)
from partywall.tables import Classification, key_faults

pytestmark = pytest.mark.no_database


def fresh_base() -> Any:
    class Fresh(DeclarativeBase):
        pass

    return Fresh


def test_each_table_has_the_class_of_its_mixin() -> None:
    found = {name: each.table_class for name, each in CLASSES.items()}

    assert found == {
        "book": TableClass.TENANT,
        "shelf": TableClass.TENANT,
        "mark": TableClass.TENANT,
        "marking": TableClass.TENANT,
        "loan": TableClass.TENANT,
        "language": TableClass.SHARED,
        "reader": TableClass.IDENTITY,
        "invoice": TableClass.OPERATOR,
    }


def test_a_journal_says_that_it_is_append_only_and_who_may_look() -> None:
    assert (CLASSES["loan"].append_only, CLASSES["loan"].identity_access) == (True, ("SELECT",))
    assert (CLASSES["book"].append_only, CLASSES["book"].identity_access) == (False, ())


def test_a_table_of_no_class_stops_the_program_by_name() -> None:
    base = fresh_base()

    class Stray(base):
        __tablename__ = "stray"
        id: Mapped[UUID] = mapped_column(primary_key=True)

    with pytest.raises(Unclassified, match="stray"):
        classify(base.registry)


def test_a_core_table_beside_the_classes_stops_the_program_by_name() -> None:
    base = fresh_base()
    Table("bare", base.metadata, Column("id", Uuid, primary_key=True))

    with pytest.raises(Unclassified, match="bare"):
        classify(base.registry)


@pytest.mark.parametrize("mixin", [Shared, IdentityTable])
def test_a_table_without_a_reason_is_unclassified(mixin: type) -> None:
    base = fresh_base()

    class Quiet(mixin, base):  # type: ignore[misc, valid-type]
        __tablename__ = "quiet"
        id: Mapped[UUID] = mapped_column(primary_key=True)

    with pytest.raises(Unclassified, match="quiet"):
        classify(base.registry)


def test_a_tenant_table_is_keyed_by_tenant_and_id_in_this_order() -> None:
    assert [column.name for column in Book.__table__.primary_key.columns] == ["tenant_id", "id"]
    assert [column.name for column in Book.__table__.columns][:2] == ["tenant_id", "id"]
    assert not Book.__table__.c.tenant_id.nullable


def test_the_tenants_table_is_referred_to_when_the_base_names_it() -> None:
    class Named(DeclarativeBase):
        __tenant_key__ = "tenant.id"

    class Room(TenantScoped, Named):
        __tablename__ = "room"

    assert {key.target_fullname for key in Room.__table__.c.tenant_id.foreign_keys} == {"tenant.id"}
    assert Book.__table__.c.tenant_id.primary_key


def test_a_reference_carries_the_tenant() -> None:
    key = tenant_reference("shelf_id", "shelf", ondelete="CASCADE")

    assert list(key.column_keys) == ["tenant_id", "shelf_id"]
    assert [element.target_fullname for element in key.elements] == ["shelf.tenant_id", "shelf.id"]
    assert key.ondelete == "CASCADE"


@pytest.mark.parametrize("ondelete", ["SET NULL", "SET DEFAULT", "set null", "NO ACTION"])
def test_a_reference_refuses_to_clear_the_tenant(ondelete: str) -> None:
    with pytest.raises(ValueError, match="shelf_id"):
        tenant_reference("shelf_id", "shelf", ondelete=ondelete)


def test_unique_keys_and_indexes_start_with_the_tenant() -> None:
    table = Table(
        "room", MetaData(), Column("tenant_id", Uuid), Column("name", Uuid), tenant_unique("name"), tenant_index("ix", "name")
    )

    unique = next(each for each in table.constraints if isinstance(each, UniqueConstraint))
    assert [column.name for column in unique.columns] == ["tenant_id", "name"]
    assert [column.name for column in next(iter(table.indexes)).columns] == ["tenant_id", "name"]


FAULTS = {
    "does not carry tenant_id": ForeignKeyConstraint(["shelf_id"], ["shelf.id"]),
    "foreign key .* does not carry": ForeignKeyConstraint(["tenant_id", "shelf_id"], ["shelf.id", "shelf.tenant_id"]),
    "does not start with tenant_id": UniqueConstraint("shelf_id", name="loose"),
    "unique key wide": UniqueConstraint("shelf_id", "tenant_id", name="wide"),
    "unique key index": Index("index", "shelf_id", unique=True),
    "ON DELETE SET NULL": ForeignKeyConstraint(
        ["tenant_id", "shelf_id"], ["shelf.tenant_id", "shelf.id"], ondelete="SET NULL (shelf_id)"
    ),
}


def keyed(name: str, metadata: MetaData, *columns: Any) -> Table:
    return Table(name, metadata, Column("tenant_id", Uuid, primary_key=True), Column("id", Uuid, primary_key=True), *columns)


@pytest.mark.parametrize(("message", "rule"), FAULTS.items(), ids=FAULTS)
def test_a_key_without_the_tenant_is_a_fault(message: str, rule: Any) -> None:
    metadata = MetaData()
    shelf = keyed("shelf", metadata)
    book = keyed("book", metadata, Column("shelf_id", Uuid), rule)

    faults = key_faults({table.name: Classification(table, TableClass.TENANT) for table in (shelf, book)})

    assert len(faults) == 1
    assert re.search(message, faults[0])


@pytest.mark.parametrize("columns", [("tenant_id", "shelf_id"), ("shelf_id", "tenant_id")])
def test_a_composite_key_may_name_the_tenant_in_any_place(columns: tuple[str, ...]) -> None:
    metadata = MetaData()
    shelf = keyed("shelf", metadata)
    target = [f"shelf.{'id' if column == 'shelf_id' else column}" for column in columns]
    book = keyed("book", metadata, Column("shelf_id", Uuid), ForeignKeyConstraint(columns, target))

    assert key_faults({table.name: Classification(table, TableClass.TENANT) for table in (shelf, book)}) == []


def test_a_nullable_tenant_is_a_fault() -> None:
    table = Table("room", MetaData(), Column("id", Uuid, primary_key=True), Column("tenant_id", Uuid, nullable=True))

    assert key_faults({"room": Classification(table, TableClass.TENANT)}) == ["room: tenant_id is missing or nullable"]


def test_a_key_to_a_shared_table_need_not_carry_the_tenant() -> None:
    metadata = MetaData()
    language = Table("language", metadata, Column("id", Uuid, primary_key=True))
    book = keyed("book", metadata, Column("language_id", Uuid, ForeignKey("language.id")))
    classes = {"language": Classification(language, TableClass.SHARED, "same"), "book": Classification(book, TableClass.TENANT)}

    assert key_faults(classes) == []


def test_the_library_has_no_fault() -> None:
    assert key_faults(CLASSES) == []


def test_ids_are_of_version_7_and_increase() -> None:
    ids = [uuid7() for _ in range(10_000)]

    assert ids == sorted(set(ids))
    assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}


@given(st.integers(min_value=-(2**40), max_value=2**40))
def test_ids_increase_when_the_clock_steps(step_ns: int) -> None:
    real = time.time_ns()
    with pytest.MonkeyPatch.context() as patch:
        first = uuid7()
        patch.setattr(time, "time_ns", lambda: real + step_ns)
        second, third = uuid7(), uuid7()

    assert first < second < third


async def test_ids_of_many_threads_are_distinct() -> None:
    batches = await asyncio.gather(*(asyncio.to_thread(lambda: [uuid7() for _ in range(500)]) for _ in range(8)))

    assert len({each for batch in batches for each in batch}) == 4000

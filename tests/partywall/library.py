"""Two libraries in one database: the models, the tenants and the rows that the kernel's tests use.

Every text of tenant A starts with "a", every text of tenant B with "b".
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column, relationship

from partywall import (
    IdentityTable,
    OperatorTable,
    Shared,
    Tenant,
    TenantScoped,
    classify,
    tenant_index,
    tenant_reference,
    tenant_unique,
    uuid7,
)
from partywall.rls import Roles

ROLES = Roles(app="pw_app", identity="pw_identity", operator="pw_operator")
OWNER = "pw_owner"
PASSWORD = "test"

TENANT_A = Tenant(UUID("0190a000-0000-7000-8000-00000000000a"), "acme")
TENANT_B = Tenant(UUID("0190a000-0000-7000-8000-00000000000b"), "birch")


class Base(DeclarativeBase):
    pass


class Book(TenantScoped, Base):
    __tablename__ = "book"
    __table_args__ = (
        tenant_reference("shelf_id", "shelf", ondelete="CASCADE"),
        tenant_unique("title"),
        tenant_index("ix_book_shelf", "shelf_id"),
    )
    title: Mapped[str]
    pages: Mapped[int] = mapped_column(default=1)
    kind: Mapped[str] = mapped_column(default="book")
    shelf_id: Mapped[UUID | None]
    shelf: Mapped["Shelf | None"] = relationship(back_populates="books")
    marks: Mapped[list["Mark"]] = relationship(secondary="marking", viewonly=True)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "book"}  # noqa: RUF012


class Atlas(Book):
    __mapper_args__ = {"polymorphic_identity": "atlas"}  # noqa: RUF012


class Shelf(TenantScoped, Base):
    __tablename__ = "shelf"
    __table_args__ = (tenant_reference("parent_id", "shelf"), tenant_unique("name"))
    name: Mapped[str]
    parent_id: Mapped[UUID | None]
    books: Mapped[list[Book]] = relationship(back_populates="shelf", order_by=Book.title)


# Declared after both classes, as a scalar sub-select of the child.
Shelf.first_title = column_property(  # type: ignore[attr-defined]
    select(func.min(Book.title))
    .where(Book.tenant_id == Shelf.tenant_id, Book.shelf_id == Shelf.id)
    .correlate_except(Book)
    .scalar_subquery(),
    deferred=True,
)


class Mark(TenantScoped, Base):
    __tablename__ = "mark"
    __table_args__ = (tenant_unique("label"),)
    label: Mapped[str]


class Marking(TenantScoped, Base):
    __tablename__ = "marking"
    __table_args__ = (tenant_reference("book_id", "book"), tenant_reference("mark_id", "mark"))
    book_id: Mapped[UUID]
    mark_id: Mapped[UUID]


class Loan(TenantScoped, Base):
    """Appended by the system; the identity role may look at it."""

    __tablename__ = "loan"
    __append_only__ = True
    __identity_access__ = ("SELECT",)
    reader: Mapped[str]


class Language(Shared, Base):
    __tablename__ = "language"
    __reason__ = "languages are the same for every library"
    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


class Reader(IdentityTable, Base):
    __tablename__ = "reader"
    __reason__ = "a person may belong to several libraries"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    email: Mapped[str]


class Invoice(OperatorTable, Base):
    __tablename__ = "invoice"
    __reason__ = "the platform's own books"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    amount_minor: Mapped[int]


CLASSES = classify(Base.registry)


@dataclass(frozen=True)
class Stock:
    """Ids of one library's rows."""

    top: UUID
    shelf: UUID
    book: UUID
    mark: UUID


STOCK_A = Stock(*(UUID(int=0xA00 + number) for number in range(4)))
STOCK_B = Stock(*(UUID(int=0xB00 + number) for number in range(4)))


def stock(engine: Engine, tenant: Tenant, ids: Stock) -> None:
    """Write one library's rows, past every guard: a shelf below a shelf, two books, an atlas, a mark, a loan."""
    letter = tenant.slug[0]
    rows: list[TenantScoped] = [
        Shelf(id=ids.top, name=f"{letter} top"),
        Shelf(id=ids.shelf, name=f"{letter} shelf", parent_id=ids.top),
        Book(id=ids.book, title=f"{letter} book 1", shelf_id=ids.shelf),
        Book(title=f"{letter} book 2", shelf_id=ids.shelf),
        Atlas(title=f"{letter} atlas", shelf_id=ids.shelf),
        Mark(id=ids.mark, label=f"{letter} mark"),
        Marking(book_id=ids.book, mark_id=ids.mark),
        Loan(reader=f"{letter} reader"),
    ]
    with Session(engine) as session, session.begin():
        for row in rows:
            row.tenant_id = tenant.id
            session.add(row)
            session.flush()

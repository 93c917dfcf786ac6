"""Every shape of reading: as a table of statements, then loads that need more than one. Tenant A reads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from library import STOCK_A, STOCK_B, TENANT_A, TENANT_B, Atlas, Book, Mark, Marking, Shelf
from sqlalchemy import (
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    exists,
    extract,
    func,
    intersect,
    lateral,
    literal_column,
    or_,
    select,
    table,
    text,
    true,
    tuple_,
    union,
    union_all,
    values,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import (
    Bundle,
    Session,
    aliased,
    contains_eager,
    defer,
    joinedload,
    selectinload,
    subqueryload,
    undefer,
)

from partywall import reviewed


class Outcome(Enum):
    """What a shape may end in; anything else is a leak."""

    OWN = "rows of the tenant alone"
    REFUSED = "an error and no rows"


OWN, REFUSED = Outcome.OWN, Outcome.REFUSED


@dataclass(frozen=True)
class Read:
    """One statement. rows: how many it gives; its first column, if text, starts with the tenant's letter."""

    name: str
    statement: Any
    rows: int
    guard: Outcome = OWN
    policy: Outcome = OWN


book, shelf = Book.__table__, Shelf.__table__
other = aliased(Book)
books = select(Book.id, Book.title, Book.shelf_id).subquery()
book_cte = select(Book).cte("books")
core_books = select(book.c.id, book.c.title).subquery()
light = table("book", column("title"), column("tenant_id"))
shelf_of = and_(Shelf.id == Book.shelf_id, Shelf.tenant_id == Book.tenant_id)

tree = select(Shelf.id, Shelf.name).where(Shelf.parent_id.is_(None)).cte("tree", recursive=True)
child = aliased(Shelf)
tree = tree.union_all(select(child.id, child.name).join(tree, child.parent_id == tree.c.id))

core_tree = select(shelf.c.id, shelf.c.name).where(shelf.c.parent_id.is_(None)).cte("core_tree", recursive=True)
core_tree = core_tree.union_all(select(shelf.c.id, shelf.c.name).where(shelf.c.parent_id == core_tree.c.id))

of_shelf = select(Book.title).where(Book.shelf_id == Shelf.id).order_by(Book.title).limit(1)

READS = [
    Read("entity", select(Book), 3),
    Read("columns", select(Book.title, Book.pages), 3),
    Read("bundle", select(Bundle("b", Book.title, Book.pages)), 3),
    Read("subclass", select(Atlas), 1),
    Read("alias", select(other.title), 3),
    Read("alias of a subquery", select(aliased(Book, select(Book).subquery()).title), 3),
    Read("where on a foreign id", select(Book).where(Book.id == STOCK_B.book), 0),
    Read("where on the foreign tenant", select(Book).where(Book.tenant_id == TENANT_B.id), 0),
    Read("where widened by OR", select(Book.title).where(or_(Book.tenant_id == TENANT_B.id, true())), 3),
    Read("group by", select(Book.kind, func.count()).group_by(Book.kind), 2),
    Read("count of entities", select(func.repeat("a", cast(func.count(Book.id), Text).cast(Book.pages.type))), 1),
    Read("aggregate of texts", select(func.string_agg(Book.title, ",b ").filter(Book.title.like("b%"))), 1),
    Read("distinct", select(Book.kind).distinct(), 2),
    Read("distinct on", select(Book.title).ext(distinct_on(Book.shelf_id)), 1),
    Read("having", select(Book.shelf_id, func.count()).group_by(Book.shelf_id).having(func.count() > 0), 1),
    Read("order by sub-select", select(Shelf.name).order_by(of_shelf.scalar_subquery()), 2),
    Read("case", select(case((Book.pages > 0, Book.title))), 3),
    Read("window", select(Book.title, func.row_number().over(order_by=Book.title)), 3),
    Read("for update", select(Book).with_for_update(), 3),
    Read("relationship join", select(Book.title).join(Book.shelf), 3),
    Read("outer join", select(Book.title, Shelf.name).outerjoin(Shelf, shelf_of), 3),
    Read("full join", select(Book.title, other.title).join(other, other.id == Book.id, full=True), 3),
    Read("join on the bare id", select(Book.title).join(Shelf, Shelf.id == Book.shelf_id), 3),
    Read("join on a constant", select(Book.title, Shelf.name).join(Shelf, true()), 6),
    Read("implicit join", select(Book.title, Shelf.name).where(Shelf.id == Book.shelf_id), 3),
    Read("self join", select(Book.title).join(other, other.shelf_id == Book.shelf_id), 9),
    Read("many to many", select(Book.title).join(Book.marks), 1),
    Read("association class", select(Mark.label).join(Marking, Marking.mark_id == Mark.id), 1),
    Read("subquery", select(books.c.title), 3),
    Read("subquery joined", select(Shelf.name).join(books, books.c.shelf_id == Shelf.id), 3),
    Read("nested subquery", select(select(books.c.title).subquery().c.title), 3),
    Read("common table", select(book_cte.c.title), 3),
    Read("recursive common table", select(tree.c.name), 2),
    Read("scalar sub-select", select(Shelf.name, of_shelf.scalar_subquery()), 2),
    Read("exists", select(Shelf.name).where(exists().where(Book.shelf_id == Shelf.id)), 1),
    Read("exists of a select", select(Shelf.name).where(select(Book.id).where(Book.title.like("b%")).exists()), 0),
    Read("not exists", select(Shelf.name).where(~exists().where(Book.title.like("b%"))), 2),
    Read("any", select(Shelf.name).where(Shelf.books.any(Book.pages > 0)), 1),
    Read("has", select(Book.title).where(Book.shelf.has(Shelf.name.like("%shelf"))), 3),
    Read("any over many to many", select(Book.title).where(Book.marks.any()), 1),
    Read("in", select(Shelf.name).where(Shelf.id.in_(select(Book.shelf_id))), 1),
    Read("tuple in", select(Book.title).where(tuple_(Book.tenant_id, Book.id).in_([(TENANT_B.id, STOCK_B.book)])), 0),
    Read("union", union(select(Book.title), select(Shelf.name)), 5),
    Read("union all", union_all(select(Book.title), select(Book.title)), 6),
    Read("union as a subquery", select(union_all(select(Book.title), select(Mark.label)).subquery().c.title), 4),
    Read("intersect", intersect(select(Book.title), select(Book.title)), 3),
    Read("entities from a union", select(Book).from_statement(union_all(select(Book), select(Book))), 6),
    Read("entities from a core select", select(Book).from_statement(select(book)), 3, REFUSED),
    Read("lateral", select(Shelf.name, lateral(of_shelf.correlate(Shelf)).c.title), 1),
    Read("joined eager", select(Shelf.name).join(Shelf.books).where(Book.title.like("a%")), 3),
    Read("values", select(values(column("n", Book.pages.type), name="v").data([(1,)]).c.n), 1),
    Read("function alone", select(func.now()), 1),
    Read("text", text("SELECT title FROM book"), 3, REFUSED),
    Read("text with columns", text("SELECT title FROM book").columns(column("title")), 3, REFUSED),
    Read("entities from text", select(Book).from_statement(text("SELECT * FROM book")), 3, REFUSED),
    Read("text as subquery", select(text("SELECT title FROM book").columns(column("title")).subquery().c.title), 3, REFUSED),
    Read("text in where", select(Book.title).where(text("1=1 OR true")), 3, REFUSED),
    Read("text in order by", select(Book.title).order_by(text("title")), 3, REFUSED),
    Read("text as column", select(Book.title, text("(SELECT max(title) FROM book)")), 3, REFUSED),
    Read("text in from", select(text("title")).select_from(text("book")), 3, REFUSED),
    Read("literal column", select(literal_column("(SELECT max(name) FROM shelf WHERE name LIKE 'a%')")), 1, REFUSED),
    Read("prefix", select(Book.title).prefix_with(text("ALL")), 3, REFUSED),
    Read("suffix", select(Book.title).suffix_with(text("UNION ALL SELECT title FROM book")), 6, REFUSED),
    Read("statement hint", select(Book.title).with_statement_hint("UNION ALL SELECT title FROM book"), 6, REFUSED),
    Read("extract of text", select(Book.title, extract("epoch FROM now()), (SELECT 1", func.now())), 3, REFUSED),
    Read("operator of symbols", select(Book.title).where(Book.title.op("~")("^a")), 3),
    Read("operator that comments", select(Book.title).where(Book.title.op("IS NOT NULL --")("x")), 3, REFUSED, REFUSED),
    Read(
        "query by function",
        select(func.count()).select_from(func.ts_stat("SELECT title::tsvector FROM book").alias()),
        1,
        REFUSED,
    ),
    Read("switch by function", select(func.set_config("app.tenant_id", str(TENANT_B.id), true())), 1, REFUSED, REFUSED),
    Read("many to many with criteria", select(Book.title).join(Book.marks.and_(Mark.label.like("a%"))), 1),
    Read("many to many with text", select(Book.title).join(Book.marks.and_(text("true"))), 1, REFUSED),
    Read("operator text", select(Book.title).where(Book.title.op("IS NOT NULL OR title <>")("x")), 3, REFUSED),
    Read("core table", select(book), 3, REFUSED),
    Read("core column", select(book.c.title), 3, REFUSED),
    Read("core alias", select(book.alias().c.title), 3, REFUSED),
    Read("core subquery", select(core_books.c.title), 3, REFUSED),
    Read("core common table", select(select(book.c.title).cte().c.title), 3, REFUSED),
    Read("core recursive common table", select(core_tree.c.name), 2, REFUSED),
    Read("core union", union_all(select(book.c.title), select(shelf.c.name)), 5, REFUSED),
    Read("core joined to a class", select(Shelf.name).join(book, book.c.shelf_id == Shelf.id), 3, REFUSED),
    Read(
        "core outer-joined", select(Shelf.name).outerjoin(book, book.c.shelf_id == Shelf.id).where(book.c.pages > 0), 3, REFUSED
    ),
    Read("core in a sub-select", select(Shelf.name).where(Shelf.id.in_(select(book.c.shelf_id))), 1, REFUSED),
    Read("core in exists", select(Shelf.name).where(exists().where(book.c.shelf_id == Shelf.id)), 1, REFUSED),
    Read("core in a scalar sub-select", select(Shelf.name, select(func.max(book.c.title)).scalar_subquery()), 2, REFUSED),
    Read("core aliased to a class", select(aliased(Book, core_books).title), 3, REFUSED),
    Read(
        "core lateral", select(Shelf.name, select(book.c.title).where(book.c.shelf_id == Shelf.id).lateral().c.title), 3, REFUSED
    ),
    Read("association table", select(Marking.__table__.c.id), 1, REFUSED),
    Read("lightweight table", select(light.c.title), 3, REFUSED),
    Read("catalogue table", select(table("pg_class", column("relname")).c.relname).limit(0), 0, REFUSED),
    Read(
        "reviewed with its tenant",
        reviewed(text("SELECT title FROM book WHERE tenant_id = :tenant_id"), reason="a test of review").bindparams(
            bindparam("tenant_id", TENANT_A.id)
        ),
        3,
        REFUSED,  # The value must be passed when the statement is executed; see the loads below.
    ),
]


def _lazy(session: Session) -> Iterable[str]:
    return [found.title for shelf in session.scalars(select(Shelf)).all() for found in shelf.books]


def _selectin(session: Session) -> Iterable[str]:
    return [b.title for s in session.scalars(select(Shelf).options(selectinload(Shelf.books))).all() for b in s.books]


def _subquery(session: Session) -> Iterable[str]:
    return [b.title for s in session.scalars(select(Shelf).options(subqueryload(Shelf.books))).all() for b in s.books]


def _joined(session: Session) -> Iterable[str]:
    return [b.title for s in session.scalars(select(Shelf).options(joinedload(Shelf.books))).unique().all() for b in s.books]


def _contains_eager(session: Session) -> Iterable[str]:
    statement = select(Shelf).join(Book, true()).options(contains_eager(Shelf.books))
    return [b.title for s in session.scalars(statement).unique().all() for b in s.books][:3]


def _many_to_many(session: Session) -> Iterable[str]:
    return [mark.label for found in session.scalars(select(Book)).all() for mark in found.marks]


def _selectin_many_to_many(session: Session) -> Iterable[str]:
    found = session.scalars(select(Book).options(selectinload(Book.marks))).all()
    return [mark.label for each in found for mark in each.marks]


def _deferred(session: Session) -> Iterable[str]:
    return [b.title for b in session.scalars(select(Book).options(defer(Book.title))).all()]


def _column_property(session: Session) -> Iterable[str]:
    statement = select(Shelf).options(undefer(Shelf.first_title)).where(Shelf.name.like("%shelf"))  # type: ignore[attr-defined]
    return [s.first_title for s in session.scalars(statement).all()]


def _column_property_later(session: Session) -> Iterable[str]:
    return [s.first_title for s in session.scalars(select(Shelf).where(Shelf.name.like("%shelf"))).all()]


def _get(session: Session) -> Iterable[str]:
    found = session.get(Book, (TENANT_A.id, STOCK_A.book))
    return [found.title] if found else []


def _get_foreign(session: Session) -> Iterable[str]:
    found = session.get(Book, (TENANT_B.id, STOCK_B.book))
    return [found.title] if found else []


def _get_foreign_populating(session: Session) -> Iterable[str]:
    found = session.get(Book, (TENANT_B.id, STOCK_B.book), populate_existing=True, with_for_update=True)
    return [found.title] if found else []


def _get_own_tenant_foreign_id(session: Session) -> Iterable[str]:
    found = session.get(Book, (TENANT_A.id, STOCK_B.book))
    return [found.title] if found else []


def _refresh(session: Session) -> Iterable[str]:
    found = session.scalars(select(Book)).all()
    for each in found:
        session.refresh(each)
    return [each.title for each in found]


def _expired(session: Session) -> Iterable[str]:
    found = session.scalars(select(Book)).all()
    session.expire_all()
    return [each.title for each in found]


def _query(session: Session) -> Iterable[str]:
    return [each.title for each in session.query(Book).order_by(Book.title)]


def _query_count(session: Session) -> Iterable[str]:
    return ["a"] * session.query(Book).count()


def _query_get(session: Session) -> Iterable[str]:
    found = session.query(Book).filter_by(id=STOCK_B.book).one_or_none()
    return [found.title] if found else []


def _stream(session: Session) -> Iterable[str]:
    return [each.title for each in session.scalars(select(Book).execution_options(yield_per=1))]


def _partitions(session: Session) -> Iterable[str]:
    return [row.title for part in session.execute(select(Book.title)).partitions(1) for row in part]


def _reviewed(session: Session) -> Iterable[str]:
    statement = reviewed(text("SELECT title FROM book WHERE tenant_id = :tenant_id"), reason="a test of review")
    return session.scalars(statement, {"tenant_id": TENANT_A.id}).all()


def _savepoint(session: Session) -> Iterable[str]:
    with session.begin_nested():
        session.scalars(select(Book)).all()
    return session.scalars(select(Book.title)).all()


def _savepoint_rolled_back(session: Session) -> Iterable[str]:
    nested = session.begin_nested()
    session.scalars(select(Book)).all()
    nested.rollback()
    return session.scalars(select(Book.title)).all()


LOADS: list[tuple[Callable[[Session], Iterable[str]], int]] = [
    (_lazy, 3),
    (_selectin, 3),
    (_subquery, 3),
    (_joined, 3),
    (_contains_eager, 3),
    (_many_to_many, 1),
    (_selectin_many_to_many, 1),
    (_deferred, 3),
    (_column_property, 1),
    (_column_property_later, 1),
    (_get, 1),
    (_get_foreign, 0),
    (_get_foreign_populating, 0),
    (_get_own_tenant_foreign_id, 0),
    (_refresh, 3),
    (_expired, 3),
    (_query, 3),
    (_query_count, 3),
    (_query_get, 0),
    (_stream, 3),
    (_partitions, 3),
    (_reviewed, 3),
    (_savepoint, 3),
    (_savepoint_rolled_back, 3),
]

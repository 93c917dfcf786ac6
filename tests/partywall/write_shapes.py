"""Every shape of writing. Tenant A writes; whatever is not refused must change A's rows and none of B's.

Each returns how many of its own rows it changed. `foreign` is a book of tenant B, loaded elsewhere and detached.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from library import STOCK_A, STOCK_B, TENANT_A, TENANT_B, Book, Language, Mark, Shelf
from read_shapes import OWN, REFUSED, Outcome
from sqlalchemy import Delete, Insert, Update, delete, exists, func, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import Session, make_transient

from partywall import reviewed, uuid7

Step = Callable[[Session, Book], int]


@dataclass(frozen=True)
class Write:
    """One way of writing and what each layer alone makes of it."""

    run: Step
    guard: Outcome
    policy: Outcome
    rows: int = 0


WRITES: list[Write] = []


def shape(guard: Outcome, policy: Outcome, rows: int = 0) -> Callable[[Step], Step]:
    def register(run: Step) -> Step:
        WRITES.append(Write(run, guard, policy, rows))
        return run

    return register


def changed(session: Session, statement: Insert | Update | Delete, *rows: dict[str, object]) -> int:
    result = session.execute(statement, list(rows) if rows else None)
    return int(getattr(result, "rowcount", len(rows)))


def new(tenant: object = TENANT_A, title: str = "a new book") -> dict[str, object]:
    return {"tenant_id": tenant.id, "id": uuid7(), "title": title, "kind": "book", "pages": 1}  # type: ignore[attr-defined]


@shape(OWN, OWN, 3)
def update_of_all_rows(session: Session, foreign: Book) -> int:
    return changed(session, update(Book).values(pages=9))


@shape(OWN, OWN)
def update_of_a_foreign_id(session: Session, foreign: Book) -> int:
    return changed(session, update(Book).where(Book.id == STOCK_B.book).values(pages=9))


@shape(OWN, OWN, 3)
def update_fetching_rows(session: Session, foreign: Book) -> int:
    return len(session.scalars(update(Book).values(pages=9).returning(Book)).all())


@shape(OWN, OWN, 3)
def update_by_a_mapped_sub_select(session: Session, foreign: Book) -> int:
    return changed(session, update(Book).where(Book.shelf_id.in_(select(Shelf.id))).values(pages=9))


@shape(OWN, OWN, 3)
def update_with_a_mapped_exists(session: Session, foreign: Book) -> int:
    return changed(session, update(Book).where(exists().where(Shelf.id == Book.shelf_id)).values(pages=9))


@shape(REFUSED, OWN, 3)
def update_from_another_class(session: Session, foreign: Book) -> int:
    return changed(session, update(Book).where(Book.shelf_id == Shelf.id).values(pages=9))


@shape(REFUSED, OWN, 3)
def update_with_a_core_sub_select(session: Session, foreign: Book) -> int:
    worst = select(func.max(Book.__table__.c.title)).scalar_subquery()
    return changed(session, update(Book).where(Book.title <= worst).values(pages=9))


@shape(REFUSED, OWN, 3)
def update_with_text(session: Session, foreign: Book) -> int:
    return changed(session, update(Book).where(text("true")).values(pages=9))


@shape(REFUSED, REFUSED)
def update_of_the_tenant(session: Session, foreign: Book) -> int:
    return changed(session, update(Book).values(tenant_id=TENANT_B.id))


@shape(REFUSED, REFUSED)
def update_of_the_tenant_by_column(session: Session, foreign: Book) -> int:
    return changed(session, update(Book).values({Book.tenant_id: TENANT_B.id}))


@shape(REFUSED, REFUSED)
def update_of_the_tenant_in_order(session: Session, foreign: Book) -> int:
    return changed(session, update(Book).ordered_values((Book.tenant_id, TENANT_B.id)))


@shape(REFUSED, REFUSED)
def update_of_the_tenant_through_a_select(session: Session, foreign: Book) -> int:
    statement = select(Book).from_statement(update(Book).values(tenant_id=TENANT_B.id).returning(Book))
    return len(session.scalars(statement).all())


@shape(REFUSED, REFUSED)
def insert_of_a_foreign_row_through_a_select(session: Session, foreign: Book) -> int:
    statement = select(Book).from_statement(insert(Book).values(**new(TENANT_B)).returning(Book))
    return len(session.scalars(statement).all())


@shape(REFUSED, OWN, 3)
def update_through_a_select(session: Session, foreign: Book) -> int:
    statement = select(Book).from_statement(update(Book).values(pages=9).returning(Book))
    return len(session.scalars(statement).all())


@shape(REFUSED, REFUSED)
def update_by_primary_key(session: Session, foreign: Book) -> int:
    session.execute(update(Book), [{"tenant_id": TENANT_B.id, "id": STOCK_B.book, "pages": 9}])
    return 0


@shape(REFUSED, OWN, 3)
def update_of_a_core_table(session: Session, foreign: Book) -> int:
    return changed(session, update(Book.__table__).values(pages=9))


@shape(REFUSED, OWN, 3)
def update_by_text(session: Session, foreign: Book) -> int:
    return int(session.execute(text("UPDATE book SET pages = 9")).rowcount)  # type: ignore[attr-defined]


@shape(REFUSED, OWN, 3)
def update_in_a_common_table(session: Session, foreign: Book) -> int:
    changes = update(Book).values(pages=9).returning(Book.id).cte()
    return len(session.execute(select(changes.c.id)).all())


@shape(REFUSED, OWN, 1)
def delete_in_an_added_common_table(session: Session, foreign: Book) -> int:
    session.execute(select(Mark.id).add_cte(delete(Book).where(Book.kind == "atlas").cte())).all()
    return 1


@shape(OWN, OWN, 1)
def delete_of_all_matching(session: Session, foreign: Book) -> int:
    return changed(session, delete(Book).where(Book.kind == "atlas"))


@shape(OWN, OWN)
def delete_of_a_foreign_id(session: Session, foreign: Book) -> int:
    return changed(session, delete(Book).where(Book.id == STOCK_B.book, Book.tenant_id == TENANT_B.id))


@shape(REFUSED, OWN, 1)
def delete_using_another_class(session: Session, foreign: Book) -> int:
    return changed(session, delete(Book).where(Book.shelf_id == Shelf.id, Book.kind == "atlas"))


@shape(OWN, OWN, 2)
def query_update(session: Session, foreign: Book) -> int:
    return session.query(Shelf).update({"name": Shelf.name + " new"}, synchronize_session=False)


@shape(OWN, OWN, 1)
def query_delete(session: Session, foreign: Book) -> int:
    return session.query(Book).filter(Book.kind == "atlas").delete(synchronize_session=False)


@shape(OWN, OWN, 1)
def insert_of_an_own_row(session: Session, foreign: Book) -> int:
    return changed(session, insert(Book), new())


@shape(OWN, OWN, 2)
def insert_of_many_own_rows(session: Session, foreign: Book) -> int:
    return len(session.scalars(insert(Book).returning(Book.id), [new(), new(title="a second")]).all())


@shape(REFUSED, REFUSED)
def insert_of_a_foreign_row(session: Session, foreign: Book) -> int:
    return changed(session, insert(Book), new(TENANT_B))


@shape(REFUSED, REFUSED)
def insert_of_many_with_a_foreign_row_among_them(session: Session, foreign: Book) -> int:
    return changed(session, insert(Book), new(), new(TENANT_B))


@shape(REFUSED, REFUSED)
def insert_of_foreign_values(session: Session, foreign: Book) -> int:
    return changed(session, insert(Book).values(**new(TENANT_B)))


@shape(REFUSED, REFUSED)
def insert_of_several_foreign_values(session: Session, foreign: Book) -> int:
    return changed(session, insert(Book).values([new(), new(TENANT_B)]))


@shape(REFUSED, REFUSED)
def insert_without_a_tenant(session: Session, foreign: Book) -> int:
    with warnings.catch_warnings(action="ignore", category=SAWarning):
        return changed(session, insert(Book), {**new(), "tenant_id": None})


@shape(REFUSED, REFUSED)
def insert_from_a_select(session: Session, foreign: Book) -> int:
    source = select(func.cast(str(TENANT_B.id), Book.id.type).label("t"), Book.id, Book.title, Book.pages, Book.kind)
    return changed(session, insert(Book).from_select(["tenant_id", "id", "title", "pages", "kind"], source))


@shape(REFUSED, REFUSED)
def insert_into_a_core_table(session: Session, foreign: Book) -> int:
    return changed(session, insert(Book.__table__), new(TENANT_B))


@shape(REFUSED, REFUSED)
def upsert_onto_a_foreign_row(session: Session, foreign: Book) -> int:
    row = {**new(TENANT_B), "id": STOCK_B.book}
    statement = postgresql.insert(Book).on_conflict_do_update(index_elements=["tenant_id", "id"], set_={"pages": 9})
    return changed(session, statement, row)


@shape(REFUSED, OWN, 1)
def upsert_of_an_own_row(session: Session, foreign: Book) -> int:
    statement = postgresql.insert(Book).on_conflict_do_update(index_elements=["tenant_id", "id"], set_={"pages": 9})
    return changed(session, statement, {**new(), "id": STOCK_A.book})


@shape(OWN, OWN, 1)
def reviewed_upsert_of_an_own_row(session: Session, foreign: Book) -> int:
    statement = postgresql.insert(Book).on_conflict_do_update(index_elements=["tenant_id", "id"], set_={"pages": 9})
    return changed(session, reviewed(statement, reason="the row carries its tenant"), {**new(), "id": STOCK_A.book})


@shape(REFUSED, REFUSED)
def reviewed_upsert_of_a_foreign_row(session: Session, foreign: Book) -> int:
    statement = postgresql.insert(Book).on_conflict_do_nothing()
    return changed(session, reviewed(statement, reason="the row carries its tenant"), new(TENANT_B))


@shape(OWN, OWN, 1)
def add_of_an_own_row(session: Session, foreign: Book) -> int:
    session.add(Book(tenant_id=TENANT_A.id, title="a new book"))
    session.flush()
    return 1


@shape(REFUSED, REFUSED)
def add_of_a_foreign_row(session: Session, foreign: Book) -> int:
    session.add(Book(tenant_id=TENANT_B.id, title="a new book"))
    session.flush()
    return 0


@shape(REFUSED, REFUSED)
def add_all_with_a_foreign_row(session: Session, foreign: Book) -> int:
    session.add_all([Book(tenant_id=TENANT_A.id, title="a new"), Book(tenant_id=TENANT_B.id, title="a new")])
    session.flush()
    return 0


@shape(REFUSED, OWN, 1)
def add_of_a_foreign_child_to_an_own_parent(session: Session, foreign: Book) -> int:
    shelf = session.scalars(select(Shelf).where(Shelf.id == STOCK_A.shelf)).one()
    # Without the guard the composite key overwrites the child's tenant with its parent's.
    shelf.books.append(Book(tenant_id=TENANT_B.id, title="a new book"))
    session.flush()
    return 1


@shape(REFUSED, REFUSED)
def reference_to_a_foreign_parent(session: Session, foreign: Book) -> int:
    session.add(Book(tenant_id=TENANT_A.id, title="a new book", shelf_id=STOCK_B.shelf))
    session.flush()
    return 0


@shape(REFUSED, REFUSED)
def change_of_the_tenant(session: Session, foreign: Book) -> int:
    book = session.scalars(select(Book)).first()
    book.tenant_id = TENANT_B.id  # type: ignore[union-attr]
    session.flush()
    return 0


@shape(REFUSED, REFUSED)
def change_of_an_attached_foreign_row(session: Session, foreign: Book) -> int:
    session.add(foreign)
    foreign.pages = 9
    session.flush()
    return 0


@shape(REFUSED, REFUSED)
def refresh_of_an_attached_foreign_row(session: Session, foreign: Book) -> int:
    session.add(foreign)
    session.refresh(foreign)
    return 0


@shape(REFUSED, OWN)
def delete_of_an_attached_foreign_row(session: Session, foreign: Book) -> int:
    session.delete(foreign)
    with warnings.catch_warnings(action="ignore", category=SAWarning):
        session.flush()
    return 0


@shape(REFUSED, REFUSED)
def merge_of_a_changed_foreign_row(session: Session, foreign: Book) -> int:
    foreign.pages = 9
    session.merge(foreign)
    session.flush()
    return 0


@shape(REFUSED, REFUSED)
def merge_without_loading(session: Session, foreign: Book) -> int:
    merged = session.merge(foreign, load=False)
    merged.pages = 9
    session.flush()
    return 0


@shape(REFUSED, REFUSED)
def foreign_row_made_new_again(session: Session, foreign: Book) -> int:
    make_transient(foreign)
    foreign.title = "a copy"
    session.add(foreign)
    session.flush()
    return 0


@shape(REFUSED, REFUSED)
def bulk_save_objects(session: Session, foreign: Book) -> int:
    session.bulk_save_objects([Book(tenant_id=TENANT_B.id, title="a new book")])
    return 0


@shape(REFUSED, REFUSED)
def bulk_insert_mappings(session: Session, foreign: Book) -> int:
    session.bulk_insert_mappings(Book, [new(TENANT_B)])  # type: ignore[arg-type]
    return 0


@shape(REFUSED, REFUSED)
def bulk_update_mappings(session: Session, foreign: Book) -> int:
    session.bulk_update_mappings(Book, [{"tenant_id": TENANT_B.id, "id": STOCK_B.book, "pages": 9}])  # type: ignore[arg-type]
    return 0


@shape(REFUSED, OWN, 3)
def raw_connection(session: Session, foreign: Book) -> int:
    return int(session.connection().exec_driver_sql("UPDATE book SET pages = 9").rowcount)


@shape(REFUSED, REFUSED)
def write_to_a_shared_table(session: Session, foreign: Book) -> int:
    session.add(Language(code="xx", name="a language"))
    session.flush()
    return 0


@shape(REFUSED, REFUSED)
def write_to_a_shared_table_by_statement(session: Session, foreign: Book) -> int:
    session.execute(insert(Language), [{"code": "xx", "name": "a language"}])
    return 0


@shape(REFUSED, REFUSED)
def truncation(session: Session, foreign: Book) -> int:
    session.execute(text("TRUNCATE marking"))
    return 0


@shape(OWN, OWN, 3)
def update_after_a_savepoint_rolled_back(session: Session, foreign: Book) -> int:
    nested = session.begin_nested()
    changed(session, update(Book).values(pages=8))
    nested.rollback()
    return changed(session, update(Book).values(pages=9))

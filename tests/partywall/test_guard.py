"""Every statement shape, by the guard alone, by the policies alone, and by both.

Guard alone: the connection is a superuser's, whom no policy binds. Policies alone: a plain session of the app's role.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from engines import Engines
from library import STOCK_A, STOCK_B, TENANT_A, TENANT_B, Book, Shelf
from read_shapes import LOADS, READS, Outcome, Read
from sqlalchemy import Connection, NullPool, Select, column, select, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError
from write_shapes import WRITES, Write

from partywall import AsyncTenantSession, GuardRefusal, NoTenant, Tenant, TenantMismatch, TenantSession, reviewed, tenant_scope
from partywall.guard import TENANT_PARAMETER, scoped
from partywall.rls import set_tenant_sql

MODES = ("guard", "policies", "both")
REFUSALS = (GuardRefusal, TenantMismatch, DBAPIError)
by_mode = pytest.mark.parametrize("mode", MODES)


@contextmanager
def session_of(connection: Connection, mode: str) -> Iterator[Session]:
    """A session of tenant A with one layer or both."""
    if mode == "policies":
        with Session(connection, autoflush=False, expire_on_commit=False) as session:
            session.connection().exec_driver_sql(set_tenant_sql(TENANT_A.id))
            yield session
    else:
        with tenant_scope(TENANT_A), TenantSession(connection) as session:
            yield session


@pytest.fixture
def connection(engines: Engines, mode: str) -> Iterator[Connection]:
    engine = engines.superuser if mode == "guard" else engines.app
    with engine.connect() as connection:
        connection.begin()
        yield connection


def words(rows: Iterable[Any]) -> list[str]:
    """Return every text and every name of a row, at any depth."""
    found = []
    for row in rows:
        for value in row if isinstance(row, tuple) else (row,):
            if isinstance(value, Book | Shelf):
                value = value.title if isinstance(value, Book) else value.name
            if isinstance(value, str):
                found.append(value)
    return found


@by_mode
@pytest.mark.parametrize("shape", READS, ids=[shape.name for shape in READS])
def test_a_statement_gives_the_tenants_own_rows_or_is_refused(connection: Connection, mode: str, shape: Read) -> None:
    expected = shape.policy if mode == "policies" else shape.guard
    with session_of(connection, mode) as session:
        if expected is Outcome.REFUSED:
            with pytest.raises(REFUSALS):
                session.execute(shape.statement)
            return

        rows = session.execute(shape.statement).all()

    assert len(rows) == shape.rows
    assert [word for word in words(rows) if word.startswith("b ")] == []


@by_mode
@pytest.mark.parametrize(("load", "rows"), LOADS, ids=[load.__name__.strip("_") for load, _ in LOADS])
def test_a_load_gives_the_tenants_own_rows(
    connection: Connection, mode: str, load: Callable[[Session], Iterable[str]], rows: int
) -> None:
    with session_of(connection, mode) as session:
        found = list(load(session))

    assert len(found) == rows
    assert [word for word in found if not word.startswith("a")] == []


def texts_of(connection: Connection, tenant: Tenant) -> list[str]:
    """Return one tenant's rows as the database writes them; the policies are told that it is asking."""
    connection.exec_driver_sql(set_tenant_sql(tenant.id))
    rows: list[str] = []
    for name in ("shelf", "book", "mark", "marking", "loan", "language"):
        owned = "" if name == "language" else f"WHERE tenant_id = '{tenant.id}'"
        rows += connection.exec_driver_sql(f"SELECT '{name} ' || t::text FROM {name} t {owned} ORDER BY 1").scalars()
    return rows


@pytest.fixture
def foreign(engines: Engines) -> Book:
    with Session(engines.superuser) as session:
        return session.scalars(select(Book).where(Book.id == STOCK_B.book)).one()


@by_mode
@pytest.mark.parametrize("write", WRITES, ids=[write.run.__name__ for write in WRITES])
def test_a_write_changes_the_tenants_own_rows_or_is_refused(
    connection: Connection, mode: str, write: Write, foreign: Book
) -> None:
    own_before, foreign_before = texts_of(connection, TENANT_A), texts_of(connection, TENANT_B)
    expected = write.policy if mode == "policies" else write.guard
    with session_of(connection, mode) as session:
        if expected is Outcome.REFUSED:
            with pytest.raises((*REFUSALS, StaleDataError, InvalidRequestError)):
                write.run(session, foreign)
            return

        rows = write.run(session, foreign)

        own_after, foreign_after = texts_of(connection, TENANT_A), texts_of(connection, TENANT_B)
    assert rows == write.rows
    assert foreign_after == foreign_before
    assert len(set(own_after) ^ set(own_before)) >= write.rows
    assert (own_after == own_before) is (write.rows == 0)


@pytest.mark.parametrize("shape", READS, ids=[shape.name for shape in READS])
def test_a_scoped_statement_gives_the_tenants_own_rows_or_is_refused(engines: Engines, shape: Read) -> None:
    """Outside a session and without a policy: the parameter alone keeps the other library out."""
    is_select = isinstance(shape.statement, Select) and not shape.statement.get_execution_options().get("partywall_reviewed")
    if shape.guard is Outcome.REFUSED or not is_select:
        with pytest.raises(REFUSALS), Session(engines.superuser) as session:
            session.execute(scoped(shape.statement), {TENANT_PARAMETER: TENANT_A.id})
        return

    with Session(engines.superuser) as session:
        rows = session.execute(scoped(shape.statement), {TENANT_PARAMETER: TENANT_A.id}).all()

    assert len(rows) == shape.rows
    assert [word for word in words(rows) if word.startswith("b ")] == []


def test_a_scoped_statement_without_its_parameter_gives_nothing(engines: Engines) -> None:
    with Session(engines.superuser) as session:
        assert session.execute(scoped(select(Book))).all() == []
        assert len(session.execute(scoped(select(Book)), {TENANT_PARAMETER: TENANT_B.id}).all()) >= 1


def test_what_was_once_proven_lends_its_proof_to_nothing_else(engines: Engines) -> None:
    """The verdict on a statement is kept, so each shape that must be refused is tried after all that need not be."""
    own = [shape for shape in READS if shape.guard is Outcome.OWN]
    refused = [shape for shape in READS if shape.guard is Outcome.REFUSED]
    with tenant_scope(TENANT_A), TenantSession(engines.superuser) as session:
        for _ in range(2):
            for shape in own:
                assert len(session.execute(shape.statement).all()) == shape.rows, shape.name
            for shape in refused:
                with pytest.raises(REFUSALS):
                    session.execute(shape.statement)
                session.rollback()


def test_the_proof_of_a_class_is_none_for_its_table(engines: Engines) -> None:
    with tenant_scope(TENANT_A), TenantSession(engines.superuser) as session:
        assert len(session.execute(select(Book.title)).all()) == 3
        with pytest.raises(GuardRefusal):
            session.execute(select(Book.__table__.c.title))
        with pytest.raises(GuardRefusal):
            session.execute(select(column("title")).select_from(Book.__table__))


def test_every_transaction_of_a_session_is_bound_anew(engines: Engines) -> None:
    with tenant_scope(TENANT_A), TenantSession(engines.app) as session:
        found = []
        for _ in range(2):
            found.append(len(session.scalars(select(Book)).all()))
            session.commit()

    assert found == [3, 3]


def test_a_session_is_refused_where_another_tenants_work_runs(engines: Engines) -> None:
    with tenant_scope(TENANT_A):
        session = TenantSession(engines.app)

    with tenant_scope(TENANT_B), pytest.raises(TenantMismatch):
        session.scalars(select(Book))
    with pytest.raises(NoTenant):
        session.scalars(select(Book))


def test_a_row_kept_in_memory_is_not_handed_to_another_tenants_work(engines: Engines) -> None:
    with tenant_scope(TENANT_A):
        session = TenantSession(engines.app)
        book = session.scalars(select(Book).where(Book.id == STOCK_A.book)).one()
        assert session.get(Book, (TENANT_A.id, STOCK_A.book)) is book
    with session, tenant_scope(TENANT_B):
        for get in (session.get, session.get_one):
            with pytest.raises(TenantMismatch):
                get(Book, (TENANT_A.id, STOCK_A.book))


@pytest.mark.parametrize("rows", [{"tenant_id": TENANT_B.id}, {}, [{"tenant_id": TENANT_A.id}, {"tenant_id": TENANT_B.id}]])
def test_a_reviewed_statement_must_carry_its_sessions_tenant(engines: Engines, rows: Any) -> None:
    statement = reviewed(text("UPDATE book SET pages = 9 WHERE tenant_id = :tenant_id"), reason="a test of review")

    with tenant_scope(TENANT_A), TenantSession(engines.superuser) as session, pytest.raises(GuardRefusal, match="tenant_id"):
        session.execute(statement, rows)


def test_a_review_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        reviewed(text("SELECT 1"), reason="because")


async def test_the_asyncio_session_reads_and_writes_its_tenant_alone(engines: Engines) -> None:
    engine = create_async_engine(engines.app.url, poolclass=NullPool)
    with tenant_scope(TENANT_A):
        async with AsyncTenantSession(engine) as session:
            session.add(Book(title="a new book"))
            await session.flush()
            streamed = [title async for title in await session.stream_scalars(select(Book.title))]
            with pytest.raises(GuardRefusal):
                await session.execute(text("SELECT * FROM book"))
            foreign = await session.get(Book, (TENANT_B.id, STOCK_B.book))
            await session.rollback()

    assert session.tenant_id == TENANT_A.id
    assert sorted(streamed) == ["a atlas", "a book 1", "a book 2", "a new book"]
    assert foreign is None


async def test_the_asyncio_sessions_raw_connection_is_refused(engines: Engines) -> None:
    engine = create_async_engine(engines.app.url, poolclass=NullPool)
    with tenant_scope(TENANT_A):
        async with AsyncTenantSession(engine) as session:
            with pytest.raises(GuardRefusal):
                await session.connection()

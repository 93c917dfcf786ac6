"""Two stocked libraries on a real PostgreSQL, and an engine for every role that may or must not reach them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import pytest
from library import CLASSES, OWNER, PASSWORD, ROLES, TENANT_A, TENANT_B, Base, Stock, stock
from server import database_name, drop_database, fresh_database, test_server
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine
from sqlalchemy.orm import Session

from partywall import rls


@dataclass(frozen=True)
class Engines:
    """One engine per role. superuser and owner are what the running program must never be."""

    url: URL
    superuser: Engine
    owner: Engine
    app: Engine
    identity: Engine
    operator: Engine

    def as_role(self, name: str, password: str = PASSWORD) -> Engine:
        return engine_of(self.url.set(username=name, password=password))


def engine_of(url: URL) -> Engine:
    return create_engine(url, poolclass=NullPool)


@contextmanager
def fresh_engines(prefix: str) -> Iterator[Engines]:
    """Make an empty, hardened database whose schema belongs to the owner; dropped at the end."""
    server, name = test_server(), database_name(prefix)
    url = fresh_database(server, name)
    superuser = engine_of(url)
    with superuser.begin() as connection:
        make_owner(connection)
        rls.create_roles(connection, ROLES, dict.fromkeys(ROLES.login(), PASSWORD))
        rls.harden_database(connection, ROLES)
        connection.exec_driver_sql(f"ALTER SCHEMA public OWNER TO {OWNER}")
        connection.exec_driver_sql(f'GRANT ALL ON DATABASE "{name}" TO {OWNER}')
    roles = {role: engine_of(url.set(username=role, password=PASSWORD)) for role in (OWNER, *ROLES.login())}
    yield Engines(url, superuser, roles[OWNER], roles[ROLES.app], roles[ROLES.identity], roles[ROLES.operator])
    drop_database(server, name)


def make_owner(connection: Connection) -> None:
    connection.exec_driver_sql(
        f"DO $$ BEGIN CREATE ROLE {OWNER} LOGIN PASSWORD '{PASSWORD}';"
        " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )


def build_schema(engines: Engines) -> None:
    with engines.owner.begin() as connection:
        Base.metadata.create_all(connection)
        for found in CLASSES.values():
            for statement in rls.protect_sql(found, ROLES):
                connection.exec_driver_sql(statement)


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """The protected schema with the two stocked libraries. Tests roll back whatever they change in it."""
    with fresh_engines("pwlib") as engines:
        build_schema(engines)
        for tenant in (TENANT_A, TENANT_B):
            STOCKS[tenant.id] = stock(engines.superuser, tenant)
        yield engines


STOCKS: dict[UUID, Stock] = {}


@pytest.fixture
def stock_a(engines: Engines) -> Stock:
    return STOCKS[TENANT_A.id]


@pytest.fixture
def stock_b(engines: Engines) -> Stock:
    return STOCKS[TENANT_B.id]


@pytest.fixture(scope="module")
def empty(request: pytest.FixtureRequest) -> Iterator[Engines]:
    """An empty hardened database for one test file."""
    with fresh_engines("pwempty") as engines:
        yield engines


@pytest.fixture
def bound_a(engines: Engines) -> Iterator[Session]:
    """A plain session of the app role, bound to tenant A by the database alone; rolled back."""
    with Session(engines.app) as session:
        session.connection().exec_driver_sql(rls.set_tenant_sql(TENANT_A.id))
        yield session
        session.rollback()

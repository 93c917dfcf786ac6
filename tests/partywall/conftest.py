"""Two stocked libraries on a real PostgreSQL."""

from collections.abc import Iterator

import pytest
from engines import Engines, build_schema, fresh_engines
from library import STOCK_A, STOCK_B, TENANT_A, TENANT_B, stock
from sqlalchemy.orm import Session

from partywall import rls


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """The protected schema with the two stocked libraries. Tests roll back whatever they change in it."""
    with fresh_engines("pwlib") as engines:
        build_schema(engines)
        stock(engines.superuser, TENANT_A, STOCK_A)
        stock(engines.superuser, TENANT_B, STOCK_B)
        yield engines


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

"""An empty PostgreSQL database with the kernel's roles, and an engine for every role that may or must not reach it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from library import CLASSES, OWNER, PASSWORD, ROLES, Base
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine

from partywall import rls
from server import database_name, drop_database, fresh_database, test_server


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


def pooled(url: URL) -> Engine:
    return create_engine(url, pool_size=1, max_overflow=4)


@contextmanager
def fresh_engines(prefix: str) -> Iterator[Engines]:
    """Make an empty, hardened database whose schema belongs to the owner; dropped at the end."""
    server, name = test_server(), database_name(prefix)
    url = fresh_database(server, name)
    superuser = pooled(url)
    with superuser.begin() as connection:
        make_owner(connection)
        rls.create_roles(connection, ROLES, dict.fromkeys(ROLES.login(), PASSWORD))
        rls.harden_database(connection, ROLES)
        connection.exec_driver_sql(f"ALTER SCHEMA public OWNER TO {OWNER}")
        connection.exec_driver_sql(f'GRANT ALL ON DATABASE "{name}" TO {OWNER}')
    roles = {role: pooled(url.set(username=role, password=PASSWORD)) for role in (OWNER, *ROLES.login())}
    yield Engines(url, superuser, roles[OWNER], roles[ROLES.app], roles[ROLES.identity], roles[ROLES.operator])
    for engine in (superuser, *roles.values()):
        engine.dispose()
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

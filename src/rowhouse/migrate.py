"""Bring a database to what this version of the program needs: roles, schema, policies, queue."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from procrastinate.schema import SchemaManager
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url, text

from partywall.rls import Roles, create_roles, harden_database
from rowhouse.embedded import postgres
from rowhouse.settings import Settings

DATABASE = "rowhouse"
_LOCK_LIMIT_S = 10
# A job may compute for minutes between two statements; a transaction somebody forgot must end all the same.
_IDLE_LIMIT_S = 600


@dataclass(frozen=True, slots=True)
class Addresses:
    """The URLs of the four roles. admin: may create roles; owner: runs migrations; urls: app, identity, operator.

    direct: the same three past a pooler, for what needs a connection of its own (LISTEN).  replica: of the app role.
    """

    admin: URL
    owner: URL
    urls: dict[str, str]
    roles: Roles
    direct: dict[str, str] = field(default_factory=dict)
    replica: str | None = None

    @property
    def may_prepare(self) -> bool:
        """Return whether a connection stays the same from one transaction to the next."""
        return not self.direct or self.direct == self.urls


def roles_of(settings: Settings) -> Roles:
    """Return the role names of these settings."""
    prefix = settings.role_prefix
    return Roles(app=f"{prefix}_app", identity=f"{prefix}_identity", operator=f"{prefix}_operator")


def role_password(settings: Settings, role: str) -> str:
    """Return a role's password, derived from the secret, so that no second secret has to be kept."""
    return hmac.new(settings.secret, f"database role {role}".encode(), hashlib.sha256).hexdigest()


def find_addresses(settings: Settings, *, database: str = DATABASE) -> Addresses:
    """Return the URLs, starting the embedded server when there is no DATABASE_URL.

    Raises PostgresError, saying what and the way out, when the embedded server cannot start.
    """
    if settings.database_url is not None:
        admin = make_url(settings.database_url).set(drivername="postgresql+psycopg")
        return _addresses(settings, admin, owner=admin)
    server = postgres.start(settings.data_dir / "pg")
    admin = make_url(server.url(database)).set(drivername="postgresql+psycopg")
    owner_name = f"{settings.role_prefix}_owner"
    owner = admin.set(username=owner_name, password=role_password(settings, owner_name))
    return _addresses(settings, admin, owner=owner)


def _addresses(settings: Settings, admin: URL, *, owner: URL) -> Addresses:
    roles = roles_of(settings)

    def urls(place: URL) -> dict[str, str]:
        named = {"app": roles.app, "identity": roles.identity, "operator": roles.operator}
        return {name: _of_role(settings, place, role) for name, role in named.items()}

    pooled, replica = (_elsewhere(owner, address) for address in (settings.pooler_url, settings.replica_url))
    copy = _of_role(settings, replica, roles.app) if replica is not None else None
    return Addresses(admin, owner, urls(pooled or owner), roles, urls(owner), copy)


def _of_role(settings: Settings, place: URL, role: str) -> str:
    return place.set(username=role, password=role_password(settings, role)).render_as_string(hide_password=False)


def _elsewhere(place: URL, address: str | None) -> URL | None:
    """Return the same database at another host and port."""
    if address is None:
        return None
    other = make_url(address)
    return place.set(host=other.host, port=other.port, database=other.database or place.database, query=other.query)


def migrate(settings: Settings, addresses: Addresses) -> None:
    """Create the database (embedded only), the roles and everything in the schema; running it again changes nothing."""
    if settings.embedded:
        _create_database(settings, addresses)
    with _engine(addresses.admin).begin() as connection:
        create_roles(connection, addresses.roles, {role: role_password(settings, role) for role in addresses.roles.login()})
        harden_database(connection, addresses.roles)
        _limit_roles(connection, settings, addresses.roles)
    engine = _engine(addresses.owner)
    with engine.connect() as connection:
        upgrade(connection, addresses.roles)
    _install_queue(engine, addresses)


def _limit_roles(connection: Connection, settings: Settings, roles: Roles) -> None:
    """Bound what the programs' roles may do, in this database: also through a pooler, and at no cost per transaction."""
    quote = connection.dialect.identifier_preparer.quote
    database = quote(connection.execute(text("SELECT current_database()")).scalar_one())
    of_tenants = {
        "statement_timeout": f"{settings.statement_timeout_s}s",
        "lock_timeout": f"{min(_LOCK_LIMIT_S, settings.statement_timeout_s)}s",
        "idle_in_transaction_session_timeout": f"{_IDLE_LIMIT_S}s",
    }
    for role in roles.login():
        limits = {"timezone": "UTC", **(of_tenants if role != roles.operator else {})}
        for name, value in limits.items():
            connection.exec_driver_sql(f"ALTER ROLE {quote(role)} IN DATABASE {database} SET {name} TO '{value}'")


def _create_database(settings: Settings, addresses: Addresses) -> None:
    owner = addresses.owner.username or ""
    name = addresses.admin.database or ""
    with _engine(addresses.admin.set(database="postgres")).connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        quote = connection.dialect.identifier_preparer.quote
        known = {"role": owner, "name": name}
        if not connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), known).scalar():
            password = role_password(settings, owner)
            connection.exec_driver_sql(f"CREATE ROLE {quote(owner)} LOGIN PASSWORD '{password}'")
        if not connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :name"), known).scalar():
            connection.exec_driver_sql(f"CREATE DATABASE {quote(name)} OWNER {quote(owner)}")
    with _engine(addresses.admin).begin() as connection:
        connection.exec_driver_sql(f"ALTER SCHEMA public OWNER TO {quote(owner)}")


def upgrade(connection: Connection, roles: Roles) -> None:
    """Run the migrations that are still to run, on a connection of the owner."""
    command.upgrade(_config(connection, roles), "head")


def pending(connection: Connection) -> list[str]:
    """Return the revisions that have not run yet, oldest first."""
    script = ScriptDirectory(str(migrations_folder()))
    current = MigrationContext.configure(connection).get_current_revision()
    if current == script.get_current_head():
        return []
    return [step.revision for step in script.iterate_revisions("head", current)][::-1]


def write_revision(connection: Connection, roles: Roles, message: str) -> None:
    """Write a new migration from the difference between the models and the live schema."""
    command.revision(_config(connection, roles), message=message, autogenerate=True)


def differences(connection: Connection, roles: Roles) -> None:
    """Raise alembic's AutogenerateDiffsDetected when the live schema differs from the models."""
    command.check(_config(connection, roles))


def migrations_folder() -> Path:
    """Return the folder of the migrations: beside the sources, or inside the installed package."""
    here = Path(__file__).resolve()
    beside = here.parents[2] / "migrations"
    return beside if (beside / "env.py").exists() else here.parent / "migrations"


def _config(connection: Connection, roles: Roles) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes.update(connection=connection, roles=roles)
    return config


def _install_queue(engine: Engine, addresses: Addresses) -> None:
    quote = engine.dialect.identifier_preparer.quote
    operator = quote(addresses.roles.operator)
    with engine.begin() as connection:
        if not connection.execute(text("SELECT to_regclass('procrastinate_jobs')")).scalar():
            connection.exec_driver_sql(SchemaManager.get_schema().replace("%", "%%"))
        tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE tablename LIKE 'procrastinate%'"))
        for (name,) in tables.all():
            connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {quote(name)} TO {operator}")
        routines = connection.execute(text("SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'procrastinate%'"))
        for (name,) in routines.all():
            connection.exec_driver_sql(f"REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC")
            connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {name} TO {operator}")
        sequences = connection.execute(text("SELECT sequencename FROM pg_sequences WHERE sequencename LIKE 'procrastinate%'"))
        for (name,) in sequences.all():
            connection.exec_driver_sql(f"GRANT USAGE, SELECT ON SEQUENCE {quote(name)} TO {operator}")


def _engine(url: URL) -> Engine:
    options: dict[str, Any] = {"options": "-c lock_timeout=10s -c statement_timeout=600s"}
    return create_engine(url, poolclass=NullPool, connect_args=options)


__all__ = ["Addresses", "find_addresses", "migrate", "pending", "roles_of"]

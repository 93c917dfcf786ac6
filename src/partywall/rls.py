"""Database roles, row-level security policies, and the Alembic operations that put them on a table.

One policy text, generated, the same on every tenant table; permissive, without sub-select, so that it means the same
on PostgreSQL and on Citus. The operator and identity roles do not bypass row-level security: each has a policy of its
own on the tables it may see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations
from sqlalchemy import Connection, MetaData, Table, text
from sqlalchemy.exc import DBAPIError

from partywall.errors import UnsafeRole
from partywall.tables import TENANT_COLUMN, Classification, TableClass

SETTING = "app.tenant_id"
PREDICATE = f"{TENANT_COLUMN} = nullif(current_setting('{SETTING}', true), '')::uuid"
TENANT_POLICY = "partywall_tenant"
OPERATOR_POLICY = "partywall_operator"
IDENTITY_POLICY = "partywall_identity"
# duplicate_object, unique_violation, and the internal error "tuple concurrently updated".
_RACED = frozenset({"42710", "23505", "XX000"})
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of the database roles. The owner runs migrations; the other three own nothing.

    app: tenants' work.  identity: look-ups before a tenant is known.  operator: work across tenants, with a reason.
    """

    app: str = "rowhouse_app"
    identity: str = "rowhouse_identity"
    operator: str = "rowhouse_operator"

    def login(self) -> tuple[str, str, str]:
        """Return the roles the running program logs in as."""
        return (self.app, self.identity, self.operator)


def set_tenant_sql(tenant_id: UUID) -> str:
    """Return the statement that binds the open transaction to a tenant.

    SET takes no parameter, so the value is written as a literal; it is a parsed UUID, so it cannot carry SQL. It must
    be sent as a message of its own.
    """
    if not isinstance(tenant_id, UUID):
        raise TypeError(f"tenant_id must be a UUID, not {type(tenant_id).__name__}")
    return f"SET LOCAL {SETTING} = '{tenant_id}'"


def create_roles(connection: Connection, roles: Roles, passwords: Mapping[str, str]) -> None:
    """Create the log-in roles, or bring their attributes and passwords to what is declared.

    passwords: one per role name.  Needs CREATEROLE.  Two callers at once are safe.
    """
    for name in roles.login():
        for attempt in range(_ATTEMPTS):
            try:
                with connection.begin_nested():
                    _bring_role(connection, name, passwords[name])
                break
            except DBAPIError as error:
                # Roles belong to the whole cluster and advisory locks to one database: a migration of another database
                # may be changing the same role. The server made us wait for its end, so trying again finds it done.
                if getattr(error.orig, "sqlstate", "") not in _RACED or attempt == _ATTEMPTS - 1:
                    raise


def _bring_role(connection: Connection, name: str, password: str) -> None:
    quoted = connection.dialect.identifier_preparer.quote(name)
    found = connection.execute(
        text("SELECT rolsuper OR rolbypassrls OR rolreplication AS unsafe FROM pg_roles WHERE rolname = :name"), {"name": name}
    ).one_or_none()
    connection.exec_driver_sql(
        f"{'ALTER' if found else 'CREATE'} ROLE {quoted} LOGIN INHERIT NOCREATEDB NOCREATEROLE PASSWORD {_literal(password)}"
    )
    if found and found.unsafe:
        connection.exec_driver_sql(f"ALTER ROLE {quoted} NOSUPERUSER NOBYPASSRLS NOREPLICATION")


def harden_database(connection: Connection, roles: Roles) -> None:
    """Take from PUBLIC what an injected statement could use, and give the roles what they need to connect.

    `set_config` is revoked where the connected role may do so (a superuser): `SET LOCAL` goes on working.
    """
    quote = connection.dialect.identifier_preparer.quote
    database = quote(connection.execute(text("SELECT current_database()")).scalar_one())
    connection.exec_driver_sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    connection.exec_driver_sql(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    for name in roles.login():
        connection.exec_driver_sql(f"GRANT CONNECT ON DATABASE {database} TO {quote(name)}")
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA public TO {quote(name)}")
    if connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar():
        # Large objects know no tenant and no policy.
        for function in ("set_config(text, text, boolean)", "lo_create(oid)", "lo_creat(integer)", "lo_from_bytea(oid, bytea)"):
            connection.exec_driver_sql(f"REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC")


def expected_policies(found: Classification, roles: Roles) -> dict[str, tuple[str, str]]:
    """Return the policies a table must have: name to (role, predicate); the role "public" stands for everyone."""
    if found.table_class is not TableClass.TENANT:
        return {}
    policies = {TENANT_POLICY: ("public", PREDICATE), OPERATOR_POLICY: (roles.operator, "true")}
    if found.identity_access:
        policies[IDENTITY_POLICY] = (roles.identity, "true")
    return policies


def expected_privileges(found: Classification, roles: Roles) -> dict[str, frozenset[str]]:
    """Return the table privileges each role must hold, exactly."""
    read, write = frozenset({"SELECT"}), frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
    match found.table_class:
        case TableClass.TENANT:
            app = frozenset({"SELECT", "INSERT"}) if found.append_only else write
            return {
                roles.app: app,
                roles.identity: frozenset(found.identity_access),
                roles.operator: app if found.append_only else write,
            }
        case TableClass.SHARED:
            return {roles.app: read, roles.identity: read, roles.operator: write}
        case TableClass.IDENTITY:
            return {roles.app: frozenset(), roles.identity: write, roles.operator: write}
        case TableClass.OPERATOR:
            return {roles.app: frozenset(), roles.identity: frozenset(), roles.operator: write}


def protect_sql(found: Classification, roles: Roles) -> list[str]:
    """Return the statements that bring one table to its declared protection; running them again changes nothing."""
    name = _identifier(found.table.name)
    logins = ", ".join(_identifier(role) for role in roles.login())
    statements = [f"REVOKE ALL ON {name} FROM PUBLIC, {logins}"]
    for role, privileges in expected_privileges(found, roles).items():
        statements += _grants(found, name, role, privileges)
    policies = expected_policies(found, roles)
    if policies:
        statements.append(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    for policy in (TENANT_POLICY, OPERATOR_POLICY, IDENTITY_POLICY):
        statements.append(f"DROP POLICY IF EXISTS {policy} ON {name}")
    for policy, (role, predicate) in policies.items():
        target = "PUBLIC" if role == "public" else _identifier(role)
        statements.append(f"CREATE POLICY {policy} ON {name} FOR ALL TO {target} USING ({predicate}) WITH CHECK ({predicate})")
    return statements


def _grants(found: Classification, name: str, role: str, privileges: frozenset[str]) -> Iterable[str]:
    whole = sorted(privileges - {"UPDATE"})
    if whole:
        yield f"GRANT {', '.join(whole)} ON {name} TO {_identifier(role)}"
    columns = updatable_columns(found) if "UPDATE" in privileges else []
    if columns:
        yield f"GRANT UPDATE ({', '.join(_identifier(column) for column in columns)}) ON {name} TO {_identifier(role)}"


def updatable_columns(found: Classification) -> list[str]:
    """Return the columns the running program may update: never the tenant of a tenant's row, nor any primary key."""
    keys = {column.name for column in found.table.primary_key.columns}
    return [column.name for column in found.table.columns if column.name not in keys | {TENANT_COLUMN}]


def assert_role(connection: Connection, expected: str) -> None:
    """Check that the connected role is the expected one and is bound by the policies.

    Raises UnsafeRole when it is another role, a superuser, may bypass row-level security, can become such a role, or
    owns a table.
    """
    row = connection.execute(
        text(
            "SELECT current_user AS name,"
            " (SELECT bool_or(rolsuper OR rolbypassrls) FROM pg_roles"
            "   WHERE pg_has_role(current_user, oid, 'MEMBER')) AS unsafe,"
            " (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            "   WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'p', 'v', 'm')"
            "   AND pg_has_role(current_user, c.relowner, 'MEMBER')) AS owned"
        )
    ).one()
    if row.name != expected:
        raise UnsafeRole(f"connected as {row.name}, expected {expected}; check the database URL of this role")
    if row.unsafe:
        raise UnsafeRole(f"{row.name} is a superuser or may bypass row-level security; connect as a plain role")
    if row.owned:
        raise UnsafeRole(f"{row.name} owns {row.owned} tables; tables must belong to the migration role alone")


def _literal(value: str) -> str:
    if "\0" in value or "\\" in value:
        raise ValueError("a password must not contain NUL or backslash")
    # The driver reads a single percent sign as a placeholder.
    return "'" + value.replace("'", "''").replace("%", "%%") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@Operations.register_operation("protect_table")
class ProtectTable(MigrateOperation):
    """Alembic: `op.protect_table("account", "tenant", columns=[…])`, in the step that creates the table."""

    def __init__(self, table: str, table_class: str, **declared: Any) -> None:
        self.table, self.table_class, self.declared = table, table_class, declared

    @classmethod
    def protect_table(cls, operations: Operations, table: str, table_class: str, **declared: Any) -> None:
        """Bring a table to the protection of its class.

        Declared: append_only (bool), identity_access (tuple of privileges). The columns are read from the live table.
        """
        operations.invoke(cls(table, table_class, **declared))


@Operations.implementation_for(ProtectTable)
def _protect_table(operations: Operations, operation: ProtectTable) -> None:
    connection = operations.get_bind()
    found = Classification(
        _reflected(connection, operation.table),
        TableClass(operation.table_class),
        "",
        bool(operation.declared.get("append_only", False)),
        tuple(operation.declared.get("identity_access", ())),
    )
    roles = operations.get_context().opts.get("partywall_roles") or Roles()
    for statement in protect_sql(found, roles):
        connection.exec_driver_sql(statement)


def _reflected(connection: Connection, name: str) -> Table:
    return Table(name, MetaData(), autoload_with=connection, resolve_fks=False)


@renderers.dispatch_for(ProtectTable)
def _render_protect_table(_context: object, operation: ProtectTable) -> str:
    rest = "".join(f", {name}={value!r}" for name, value in operation.declared.items())
    return f"op.protect_table({operation.table!r}, {operation.table_class!r}{rest})"

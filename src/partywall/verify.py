"""The live catalogue against the declaration, and a probe of two tenants as the application's own role.

`verify` returns a report and changes nothing: what it needs to set or write it rolls back. Every finding names its rule:
those of `catalogue.RULES`, and undeclared, missing, view_runs_as_owner, policy, privilege, probe_role, probe_error,
probe_foreign_row, probe_no_tenant, probe_insert.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from partywall.catalogue import GRANTS, POLICIES, RELATIONS, RULES
from partywall.errors import UnsafeRole
from partywall.ids import uuid7
from partywall.rls import SETTING, Roles, assert_role, expected_policies, expected_privileges, set_tenant_sql, updatable_columns
from partywall.tables import TENANT_COLUMN, Classification, TableClass

Outcome = Literal["proved", "empty", "failed", "not probed"]
Classes = Mapping[str, Classification]
_SEEN_AT_MOST = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference from the declaration. table: empty when it concerns a role or the database."""

    table: str
    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class TableVerdict:
    """One table. table_class: its class, or "exempt".  own_rows: how many the probe saw; it stops counting at 1000.

    probe: "proved" needs rows of at least one of the two tenants; a table without any is "empty".
    """

    name: str
    table_class: str
    reason: str
    ok: bool
    probe: Outcome = "not probed"
    own_rows: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """Every table with its verdict, and every finding."""

    tables: list[TableVerdict]
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Return whether nothing was found."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can carry it."""
        return {"ok": self.ok, **asdict(self)}


def verify(
    connection: Connection,
    classes: Classes,
    roles: Roles,
    *,
    exempt: Mapping[str, str] = MappingProxyType({}),
    probe: Connection | None = None,
    tenants: tuple[UUID, UUID] | None = None,
) -> Report:
    """Compare the database with the declaration, and probe it.

    connection: any role that may read the catalogue.  exempt: pattern of the name of a table, view, routine, or
    "set_config" -> reason; an exempt table must be out of the app's reach.  probe: a connection of the app's role.
    tenants: two that exist, best with rows in every table; without them the probe is of empty tenants.
    """
    relations = _rows(connection, RELATIONS)
    live = [(row, classes[row.name]) for row in relations if row.name in classes]
    scoped = {row.oid: found for row, found in live if found.table_class is TableClass.TENANT}
    findings = [
        *_inventory(relations, classes, exempt),
        *_broken_rules(connection, {row.oid: row.name for row in relations}, list(scoped), roles, exempt=exempt),
        *_policies(connection, live, roles),
        *_privileges(connection, relations, classes, roles),
    ]
    outcomes: dict[str, tuple[Outcome, int]] = {}
    if probe is not None:
        findings += _probe(probe, [found.table.name for found in scoped.values()], roles, tenants, outcomes)
    red = {finding.table for finding in findings}
    verdicts = []
    for row in relations:
        found, reason = classes.get(row.name), _exemption(row.name, exempt)
        kind = found.table_class.value if found else "undeclared" if reason is None else "exempt"
        if row.kind != "S":
            shown = (found.reason if found else reason) or ""
            verdicts.append(TableVerdict(row.name, kind, shown, row.name not in red, *outcomes.get(row.name, ())))
    return Report(verdicts, sorted(set(findings), key=lambda finding: (finding.table, finding.rule, finding.message)))


def _inventory(relations: Sequence[Row[Any]], classes: Classes, exempt: Mapping[str, str]) -> Iterator[Finding]:
    for row in relations:
        if row.kind == "v" and not row.invoker:
            yield Finding(row.name, "view_runs_as_owner", "the view reads as its owner; set security_invoker = true")
        if row.kind != "S" and row.name not in classes and _exemption(row.name, exempt) is None:
            yield Finding(row.name, "undeclared", "in the database, but no class declares it; declare or exempt it")
    for name in sorted(set(classes) - {row.name for row in relations}):
        yield Finding(name, "missing", "declared, but not in the database; run the migrations")


def _exemption(name: str, exempt: Mapping[str, str]) -> str | None:
    return next((reason for pattern, reason in exempt.items() if fnmatchcase(name, pattern)), None)


def _broken_rules(
    connection: Connection, names: Mapping[int, str], scoped: list[int], roles: Roles, *, exempt: Mapping[str, str]
) -> Iterator[Finding]:
    values = {"scoped": scoped, "roles": list(roles.login()), "app": roles.app}
    for rule, sql in RULES.items():
        rows = f'SELECT * FROM ({sql}) AS broken ("table", object, message)'  # noqa: S608 - constants only
        for row in _rows(connection, rows, {name: value for name, value in values.items() if f":{name}" in sql}):
            if row.object is None or _exemption(row.object, exempt) is None:
                yield Finding(names.get(row.table, ""), rule, row.message)


def _policies(connection: Connection, live: Iterable[tuple[Row[Any], Classification]], roles: Roles) -> Iterator[Finding]:
    # Only names of pg_catalog are then written without a schema, so a look-alike function or operator shows.
    with connection.begin_nested() as savepoint:
        connection.exec_driver_sql("SET LOCAL search_path = pg_catalog")
        policies = _rows(connection, POLICIES)
        savepoint.rollback()
    for row, found in live:
        expected = {
            name: ("*", True, [role], _canonical(predicate), _canonical(predicate))
            for name, (role, predicate) in expected_policies(found, roles).items()
        }
        seen = {
            policy.name: (policy.command, policy.permissive, policy.roles, _canonical(policy.uses), _canonical(policy.checks))
            for policy in policies
            if policy.table == row.oid
        }
        for name in sorted(expected.keys() | seen.keys()):
            if expected.get(name) != seen.get(name):
                how = "is missing" if name not in seen else "is not declared" if name not in expected else "differs"
                yield Finding(row.name, "policy", f"policy {name} {how}; run protect_table again")


def _canonical(expression: str | None) -> str:
    """Return an expression without what the server adds when it writes it: casts of literals, brackets, spaces."""
    return re.sub(r"::text|[\s()]", "", expression or "").lower()


def _privileges(connection: Connection, relations: Sequence[Row[Any]], classes: Classes, roles: Roles) -> Iterator[Finding]:
    granted: dict[int, set[tuple[str, str, str]]] = {}
    for row in _rows(connection, GRANTS):
        granted.setdefault(row.table, set()).add((row.grantee, row.privilege, row.column))
    for relation in relations:
        seen = granted.get(relation.oid, set())
        if relation.name in classes:
            found = classes[relation.name]
            held = {(role, each) for role, some in expected_privileges(found, roles).items() for each in some}
            expected = {(role, each, "") for role, each in held if each != "UPDATE"}
            expected |= {(role, each, column) for role, each in held if each == "UPDATE" for column in updatable_columns(found)}
        elif relation.kind == "v" and relation.invoker:
            continue
        else:
            expected, reach = set(), {"public", roles.app, *(() if relation.kind == "S" else (roles.identity,))}
            seen = {grant for grant in seen if grant[0] in reach}
        for grants, how in ((seen - expected, "has"), (expected - seen, "lacks")):
            for role, privilege, column in sorted(grants):
                yield Finding(
                    relation.name, "privilege", f"{role} {how} {privilege} {f'of column {column}' if column else ''}".strip()
                )


def _probe(
    connection: Connection,
    tables: list[str],
    roles: Roles,
    tenants: tuple[UUID, UUID] | None,
    outcomes: dict[str, tuple[Outcome, int]],
) -> Iterator[Finding]:
    """Probe as the app's role; fills `outcomes` by table."""
    try:
        assert_role(connection, roles.app)
    except UnsafeRole as error:
        yield Finding("", "probe_role", str(error))
        return
    for table in tables:
        own, faults = 0, [("probe_error", "the app's role cannot read the table")]
        with suppress(DBAPIError), connection.begin_nested() as savepoint:
            own, faults = _probe_table(
                connection, connection.dialect.identifier_preparer.quote(table), tenants or (uuid7(), uuid7())
            )
            savepoint.rollback()
        outcomes[table] = ("failed" if faults else "proved" if own else "empty", own)
        yield from (Finding(table, rule, message) for rule, message in faults)


def _probe_table(connection: Connection, name: str, tenants: tuple[UUID, UUID]) -> tuple[int, list[tuple[str, str]]]:
    own, faults = 0, []
    for tenant, other in (tenants, tenants[::-1]):
        connection.exec_driver_sql(set_tenant_sql(tenant))
        own += _count(connection, f"{name} WHERE {TENANT_COLUMN} = :tenant", tenant)
        if _count(connection, f"{name} WHERE {TENANT_COLUMN} <> :tenant", tenant):
            faults.append(("probe_foreign_row", f"as tenant {tenant}, rows of another tenant were seen"))
        if not _is_refused(connection, name, other):
            faults.append(("probe_insert", f"as tenant {tenant}, a row of another tenant was not refused by the policy"))
        if _is_refused(connection, name, tenant):
            faults.append(("probe_insert", f"as tenant {tenant}, a row of its own was refused, so a refusal proves nothing"))
    connection.exec_driver_sql(f"SET LOCAL {SETTING} = ''")
    if _count(connection, f"{name} WHERE CAST(:tenant AS uuid) IS NULL", None):
        faults.append(("probe_no_tenant", "without a tenant, rows were seen"))
    return own, faults


def _count(connection: Connection, source: str, tenant: UUID | None) -> int:
    statement = text(f"SELECT count(*) FROM (SELECT FROM {source} LIMIT {_SEEN_AT_MOST}) found")  # noqa: S608 - quoted by the caller
    return int(connection.execute(statement, {"tenant": tenant}).scalar_one())


def _is_refused(connection: Connection, name: str, tenant: UUID) -> bool:
    """Return whether the policy refuses a row. It is asked before NOT NULL, CHECK and keys, so a bare row will do."""
    try:
        with connection.begin_nested() as savepoint:
            connection.execute(text(f"INSERT INTO {name} ({TENANT_COLUMN}) VALUES (:tenant)"), {"tenant": tenant})  # noqa: S608
            savepoint.rollback()
    except DBAPIError as error:
        # A missing privilege has the same SQLSTATE; only the policy is checked in this function of the server.
        return getattr(getattr(error.orig, "diag", None), "source_function", None) == "ExecWithCheckOptions"
    return False


def _rows(connection: Connection, sql: str, values: Mapping[str, Any] = MappingProxyType({})) -> Sequence[Row[Any]]:
    return connection.execute(text(sql), values).all()

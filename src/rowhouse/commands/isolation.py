"""The live database against the program's declaration: the kernel's `verify`, with this program's exemptions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, NullPool, create_engine, text

from partywall import classify
from partywall.rls import Roles, expected_policies, expected_privileges
from partywall.tables import Classification, TableClass
from partywall.verify import Finding, Report, verify
from rowhouse.citus import is_citus
from rowhouse.citus_shards import of_cluster, read_spread
from rowhouse.core.db import Base
from rowhouse.migrate import Addresses

EXEMPT = {
    "alembic_version": "which migrations have run; no role of the program reaches it",
    "procrastinate_*": "the job queue: the operator role alone reaches it; a job names a tenant and a row, no content",
}
OF_CITUS = {"citus_*": "views of the extension; they tell of tables and nodes, no rows"}


@dataclass(frozen=True, slots=True)
class Line:
    """One table as shown: each column says what holds, or "FAILED"."""

    table: str
    table_class: str
    keys: str
    policy: str
    role: str
    probe: str


@dataclass(frozen=True, slots=True)
class Isolation:
    """The whole answer. ok: nothing was found."""

    ok: bool
    tables: list[Line]
    findings: list[Finding]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can carry it."""
        return asdict(self)


def check_isolation(addresses: Addresses) -> Isolation:
    """Check the catalogue as the owner, and probe as the application's role with the two largest tenants."""
    classes = classify(Base.registry)
    owner = create_engine(addresses.owner, poolclass=NullPool)
    app = create_engine(addresses.urls["app"], poolclass=NullPool)
    operator = create_engine(addresses.urls["operator"], poolclass=NullPool)
    with operator.connect() as connection:
        tenants = _two_tenants(connection)
    with owner.connect() as connection, app.connect() as probe:
        on_citus = is_citus(connection)
        exempt = EXEMPT | OF_CITUS if on_citus else EXEMPT
        report = verify(connection, classes, addresses.roles, exempt=exempt, probe=probe, tenants=tenants)
        if on_citus:
            report = of_cluster(report, read_spread(connection, classes), classes, addresses.roles)
    return Isolation(report.ok, [_line(v.name, report, classes, addresses.roles) for v in report.tables], report.findings)


def _two_tenants(connection: Connection) -> tuple[UUID, UUID] | None:
    # The ones with the longest audit log have rows in most tables, so the probe says more.
    busiest = "SELECT tenant_id FROM audit_entry GROUP BY tenant_id ORDER BY count(*) DESC LIMIT 2"
    found = connection.execute(text(busiest)).scalars().all()
    return (found[0], found[1]) if len(found) == 2 else None


def _line(name: str, report: Report, classes: Any, roles: Roles) -> Line:
    verdict = next(verdict for verdict in report.tables if verdict.name == name)
    rules = {finding.rule for finding in report.findings if finding.table == name}
    found = classes.get(name)
    if found is None:
        return Line(name, verdict.table_class, "", "", "", verdict.reason)
    probe = f"{verdict.probe}, {verdict.own_rows} own rows" if verdict.probe == "proved" else verdict.probe
    of_policy = {rule for rule in rules if rule in ("policy", "row_security")}
    of_probe = {rule for rule in rules if rule.startswith("probe")}
    policies = ", ".join(policy.removeprefix("partywall_") for policy in expected_policies(found, roles))
    return Line(
        name,
        verdict.table_class,
        _shown(_keys(found), rules - of_policy - of_probe - {"privilege"}),
        _shown(policies or "none", of_policy),
        _shown(_roles(found, roles), rules & {"privilege"}),
        _shown(probe if _is_tenant(found) else "", of_probe),
    )


def _is_tenant(found: Classification) -> bool:
    return found.table_class is TableClass.TENANT


def _keys(found: Classification) -> str:
    return f"({', '.join(column.name for column in found.table.primary_key.columns)})"


def _roles(found: Classification, roles: Roles) -> str:
    return ", ".join(role.split("_", 1)[-1] for role, rights in expected_privileges(found, roles).items() if rights)


def _shown(text: str, broken: set[str]) -> str:
    return f"FAILED ({', '.join(sorted(broken))})" if broken else text

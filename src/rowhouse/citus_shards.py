"""`rowhouse verify` on Citus: every shard carries the row-level security and the policies of its table.

A policy that is right on the coordinator proves nothing about the nodes, where the rows are: Citus copies it when a table
is distributed, moved or split, so each shard is asked. `judge` decides and touches no database.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text

from partywall.rls import Roles
from partywall.tables import TENANT_COLUMN, TableClass
from partywall.verify import Finding, Report
from rowhouse.citus import Classes, linked

# The same question for a table and for its shards. Of policies the roles are named, since each node numbers its own.
_FACTS = """
SELECT json_build_object('enabled', c.relrowsecurity, 'forced', c.relforcerowsecurity, 'policies', (
    SELECT json_agg(json_build_array(p.polname, p.polcmd, p.polpermissive,
        ARRAY(SELECT CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r)::text END FROM unnest(p.polroles) r ORDER BY 1),
        pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) ORDER BY p.polname)
    FROM pg_policy p WHERE p.polrelid = c.oid))::text
FROM pg_class c WHERE c.oid = '{name}'::regclass"""
# %s becomes the shard's name; the command is a literal, so its quotes are doubled.
_OF_SHARDS = "SELECT shardid, success, result FROM run_command_on_shards('{table}', '{command}') ORDER BY shardid"
_PLACES = """
SELECT logicalrelid::regclass::text AS name, partmethod::text AS method, colocationid AS colocation,
       CASE partmethod WHEN 'h' THEN column_to_column_name(logicalrelid, partkey) END AS key
FROM pg_dist_partition"""
_PROPAGATING = """
SELECT r.rolname FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    AND c = 'citus.propagate_set_commands=local'"""


@dataclass(frozen=True, slots=True)
class Place:
    """How one table is spread. method: "h" for distributed by hash, "n" for a reference table.  key: its column."""

    name: str
    method: str
    colocation: int
    key: str | None


@dataclass(frozen=True, slots=True)
class Shard:
    """What one shard answered to `_FACTS`: JSON when `success`, else the node's error."""

    table: str
    shard_id: int
    success: bool
    result: str


@dataclass(frozen=True, slots=True)
class Spread:
    """Everything that is judged. facts: of each table on the coordinator, by name.  propagating: roles."""

    places: Mapping[str, Place]
    facts: Mapping[str, str]
    shards: tuple[Shard, ...]
    propagating: frozenset[str]


def of_cluster(report: Report, spread: Spread, classes: Classes, roles: Roles) -> Report:
    """Return the kernel's report of the coordinator as it reads for the whole cluster.

    A distributed table is not under FORCE: with it an online move of a shard never ends. ENABLE is what binds the
    programs' roles, who own nothing, so that finding is dropped where ENABLE holds.
    """
    excused = {name for name, facts in spread.facts.items() if _read(facts).get("enabled")}
    kept = [found for found in report.findings if not (found.rule == "row_security" and found.table in excused)]
    findings = [*kept, *judge(spread, classes, roles)]
    red = {found.table for found in findings}
    return Report([replace(table, ok=table.name not in red) for table in report.tables], findings)


def read_spread(connection: Connection, classes: Classes) -> Spread:
    """Return how the tables are spread and what every shard says of itself. connection: of the owner, on the coordinator."""
    places = {row.name: Place(row.name, row.method, row.colocation, row.key) for row in connection.execute(text(_PLACES))}
    tables = sorted(name for name in _of_tenants(classes) if name in places)
    facts = {name: connection.exec_driver_sql(_FACTS.format(name=name)).scalar_one() for name in tables}
    shards = []
    for name in tables:
        for row in connection.exec_driver_sql(shards_sql(name)):
            shards.append(Shard(name, row.shardid, row.success, row.result))
    propagating = frozenset(connection.execute(text(_PROPAGATING)).scalars().all())
    return Spread(places, facts, tuple(shards), propagating)


def shards_sql(table: str) -> str:
    """Return the statement that asks every shard of a table, written for the driver: a percent sign is doubled."""
    command = _FACTS.format(name="%s").replace("'", "''")
    return _OF_SHARDS.format(table=table, command=command).replace("%", "%%")


def judge(spread: Spread, classes: Classes, roles: Roles) -> list[Finding]:
    """Return what is wrong: a table not spread as declared, a shard unlike its table, a role whose tenant does not travel."""
    found = [*_misplaced(spread, classes), *_unlike(spread)]
    asked = {shard.table for shard in spread.shards}
    for name in sorted(set(spread.facts) - asked):
        found.append(Finding(name, "shard_missing", "no shard answered"))
    for role in roles.login():
        if role not in spread.propagating:
            found.append(Finding("", "shard_setting", f"{role} does not send its tenant to the nodes; run migrate --citus"))
    return found


def _misplaced(spread: Spread, classes: Classes) -> Iterator[Finding]:
    tenant = _of_tenants(classes)
    together = {spread.places[name].colocation for name in tenant if name in spread.places}
    for name in sorted(tenant):
        place = spread.places.get(name)
        if place is None or place.method != "h" or place.key != TENANT_COLUMN:
            yield Finding(name, "shard_place", "is not distributed by tenant; run migrate --citus")
        elif len(together) > 1:
            yield Finding(name, "shard_place", f"is in colocation group {place.colocation}, others are elsewhere")
    for name in sorted(linked(classes)):
        place = spread.places.get(name)
        if place is None or place.method != "n":
            yield Finding(name, "shard_place", "is no reference table; run migrate --citus")


def _unlike(spread: Spread) -> Iterator[Finding]:
    for shard in spread.shards:
        name = f"shard {shard.shard_id}"
        if not shard.success:
            yield Finding(shard.table, "shard_unasked", f"{name} could not be asked: {shard.result}")
            continue
        own, whole = _read(shard.result), _read(spread.facts[shard.table])
        if not own.get("enabled"):
            yield Finding(shard.table, "shard_row_security", f"{name} has row-level security switched off")
        if own.get("policies") != whole.get("policies") or not own.get("policies"):
            yield Finding(shard.table, "shard_policy", f"{name} has other policies than its table")
        elif not all(policy[2] for policy in own["policies"]):
            yield Finding(shard.table, "shard_policy", f"{name} has a restrictive policy, which Citus does not keep")


def _read(facts: str) -> dict[str, Any]:
    found = json.loads(facts) if facts else {}
    return found if isinstance(found, dict) else {}


def _of_tenants(classes: Classes) -> set[str]:
    return {name for name, found in classes.items() if found.table_class is TableClass.TENANT}

"""Distributing the schema over a Citus cluster: the rules it is written by, the plan, and the check of every shard.

No program of ours runs other statements on Citus than on PostgreSQL. What follows was measured on Citus 13.2 with
PostgreSQL 15; `docs/guide/scale.md` says what that means and what was not tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, text
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from partywall.rls import Roles
from partywall.tables import TENANT_COLUMN, Classification, TableClass, key_faults

Classes = Mapping[str, Classification]
# Statements of one shard at a time; a change of the schema otherwise opens a connection for each.
_SEQUENTIAL = "SET citus.multi_shard_modify_mode TO 'sequential'"
# What runs a statement on other nodes. Row-level security held there too, but no program of ours has any use for them.
_RUN_ANYWHERE = (
    "run_command_on_workers",
    "run_command_on_shards",
    "run_command_on_placements",
    "run_command_on_coordinator",
    "run_command_on_all_nodes",
    "master_run_on_worker",
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule that keeps the schema and the statements fit for Citus.

    holds: what must be so.  otherwise: what Citus does else, in its own words where it has some.
    """

    name: str
    holds: str
    otherwise: str


RULES = (
    Rule(
        "tenant_key",
        "every primary key, unique key and exclusion constraint of a tenant table contains tenant_id",
        "the table cannot be distributed: the constraint does “not include the partition column”",
    ),
    Rule(
        "foreign_key",
        "a foreign key between tenant tables carries tenant_id on both sides; one of a single column leads to a global table",
        "foreign keys between shards need the distribution column",
    ),
    Rule(
        "global_to_tenant",
        "no global table refers to a tenant table",
        "“foreign keys from reference tables and local tables to distributed tables are not supported”",
    ),
    Rule(
        "set_null",
        "no foreign key of a tenant table is ON DELETE or ON UPDATE SET NULL or SET DEFAULT",
        "“SET NULL or SET DEFAULT is not supported in ON DELETE operation when distribution key is included”",
    ),
    Rule(
        "parents_first",
        "tenant tables refer to each other without a circle; a table may refer to itself",
        "a child distributed before its parent: “referenced table must be a distributed table or a reference table”",
    ),
    Rule("trigger", "there is no trigger on any table of ours", "“triggers are not supported on distributed tables”"),
    Rule(
        "restrictive_policy",
        "every policy is permissive",
        "a RESTRICTIVE policy becomes PERMISSIVE on the shards without a word, and isolation is open",
    ),
    Rule(
        "policy_subselect",
        "no policy contains a sub-select",
        "“Subqueries are not supported in policies on distributed tables”",
    ),
    Rule(
        "tenant_filter",
        "a statement of a tenant's role names the tenant for each tenant table, or joins it on tenant_id to one that does",
        "every shard is asked, or “the query contains a join that requires repartitioning”",
    ),
    Rule(
        "tenant_join",
        "a statement across tenants joins tenant tables on tenant_id",
        "“the query contains a join that requires repartitioning”",
    ),
    Rule(
        "local_join",
        "no statement joins a tenant table with a global table that stays local",
        "the local rows are copied to the shards for each statement",
    ),
    Rule(
        "global_outer",
        "no statement on global tables alone looks into a tenant table by a sub-query",
        "“correlated subqueries are not supported when the FROM clause contains a reference table”; an UPDATE or DELETE is "
        "refused as well (from the documentation of Citus, not measured)",
    ),
    Rule(
        "lock_without_tenant",
        "FOR UPDATE and its relatives come with the tenant, for every role",
        "“could not run distributed query with FOR UPDATE/SHARE”",
    ),
    Rule(
        "recursion_without_tenant",
        "a recursive query names the tenant in each of its parts",
        "recursive queries are “only supported when they contain a filter on the distribution column”",
    ),
    Rule("merge", "there is no MERGE", "“non-IMMUTABLE functions are not yet supported in MERGE”, under row-level security"),
    Rule("copy", "no role of a program uses COPY", "“COPY FROM not supported with row-level security”"),
    Rule(
        "insert_select",
        "rows are inserted as VALUES with ids of the program's own, not from a SELECT",
        "where the coordinator has to help: “COPY FROM not supported with row-level security”",
    ),
    Rule("moved_tenant", "tenant_id is never updated", "“modifying the partition value of rows is not allowed”"),
    Rule("set_config", "set_config is never called", "the value does not reach the nodes, and every table looks empty"),
    Rule(
        "session_set",
        "settings are SET LOCAL, never SET",
        "the value stays with the session: a pooler hands it to the next client, and the nodes never see it",
    ),
    Rule(
        "not_alone",
        "a statement is a message of its own, SET LOCAL above all",
        "the nodes get the whole message: “cannot execute a distributed query from a query on a shard”",
    ),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One breach of a rule. where: a table, or the beginning of a statement."""

    rule: str
    where: str
    message: str


class NotDistributable(ValueError):
    """The database or the schema is not ready for Citus; the message names each reason and its way out."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the plan has to know of the live database.

    owner: the role of the migrations.  done: tables that are distributed or reference tables already.
    functions: those of `_RUN_ANYWHERE`, with their arguments, as `regprocedure` writes them.
    """

    database: str
    owner: str
    roles: Roles
    done: frozenset[str] = frozenset()
    functions: tuple[str, ...] = ()


def schema_faults(classes: Classes) -> list[Fault]:
    """Return where the declared tables break a rule of the schema; empty when none does."""
    found = [_key_fault(line) for line in key_faults(classes) if "ON DELETE" not in line]
    tenant = _named(classes, TableClass.TENANT)
    for name, each in sorted(classes.items()):
        if name in tenant:
            found += _constraint_faults(each.table)
        else:
            found += [Fault("global_to_tenant", name, f"refers to {target}") for target in sorted(_targets(each) & tenant)]
    ordered = set(_parents_first(classes, tenant))
    found += [Fault("parents_first", name, "is part of a circle of references") for name in sorted(tenant - ordered)]
    return found


def _key_fault(line: str) -> Fault:
    table, _, message = line.partition(": ")
    return Fault("foreign_key" if message.startswith("foreign key") else "tenant_key", table, message)


def _constraint_faults(table: Table) -> Iterable[Fault]:
    for constraint in table.constraints:
        if isinstance(constraint, ExcludeConstraint) and TENANT_COLUMN not in constraint.columns:
            yield Fault("tenant_key", table.name, f"{constraint.name} excludes without the tenant")
    for key in table.foreign_key_constraints:
        actions = f"{key.ondelete or ''} {key.onupdate or ''}".upper()
        if "SET NULL" in actions or "SET DEFAULT" in actions:
            yield Fault("set_null", table.name, f"{key.name} is {actions.strip()}")


def plan(classes: Classes, cluster: Cluster) -> list[str]:
    """Return the statements that distribute the schema, in order; on a distributed one those that keep it so.

    Global tables that hang together with the tenants' by foreign keys become reference tables, tenant tables are
    distributed by tenant, parents first, all colocated. FORCE is taken away and ENABLE stays: with FORCE an online move
    of a shard never ends. The owner, used by migrations alone, then sees all rows.
    """
    tenant = _named(classes, TableClass.TENANT)
    references = [name for name in _parents_first(classes, linked(classes)) if name not in cluster.done]
    ordered = _parents_first(classes, tenant)
    # The table all others stand beside: on a distributed schema one that stands there already.
    first = next((name for name in ordered if name in cluster.done), ordered[0])
    statements = [*_settings(cluster), _SEQUENTIAL]
    statements += [f"ALTER TABLE {_quoted(name)} NO FORCE ROW LEVEL SECURITY" for name in ordered]
    statements += [f"SELECT create_reference_table('{name}')" for name in references]
    for name in ordered:
        if name not in cluster.done:
            beside = "none" if name == first else first
            statements.append(f"SELECT create_distributed_table('{name}', '{TENANT_COLUMN}', colocate_with => '{beside}')")
    for function in cluster.functions:
        statements.append(f"GRANT EXECUTE ON FUNCTION {function} TO {_quoted(cluster.owner)}")
        statements.append(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    return statements


def linked(classes: Classes) -> set[str]:
    """Return the global tables that hang together with the tenant tables by foreign keys; they become reference tables.

    The rest stays on the coordinator, the job queue too, which has triggers.
    """
    tenant = _named(classes, TableClass.TENANT)
    reached = {target for name in tenant for target in _targets(classes[name])} - tenant
    while True:
        around = {target for name in reached for target in _targets(classes[name])}
        around |= {name for name in classes if name not in tenant and _targets(classes[name]) & reached}
        if around <= reached:
            return reached
        reached |= around


def distribute(connection: Connection, classes: Classes, roles: Roles) -> list[str]:
    """Distribute the schema and return what was run; running it again changes nothing.

    connection: of the owner, on the coordinator.  The steps are one transaction.  Raises NotDistributable.
    """
    faults = [f"{fault.where}: {fault.message} ({fault.rule})" for fault in schema_faults(classes)]
    if faults:
        raise NotDistributable("the schema breaks the rules for Citus: " + "; ".join(faults))
    statements = plan(classes, _look(connection, roles))
    for statement in statements:
        connection.exec_driver_sql(statement)
    connection.commit()
    return statements


def is_citus(connection: Connection) -> bool:
    """Return whether this database has the extension."""
    return bool(connection.execute(text("SELECT 1 FROM pg_extension WHERE extname = 'citus'")).scalar())


def _look(connection: Connection, roles: Roles) -> Cluster:
    if not is_citus(connection):
        raise NotDistributable(
            "this database has no Citus; on every node set shared_preload_libraries = 'citus', start it anew and, "
            "as superuser, CREATE EXTENSION citus"
        )
    database, owner = connection.execute(text("SELECT current_database(), current_user")).one()
    done = connection.execute(text("SELECT logicalrelid::regclass::text FROM pg_dist_partition")).scalars().all()
    functions: Sequence[str] = ()
    if connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar():
        named = "SELECT 'pg_catalog.' || oid::regprocedure::text FROM pg_proc WHERE proname = ANY (:names) ORDER BY 1"
        functions = connection.execute(text(named), {"names": list(_RUN_ANYWHERE)}).scalars().all()
    return Cluster(database, owner, roles, frozenset(done), tuple(functions))


def _settings(cluster: Cluster) -> Iterable[str]:
    database = _quoted(cluster.database)
    # Else a foreign key to a global table would be refused as soon as one table is distributed.
    yield f"ALTER DATABASE {database} SET citus.enable_local_reference_table_foreign_keys TO 'off'"
    for role in cluster.roles.login():
        # SET LOCAL app.tenant_id has to reach the nodes, or every table looks empty.
        yield f"ALTER ROLE {_quoted(role)} IN DATABASE {database} SET citus.propagate_set_commands TO 'local'"
    for role in (cluster.owner, cluster.roles.identity, cluster.roles.operator):
        # Else a transaction that has read from all shards may not write to a global table any more.
        yield f"ALTER ROLE {_quoted(role)} IN DATABASE {database} SET citus.multi_shard_modify_mode TO 'sequential'"
    yield "SET citus.enable_local_reference_table_foreign_keys TO 'off'"


def _named(classes: Classes, table_class: TableClass) -> set[str]:
    return {name for name, found in classes.items() if found.table_class is table_class}


def _targets(found: Classification) -> set[str]:
    return {key.elements[0].target_fullname.rsplit(".", 1)[0] for key in found.table.foreign_key_constraints}


def _parents_first(classes: Classes, names: set[str]) -> list[str]:
    """Return tables in an order in which each comes after those it refers to; what is in a circle is left out."""
    ordered: list[str] = []
    while True:
        ready = [name for name in sorted(names - set(ordered)) if not (_targets(classes[name]) & names) - {name} - set(ordered)]
        if not ready:
            return ordered
        ordered += ready


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

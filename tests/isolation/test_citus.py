"""Distributing the schema: the plan against what it must be, and the judgement of what the shards say of themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, MetaData, NullPool, Table, Uuid, create_engine, text
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from cast import Command
from partywall import classify
from partywall.rls import Roles
from partywall.tables import Classification, TableClass
from partywall.verify import Finding, Report, TableVerdict
from rowhouse.citus import RULES, Cluster, NotDistributable, distribute, linked, plan, schema_faults
from rowhouse.citus_shards import Place, Shard, Spread, judge, of_cluster, read_spread, shards_sql
from rowhouse.core.db import Base
from rowhouse.migrate import Addresses
from rowhouse.registry import build_registry

build_registry()
CLASSES = classify(Base.registry)
ROLES = Roles()
CLUSTER = Cluster("crm", "crm_owner", ROLES)


def tenant_table(metadata: MetaData, name: str, *parents: str, **options: Any) -> Table:
    columns = [Column("tenant_id", Uuid, ForeignKey("tenant.id"), primary_key=True), Column("id", Uuid, primary_key=True)]
    columns += [Column(f"{parent}_id", Uuid) for parent in parents]
    keys = [
        ForeignKeyConstraint(
            ["tenant_id", f"{parent}_id"], [f"{parent}.tenant_id", f"{parent}.id"], name=f"fk_{parent}", **options
        )
        for parent in parents
    ]
    return Table(name, metadata, *columns, *keys)


def classes_of(metadata: MetaData, **others: TableClass) -> dict[str, Classification]:
    return {name: Classification(table, others.get(name, TableClass.TENANT)) for name, table in metadata.tables.items()}


def small() -> dict[str, Classification]:
    """Two tenant tables, the child first by name; three global ones that hang together, and one by itself."""
    metadata = MetaData()
    Table("tenant", metadata, Column("id", Uuid, primary_key=True))
    Table("person", metadata, Column("id", Uuid, primary_key=True))
    Table(
        "session",
        metadata,
        Column("id", Uuid, primary_key=True),
        Column("person_id", Uuid, ForeignKey("person.id")),
        Column("tenant_id", Uuid, ForeignKey("tenant.id")),
    )
    Table("attempt", metadata, Column("id", Uuid, primary_key=True))
    tenant_table(metadata, "house", "house")
    tenant_table(metadata, "door", "house")
    kind = TableClass.IDENTITY
    return classes_of(metadata, tenant=kind, person=kind, session=kind, attempt=kind)


GOLDEN = """
ALTER DATABASE "crm" SET citus.enable_local_reference_table_foreign_keys TO 'off'
ALTER ROLE "rowhouse_app" IN DATABASE "crm" SET citus.propagate_set_commands TO 'local'
ALTER ROLE "rowhouse_identity" IN DATABASE "crm" SET citus.propagate_set_commands TO 'local'
ALTER ROLE "rowhouse_operator" IN DATABASE "crm" SET citus.propagate_set_commands TO 'local'
ALTER ROLE "crm_owner" IN DATABASE "crm" SET citus.multi_shard_modify_mode TO 'sequential'
ALTER ROLE "rowhouse_identity" IN DATABASE "crm" SET citus.multi_shard_modify_mode TO 'sequential'
ALTER ROLE "rowhouse_operator" IN DATABASE "crm" SET citus.multi_shard_modify_mode TO 'sequential'
SET citus.enable_local_reference_table_foreign_keys TO 'off'
SET citus.multi_shard_modify_mode TO 'sequential'
ALTER TABLE "house" NO FORCE ROW LEVEL SECURITY
ALTER TABLE "door" NO FORCE ROW LEVEL SECURITY
SELECT create_reference_table('person')
SELECT create_reference_table('tenant')
SELECT create_reference_table('session')
SELECT create_distributed_table('house', 'tenant_id', colocate_with => 'none')
SELECT create_distributed_table('door', 'tenant_id', colocate_with => 'house')
""".strip().splitlines()


# --- the plan -----------------------------------------------------------------------------------------------------------


def test_the_guide_lists_the_rules_as_they_are() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs/guide/scale.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in guide.partition("### The rules")[2].splitlines() if line.startswith("|")]
    assert lines[2:] == [[rule.name, rule.holds, rule.otherwise] for rule in RULES]


def test_the_plan_of_a_small_schema_is_this_one() -> None:
    assert plan(small(), CLUSTER) == GOLDEN


def test_what_is_distributed_already_is_left_and_what_is_new_joins_it() -> None:
    done = replace(CLUSTER, done=frozenset({"tenant", "person", "session", "house"}))
    created = [statement for statement in plan(small(), done) if "create_" in statement]
    assert created == ["SELECT create_distributed_table('door', 'tenant_id', colocate_with => 'house')"]
    everything = replace(CLUSTER, done=frozenset(small()))
    assert [statement for statement in plan(small(), everything) if "create_" in statement] == []
    assert GOLDEN[9] in plan(small(), everything)


def test_a_new_table_that_comes_first_by_name_joins_the_others() -> None:
    classes = small()
    tenant_table(classes["house"].table.metadata, "alley")
    done = replace(CLUSTER, done=frozenset({"tenant", "person", "session", "house", "door"}))
    classes["alley"] = Classification(classes["house"].table.metadata.tables["alley"], TableClass.TENANT)
    assert plan(classes, done)[-1] == "SELECT create_distributed_table('alley', 'tenant_id', colocate_with => 'house')"


def test_functions_that_reach_other_nodes_are_taken_from_everybody_but_the_owner() -> None:
    function = "pg_catalog.run_command_on_workers(text,boolean)"
    assert plan(small(), replace(CLUSTER, functions=(function,)))[-2:] == [
        f'GRANT EXECUTE ON FUNCTION {function} TO "crm_owner"',
        f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC",
    ]


def test_global_tables_without_a_link_stay_local() -> None:
    assert linked(small()) == {"tenant", "person", "session"}
    assert "login_attempt" not in linked(CLASSES)
    assert {"tenant", "app_user", "user_session"} <= linked(CLASSES)


def test_the_whole_schema_is_planned_parents_first() -> None:
    statements = plan(CLASSES, CLUSTER)
    order = [statement.split("'")[1] for statement in statements if statement.startswith("SELECT create_")]
    assert sorted(order) == sorted({*linked(CLASSES), *_tenant_tables()})
    for name in order:
        for key in CLASSES[name].table.foreign_key_constraints:
            target = key.elements[0].target_fullname.rsplit(".", 1)[0]
            assert target == name or order.index(target) < order.index(name)
    assert not any("procrastinate" in statement or "alembic" in statement for statement in statements)


def _tenant_tables() -> set[str]:
    return {name for name, found in CLASSES.items() if found.table_class is TableClass.TENANT}


def test_the_plan_is_printed_on_any_server(command: Command) -> None:
    printed = command("migrate", "--citus", "--dry-run").stdout.replace("\n", " ")
    assert "create_distributed_table('account', 'tenant_id'" in printed
    assert 'ALTER TABLE "account" NO FORCE ROW LEVEL SECURITY;' in printed


def test_a_server_without_citus_is_refused_with_the_way_out(command: Command, addresses: Addresses) -> None:
    failed = command("migrate", "--citus", fails=NotDistributable)
    assert "CREATE EXTENSION citus" in str(failed.exception)
    command("migrate", "--dry-run", fails=ValueError)
    with create_engine(addresses.owner, poolclass=NullPool).connect() as connection:
        forced = "SELECT bool_and(relforcerowsecurity) FROM pg_class WHERE relname = ANY (:names)"
        assert connection.execute(text(forced), {"names": sorted(_tenant_tables())}).scalar_one() is True


# --- the schema's rules -------------------------------------------------------------------------------------------------


def test_a_circle_of_references_is_named() -> None:
    metadata = MetaData()
    Table("tenant", metadata, Column("id", Uuid, primary_key=True))
    tenant_table(metadata, "house", "door")
    tenant_table(metadata, "door", "house")
    classes = classes_of(metadata, tenant=TableClass.IDENTITY)
    assert [(fault.rule, fault.where) for fault in schema_faults(classes)] == [
        ("parents_first", "door"),
        ("parents_first", "house"),
    ]
    with create_engine("postgresql+psycopg://", poolclass=NullPool) and pytest.raises(NotDistributable, match="circle"):
        distribute(None, classes, ROLES)  # type: ignore[arg-type]  # refused before the database is asked


def test_the_faults_of_a_schema_are_named() -> None:
    metadata = MetaData()
    Table("tenant", metadata, Column("id", Uuid, primary_key=True), Column("house_id", Uuid, ForeignKey("house.id")))
    house = tenant_table(metadata, "house")
    house.append_constraint(ExcludeConstraint((house.c.id, "="), name="ex_house"))
    tenant_table(metadata, "door", "house", ondelete="SET NULL")
    window = Table(
        "window", metadata, Column("tenant_id", Uuid, primary_key=True), Column("house_id", Uuid, ForeignKey("house.id"))
    )
    assert window.name == "window"
    found = {(fault.rule, fault.where) for fault in schema_faults(classes_of(metadata, tenant=TableClass.IDENTITY))}
    assert found == {("global_to_tenant", "tenant"), ("tenant_key", "house"), ("set_null", "door"), ("foreign_key", "window")}


# --- the shards ---------------------------------------------------------------------------------------------------------


def facts(*, enabled: bool = True, permissive: bool = True, predicate: str = "(tenant_id = x)") -> str:
    policies = [["partywall_operator", "*", True, ["rowhouse_operator"], "true", "true"]]
    policies.append(["partywall_tenant", "*", permissive, ["public"], predicate, predicate])
    return json.dumps({"enabled": enabled, "forced": False, "policies": policies})


def spread_of(**shards: str) -> Spread:
    """Return a healthy cluster with two tables of two shards each; a shard's answer may be replaced: door_1="…"."""
    places = {name: Place(name, "h", 7, "tenant_id") for name in ("house", "door")}
    places |= {name: Place(name, "n", 3, None) for name in ("tenant", "person", "session")}
    found = tuple(
        Shard(name, 102000 + number, True, shards.get(f"{name}_{number}", facts()))
        for name in ("house", "door")
        for number in (1, 2)
    )
    return Spread(places, {"house": facts(), "door": facts()}, found, frozenset(ROLES.login()))


def found_in(spread: Spread) -> list[tuple[str, str]]:
    return [(finding.table, finding.rule) for finding in judge(spread, small(), ROLES)]


def test_a_healthy_cluster_has_no_findings() -> None:
    assert found_in(spread_of()) == []


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (facts(enabled=False), "shard_row_security"),
        (facts(permissive=False), "shard_policy"),
        (facts(predicate="true"), "shard_policy"),
        ('{"enabled": true, "forced": false, "policies": null}', "shard_policy"),
        ("", "shard_row_security"),
    ],
)
def test_a_shard_unlike_its_table_is_named(answer: str, rule: str) -> None:
    assert ("door", rule) in found_in(spread_of(door_2=answer))
    assert {table for table, _ in found_in(spread_of(door_2=answer))} == {"door"}


def test_a_restrictive_policy_is_named_even_where_the_table_has_it_too() -> None:
    spread = spread_of(door_1=facts(permissive=False), door_2=facts(permissive=False))
    spread = replace(spread, facts={**spread.facts, "door": facts(permissive=False)})
    assert found_in(spread) == [("door", "shard_policy")] * 2


def test_a_node_that_cannot_be_asked_is_named() -> None:
    spread = spread_of()
    broken = replace(spread.shards[0], success=False, result="connection refused")
    found = judge(replace(spread, shards=(broken, *spread.shards[1:])), small(), ROLES)
    assert [(finding.table, finding.rule) for finding in found] == [("house", "shard_unasked")]
    assert "connection refused" in found[0].message


def test_a_table_of_which_no_shard_answers_is_named() -> None:
    spread = spread_of()
    assert found_in(replace(spread, shards=spread.shards[:2])) == [("door", "shard_missing")]


@pytest.mark.parametrize(
    ("places", "named"),
    [
        ({"door": None}, {"door"}),
        ({"door": Place("door", "h", 7, "id")}, {"door"}),
        ({"door": Place("door", "n", 7, None)}, {"door"}),
        ({"door": Place("door", "h", 8, "tenant_id")}, {"door", "house"}),
        ({"person": None}, {"person"}),
        ({"tenant": Place("tenant", "h", 7, "id")}, {"tenant"}),
    ],
)
def test_a_table_that_is_not_where_it_should_be_is_named(places: Mapping[str, Place | None], named: set[str]) -> None:
    spread = spread_of()
    changed = {name: place for name, place in {**spread.places, **places}.items() if place is not None}
    found = found_in(replace(spread, places=changed))
    assert {table for table, rule in found if rule == "shard_place"} == named


def test_a_role_whose_tenant_does_not_travel_is_named() -> None:
    found = judge(replace(spread_of(), propagating=frozenset({"rowhouse_app", "rowhouse_operator"})), small(), ROLES)
    assert [finding.rule for finding in found] == ["shard_setting"]
    assert "rowhouse_identity" in found[0].message


def test_the_missing_force_of_a_distributed_table_is_no_finding_and_everything_else_stays_one() -> None:
    findings = [Finding("house", "row_security", "…"), Finding("door", "policy", "…"), Finding("attic", "row_security", "…")]
    tables = [TableVerdict(name, "tenant", "", False) for name in ("house", "door", "attic")]
    found = of_cluster(Report(tables, findings), spread_of(), small(), ROLES)
    assert found.findings == findings[1:]
    assert [table.ok for table in found.tables] == [True, False, False]
    closed = replace(spread_of(), facts={"house": facts(enabled=False), "door": facts()})
    assert findings[0] in of_cluster(Report(tables, findings), closed, small(), ROLES).findings


def test_the_question_to_the_shards_is_one_a_server_answers(addresses: Addresses) -> None:
    """What Citus does with the command, writing each shard's name for %s, is done here with the tables themselves."""
    with create_engine(addresses.owner, poolclass=NullPool).begin() as connection:
        # A stand-in for the extension's catalogue and function, in this transaction only.
        for statement in STAND_IN:
            connection.exec_driver_sql(statement)
        spread = read_spread(connection, CLASSES)
        connection.rollback()
    assert set(spread.facts) == _tenant_tables()
    assert {shard.table for shard in spread.shards} == _tenant_tables()
    findings = judge(spread, CLASSES, addresses.roles)
    # Here the tables stand in for their own shards, so only the roles' setting is missing.
    assert {finding.rule for finding in findings} == {"shard_setting"}
    assert '"partywall_tenant", "*", true, ["public"]' in spread.facts["account"].replace(" : ", ": ")
    assert "%%" in shards_sql("account")


STAND_IN = (
    "CREATE FUNCTION column_to_column_name(regclass, text) RETURNS text LANGUAGE sql AS 'SELECT $2'",
    "CREATE TABLE pg_dist_partition AS SELECT oid::regclass AS logicalrelid, 'h'::\"char\" AS partmethod, 1 AS colocationid,"
    " 'tenant_id' AS partkey FROM pg_class c WHERE EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)",
    "INSERT INTO pg_dist_partition SELECT oid, 'n', 2, NULL FROM pg_class"
    f" WHERE relkind = 'r' AND relname IN ({', '.join(repr(name) for name in sorted(linked(CLASSES)))})",
    "CREATE FUNCTION run_command_on_shards(name regclass, command text) RETURNS TABLE (shardid bigint, success bool, result text)"
    " LANGUAGE plpgsql AS $$ BEGIN shardid := 102008; success := true;"
    " EXECUTE format(command, name) INTO result; RETURN NEXT; END $$",
)

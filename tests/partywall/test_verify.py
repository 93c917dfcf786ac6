"""verify: green on what was declared, red by name for each way a wall can be taken down."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from engines import Engines
from library import CLASSES, ROLES, TENANT_A, TENANT_B
from sqlalchemy import Connection

from partywall.rls import PREDICATE, TENANT_POLICY
from partywall.verify import Finding, Report, verify

TENANTS = (TENANT_A.id, TENANT_B.id)
OPEN = "USING (true) WITH CHECK (true)"


@pytest.fixture
def connection(engines: Engines) -> Iterator[Connection]:
    """A superuser's transaction, in which a test does its damage; rolled back."""
    with engines.superuser.connect() as connection:
        yield connection


def found(connection: Connection, **options: object) -> set[tuple[str, str]]:
    return rules(verify(connection, CLASSES, ROLES, **options))  # type: ignore[arg-type]


def rules(report: Report) -> set[tuple[str, str]]:
    return {(finding.table, finding.rule) for finding in report.findings}


def probed(connection: Connection) -> Report:
    """Probe inside the damaged transaction: the superuser becomes the app's role until the rollback."""
    connection.exec_driver_sql(f"SET LOCAL ROLE {ROLES.app}")
    return verify(connection, CLASSES, ROLES, probe=connection, tenants=TENANTS)


def test_the_declared_schema_is_green(engines: Engines, connection: Connection) -> None:
    with engines.app.connect() as probe:
        report = verify(connection, CLASSES, ROLES, probe=probe, tenants=TENANTS)

    assert report.findings == []
    assert {table.name for table in report.tables} == set(CLASSES)
    assert {table.probe for table in report.tables if table.table_class == "tenant"} == {"proved"}


def test_the_operator_may_verify_without_any_right_to_create(engines: Engines) -> None:
    with engines.operator.connect() as connection:
        assert found(connection) == set()


def test_a_report_is_json_and_carries_the_reasons(connection: Connection) -> None:
    report = json.loads(json.dumps(verify(connection, CLASSES, ROLES).as_dict()))

    assert report["ok"] is True
    assert {table["name"]: table["reason"] for table in report["tables"]}["invoice"] == "the platform's own books"


def test_nothing_is_changed_by_verifying(engines: Engines, connection: Connection) -> None:
    before = connection.exec_driver_sql("SELECT string_agg(t::text, ',' ORDER BY t::text) FROM book t").scalar()
    with engines.app.connect() as probe:
        verify(connection, CLASSES, ROLES, probe=probe, tenants=TENANTS)
        setting = probe.exec_driver_sql("SELECT current_setting('app.tenant_id', true)").scalar()
        probe.commit()

    after = connection.exec_driver_sql("SELECT string_agg(t::text, ',' ORDER BY t::text) FROM book t").scalar()
    assert (after, setting or "") == (before, "")


DAMAGE = [
    ("book", "policy", f"DROP POLICY {TENANT_POLICY} ON book"),
    ("book", "policy", f"ALTER POLICY {TENANT_POLICY} ON book {OPEN}"),
    ("book", "policy", f"ALTER POLICY {TENANT_POLICY} ON book USING (true)"),
    ("book", "policy", f"ALTER POLICY {TENANT_POLICY} ON book WITH CHECK (true)"),
    ("book", "policy", f"ALTER POLICY {TENANT_POLICY} ON book TO {ROLES.app}"),
    ("book", "policy", f"ALTER POLICY {TENANT_POLICY} ON book USING ({PREDICATE.replace('app.', 'api.')})"),
    ("book", "policy", f"ALTER POLICY partywall_operator ON book TO {ROLES.app}"),
    ("book", "policy", "CREATE POLICY extra ON book USING (true)"),
    ("book", "policy", "CREATE POLICY extra ON book AS RESTRICTIVE USING (true)"),
    (
        "book",
        "policy",
        f"DROP POLICY {TENANT_POLICY} ON book; CREATE POLICY {TENANT_POLICY} ON book FOR SELECT USING ({PREDICATE})",
    ),
    (
        "book",
        "policy",
        # A look-alike in a schema that is searched first is written without its schema there, and with it here.
        "CREATE FUNCTION public.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT ''::text $$;"
        " SET LOCAL search_path = public, pg_catalog;"
        f" ALTER POLICY {TENANT_POLICY} ON book USING ({PREDICATE}) WITH CHECK ({PREDICATE})",
    ),
    ("language", "policy", "CREATE POLICY extra ON language USING (true)"),
    ("book", "row_security", "ALTER TABLE book DISABLE ROW LEVEL SECURITY"),
    ("book", "row_security", "ALTER TABLE book NO FORCE ROW LEVEL SECURITY"),
    (
        "book",
        "foreign_key",
        "ALTER TABLE shelf ADD UNIQUE (id); ALTER TABLE book ADD FOREIGN KEY (shelf_id) REFERENCES shelf (id)",
    ),
    (
        "book",
        "foreign_key",
        "ALTER TABLE book ADD FOREIGN KEY (shelf_id, id) REFERENCES shelf (tenant_id, id) NOT VALID",
    ),
    (
        "book",
        "foreign_key_not_valid",
        "ALTER TABLE book ADD FOREIGN KEY (tenant_id, id) REFERENCES shelf (tenant_id, id) NOT VALID",
    ),
    (
        "book",
        "foreign_key_action",
        "ALTER TABLE book DROP CONSTRAINT book_tenant_id_shelf_id_fkey;"
        " ALTER TABLE book ADD FOREIGN KEY (tenant_id, shelf_id) REFERENCES shelf (tenant_id, id) ON DELETE SET NULL (shelf_id)",
    ),
    ("book", "unique_key", "ALTER TABLE book ADD UNIQUE (title)"),
    ("book", "unique_key", "CREATE UNIQUE INDEX loose ON book (lower(title))"),
    ("book", "unique_key", "CREATE UNIQUE INDEX loose ON book (title, tenant_id)"),
    (
        "mark",
        "primary_key",
        "ALTER TABLE marking DROP CONSTRAINT marking_tenant_id_mark_id_fkey;"
        " ALTER TABLE mark DROP CONSTRAINT mark_pkey, ADD PRIMARY KEY (id, tenant_id)",
    ),
    ("loan", "primary_key", "ALTER TABLE loan DROP CONSTRAINT loan_pkey"),
    ("loan", "tenant_column", "ALTER TABLE loan DROP CONSTRAINT loan_pkey, ALTER tenant_id DROP NOT NULL"),
    (
        "book",
        "trigger",
        "CREATE TRIGGER extra BEFORE UPDATE ON book FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ),
    ("book", "trigger", "CREATE RULE extra AS ON DELETE TO book DO ALSO NOTHING"),
    ("book", "privilege", "GRANT SELECT ON book TO PUBLIC"),
    ("book", "privilege", f"GRANT UPDATE ON book TO {ROLES.app}"),
    ("book", "privilege", f"GRANT UPDATE (tenant_id) ON book TO {ROLES.app}"),
    ("book", "privilege", f"GRANT UPDATE (id) ON book TO {ROLES.app}"),
    ("book", "privilege", f"GRANT TRUNCATE ON book TO {ROLES.app}"),
    ("book", "privilege", f"GRANT REFERENCES ON book TO {ROLES.app}"),
    ("book", "privilege", f"GRANT TRIGGER ON book TO {ROLES.operator}"),
    ("book", "privilege", f"GRANT SELECT ON book TO {ROLES.identity}"),
    ("book", "privilege", f"REVOKE DELETE ON book FROM {ROLES.app}"),
    ("book", "privilege", "CREATE ROLE pw_reporter; GRANT SELECT ON book TO pw_reporter"),
    ("book", "privilege", f"REVOKE UPDATE (pages) ON book FROM {ROLES.app}"),
    ("loan", "privilege", f"GRANT DELETE ON loan TO {ROLES.app}"),
    ("language", "privilege", f"GRANT INSERT ON language TO {ROLES.app}"),
    ("reader", "privilege", f"GRANT SELECT ON reader TO {ROLES.app}"),
    ("invoice", "privilege", f"GRANT SELECT (amount_minor) ON invoice TO {ROLES.identity}"),
    ("stray", "undeclared", "CREATE TABLE stray (id int)"),
    ("stray", "undeclared", "CREATE VIEW stray WITH (security_invoker = true) AS SELECT title FROM book"),
    ("stray", "undeclared", "CREATE MATERIALIZED VIEW stray AS SELECT title FROM book"),
    ("stray", "undeclared", "CREATE TABLE stray () INHERITS (book)"),
    ("side.stray", "undeclared", "CREATE SCHEMA side; CREATE TABLE side.stray (id int)"),
    ("stray", "view_runs_as_owner", "CREATE VIEW stray AS SELECT title FROM book"),
    ("stray", "privilege", f"CREATE SEQUENCE stray; GRANT USAGE ON SEQUENCE stray TO {ROLES.app}"),
    ("invoice", "missing", "DROP TABLE invoice"),
    (
        "",
        "security_definer",
        "CREATE FUNCTION peek() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS 'SELECT count(*) FROM book'",
    ),
    ("", "set_config", "GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO PUBLIC"),
    ("", "role_owns", f"CREATE SCHEMA mine AUTHORIZATION {ROLES.app}"),
    ("", "role_member", f"CREATE ROLE pw_loose BYPASSRLS; GRANT pw_loose TO {ROLES.app}"),
    ("", "role_creates", f"GRANT CREATE ON SCHEMA public TO {ROLES.app}"),
    ("", "role_creates", f"DO $$ BEGIN EXECUTE format('GRANT TEMP ON DATABASE %%I TO {ROLES.app}', current_database()); END $$"),
]


@pytest.mark.parametrize(("table", "rule", "damage"), DAMAGE, ids=[f"{rule}: {sql[:60]}" for _, rule, sql in DAMAGE])
def test_damage_turns_its_table_red_by_name(connection: Connection, table: str, rule: str, damage: str) -> None:
    connection.exec_driver_sql(damage)

    assert (table, rule) in found(connection)


@pytest.mark.parametrize("attribute", ["SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION"])
def test_a_role_of_power_is_red(connection: Connection, attribute: str) -> None:
    connection.exec_driver_sql(f"CREATE ROLE pw_strong {attribute}")

    report = verify(connection, CLASSES, replace(ROLES, operator="pw_strong"))

    assert [finding.message.split()[1] for finding in report.findings if finding.rule == "role"] == ["pw_strong"]


def test_a_missing_role_is_red(connection: Connection) -> None:
    report = verify(connection, CLASSES, replace(ROLES, identity="pw_nobody"))

    assert Finding("", "role", "role pw_nobody does not exist") in report.findings


def test_an_exempt_table_is_green_and_shows_its_reason(connection: Connection) -> None:
    connection.exec_driver_sql("CREATE TABLE queue_jobs (id int)")

    report = verify(connection, CLASSES, ROLES, exempt={"queue_*": "the queue's own tables"})

    assert report.ok
    assert [table.reason for table in report.tables if table.name == "queue_jobs"] == ["the queue's own tables"]


def test_an_exempt_table_in_the_apps_reach_is_red(connection: Connection) -> None:
    connection.exec_driver_sql(f"CREATE TABLE queue_jobs (id int); GRANT SELECT ON queue_jobs TO {ROLES.app}")

    assert found(connection, exempt={"queue_*": "the queue's own tables"}) == {("queue_jobs", "privilege")}


def test_an_exempt_view_that_reads_as_its_caller_may_be_granted(connection: Connection) -> None:
    connection.exec_driver_sql(
        f"CREATE VIEW titles WITH (security_invoker = true) AS SELECT title FROM book; GRANT SELECT ON titles TO {ROLES.app}"
    )

    assert found(connection, exempt={"titles": "a list for the app"}) == set()


def test_set_config_may_be_exempt_where_it_is_not_ours_to_revoke(connection: Connection) -> None:
    connection.exec_driver_sql("GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO PUBLIC")

    assert found(connection, exempt={"set_config": "a managed server"}) == set()


def test_the_probe_sees_a_dropped_policy(connection: Connection) -> None:
    connection.exec_driver_sql(f"ALTER POLICY {TENANT_POLICY} ON book {OPEN}")

    report = probed(connection)

    assert {rule for table, rule in rules(report) if table == "book"} == {
        "policy",
        "probe_foreign_row",
        "probe_insert",
        "probe_no_tenant",
    }
    assert {table.name: table.probe for table in report.tables}["book"] == "failed"


def test_the_probe_sees_that_writes_are_not_checked(connection: Connection) -> None:
    connection.exec_driver_sql(f"ALTER POLICY {TENANT_POLICY} ON book WITH CHECK (true)")

    assert rules(probed(connection)) == {("book", "policy"), ("book", "probe_insert")}


def test_the_probe_does_not_take_a_missing_privilege_for_a_policy(connection: Connection) -> None:
    connection.exec_driver_sql(f"REVOKE INSERT ON book FROM {ROLES.app}")

    assert rules(probed(connection)) == {("book", "privilege"), ("book", "probe_insert")}


def test_the_probe_sees_that_nothing_can_be_read(connection: Connection) -> None:
    connection.exec_driver_sql(f"REVOKE SELECT ON book FROM {ROLES.app}")

    assert rules(probed(connection)) == {("book", "privilege"), ("book", "probe_error")}


def test_the_probe_sees_a_policy_that_refuses_everything(connection: Connection) -> None:
    connection.exec_driver_sql(f"ALTER POLICY {TENANT_POLICY} ON book USING (false) WITH CHECK (false)")

    assert ("book", "probe_insert") in rules(probed(connection))


def test_a_table_without_rows_of_the_tenants_is_empty_not_proved(engines: Engines, connection: Connection) -> None:
    with engines.app.connect() as probe:
        report = verify(connection, CLASSES, ROLES, probe=probe)

    assert report.ok
    assert {table.probe for table in report.tables if table.table_class == "tenant"} == {"empty"}


@pytest.mark.parametrize("role", ["owner", "superuser", "operator"])
def test_a_probe_as_another_role_than_the_apps_is_red(engines: Engines, connection: Connection, role: str) -> None:
    with getattr(engines, role).connect() as probe:
        report = verify(connection, CLASSES, ROLES, probe=probe, tenants=TENANTS)

    assert rules(report) == {("", "probe_role")}
    assert {table.probe for table in report.tables} == {"not probed"}

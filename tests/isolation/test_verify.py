"""`rowhouse verify` on this program's own schema: green as migrated, red by name for each way of breaking it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import NullPool, create_engine

from cast import TenantMaker
from partywall import UnsafeRole
from rowhouse.commands.isolation import check_isolation
from rowhouse.core.db import open_database
from rowhouse.migrate import Addresses, find_addresses, migrate
from rowhouse.settings import Settings
from server import database_name, fresh_database, test_server


@pytest.fixture(scope="module")
def own(settings: Settings) -> Iterator[Addresses]:
    """A migrated database of this file's own, to be broken."""
    url = fresh_database(test_server(), database_name("verify"))
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    found = Settings(DATABASE_URL=text, secret_key=settings.secret.decode())
    addresses = find_addresses(found)
    migrate(found, addresses)
    return addresses


def run(addresses: Addresses, *statements: str) -> None:
    with create_engine(addresses.owner, poolclass=NullPool).begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("{database}", str(addresses.owner.database)))


def test_a_migrated_database_holds(own: Addresses) -> None:
    found = check_isolation(own)
    assert found.findings == []
    assert found.ok
    by_name = {line.table: line for line in found.tables}
    assert by_name["account"].table_class == "tenant"
    assert by_name["account"].keys == "(tenant_id, id)"
    assert by_name["account"].policy == "tenant, operator"
    assert by_name["app_user"].table_class == "identity"
    assert len(by_name) > 25


async def test_rows_of_two_tenants_make_the_probe_a_proof(addresses: Addresses, make_tenant: TenantMaker) -> None:
    for _ in range(2):
        await make_tenant("probed")
    found = check_isolation(addresses)
    assert next(line.probe for line in found.tables if line.table == "membership").startswith("proved")


@pytest.mark.parametrize(
    ("break_it", "mend_it", "table"),
    [
        ("DROP POLICY partywall_tenant ON account", "", "account"),
        ("ALTER TABLE pipeline DISABLE ROW LEVEL SECURITY", "ALTER TABLE pipeline ENABLE ROW LEVEL SECURITY", "pipeline"),
        ("ALTER TABLE pipeline NO FORCE ROW LEVEL SECURITY", "ALTER TABLE pipeline FORCE ROW LEVEL SECURITY", "pipeline"),
        ("CREATE POLICY extra ON job USING (true)", "DROP POLICY extra ON job", "job"),
        ("CREATE UNIQUE INDEX lonely ON crm_contact (email)", "DROP INDEX lonely", "crm_contact"),
        ("GRANT UPDATE (tenant_id) ON job TO rowhouse_app", "REVOKE UPDATE (tenant_id) ON job FROM rowhouse_app", "job"),
        ("GRANT SELECT ON app_user TO rowhouse_app", "REVOKE SELECT ON app_user FROM rowhouse_app", "app_user"),
        ("ALTER DATABASE {database} SET app.tenant_id = 'x'", "ALTER DATABASE {database} RESET app.tenant_id", ""),
        ("CREATE TABLE stray (id int)", "DROP TABLE stray", "stray"),
    ],
)
def test_each_break_is_named(own: Addresses, break_it: str, mend_it: str, table: str) -> None:
    if not mend_it:
        mend_it = _policy_of(table)
    run(own, break_it)
    try:
        found = check_isolation(own)
        assert not found.ok
        assert table in {finding.table for finding in found.findings}
    finally:
        run(own, mend_it)
    assert check_isolation(own).ok


def _policy_of(table: str) -> str:
    predicate = "tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid"
    return f"CREATE POLICY partywall_tenant ON {table} FOR ALL TO PUBLIC USING ({predicate}) WITH CHECK ({predicate})"


def test_a_single_column_foreign_key_is_named(own: Addresses) -> None:
    run(
        own,
        "CREATE UNIQUE INDEX lone_id ON account (id)",
        "ALTER TABLE crm_contact ADD CONSTRAINT lone FOREIGN KEY (account_id) REFERENCES account (id)",
    )
    try:
        named = {(finding.table, finding.rule) for finding in check_isolation(own).findings}
        assert ("crm_contact", "foreign_key") in named
        assert ("account", "unique_key") in named
    finally:
        run(own, "ALTER TABLE crm_contact DROP CONSTRAINT lone", "DROP INDEX lone_id")


async def test_the_program_refuses_to_start_as_the_owner(own: Addresses) -> None:
    owner = own.owner.render_as_string(hide_password=False)
    database = open_database({**own.urls, "app": owner}, own.roles, pool_size=1)
    try:
        with pytest.raises(UnsafeRole):
            await database.check_roles()
    finally:
        await database.close()


def test_connecting_as_owner_turns_the_report_red(own: Addresses) -> None:
    owner = own.owner.render_as_string(hide_password=False)
    found = check_isolation(Addresses(own.admin, own.owner, {**own.urls, "app": owner}, own.roles))
    assert "probe_role" in {finding.rule for finding in found.findings}

"""The database's own line: roles, policies, the tenant setting, and the Alembic operation."""

import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from engines import Engines, fresh_engines
from library import CLASSES, OWNER, ROLES, STOCK_A, STOCK_B, TENANT_A, TENANT_B, Book, Shelf
from sqlalchemy import Column, Connection, MetaData, String, Table, Uuid, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from partywall import TableClass, UnsafeRole
from partywall.rls import (
    PREDICATE,
    TENANT_POLICY,
    Roles,
    assert_role,
    create_roles,
    expected_policies,
    expected_privileges,
    protect_sql,
    set_tenant_sql,
)
from partywall.tables import Classification
from partywall.verify import verify

TITLES = "SELECT title FROM book ORDER BY title"


def titles(connection: Connection) -> list[str]:
    return list(connection.exec_driver_sql(TITLES).scalars())


def sqlstate(error: pytest.ExceptionInfo[DBAPIError]) -> str:
    return str(error.value.orig.sqlstate)  # type: ignore[union-attr]


@pytest.fixture
def app(engines: Engines) -> Iterator[Connection]:
    with engines.app.connect() as connection:
        yield connection


@pytest.fixture
def superuser(engines: Engines) -> Iterator[Connection]:
    with engines.superuser.connect() as connection:
        yield connection


# The setting


def test_a_bound_transaction_sees_its_tenants_rows_alone(app: Connection) -> None:
    app.exec_driver_sql(set_tenant_sql(TENANT_A.id))

    assert titles(app) == ["a atlas", "a book 1", "a book 2"]


def test_a_transaction_without_a_tenant_sees_nothing(app: Connection) -> None:
    assert titles(app) == []


def test_the_tenant_ends_with_its_transaction(app: Connection) -> None:
    app.exec_driver_sql(set_tenant_sql(TENANT_A.id))
    bound = titles(app)
    app.commit()

    assert len(bound) == 3
    # The setting is then empty rather than absent, which must mean no rows and no error.
    assert app.exec_driver_sql("SELECT current_setting('app.tenant_id', true)").scalar() == ""
    assert titles(app) == []


def test_a_rollback_to_a_savepoint_restores_the_tenant_before_it(app: Connection) -> None:
    app.exec_driver_sql(set_tenant_sql(TENANT_A.id))
    savepoint = app.begin_nested()
    app.exec_driver_sql(set_tenant_sql(TENANT_B.id))
    within = titles(app)
    savepoint.rollback()

    assert (within[0], titles(app)[0]) == ("b atlas", "a atlas")


def test_a_setting_that_is_no_uuid_is_an_error_and_no_rows(app: Connection) -> None:
    app.exec_driver_sql("SET LOCAL app.tenant_id = 'everyone'")

    with pytest.raises(DBAPIError) as error:
        titles(app)
    assert sqlstate(error) == "22P02"


@pytest.mark.parametrize("value", ["' OR '1", str(TENANT_A.id), None, 7])
def test_only_a_uuid_is_written_into_the_setting(value: Any) -> None:
    with pytest.raises(TypeError):
        set_tenant_sql(value)


def test_an_injected_select_cannot_switch_the_tenant(app: Connection) -> None:
    app.exec_driver_sql(set_tenant_sql(TENANT_A.id))

    with pytest.raises(DBAPIError) as error:
        app.execute(select(func.set_config("app.tenant_id", str(TENANT_B.id), True)))
    assert sqlstate(error) == "42501"


def test_an_injected_update_of_the_settings_view_cannot_switch_the_tenant(app: Connection) -> None:
    app.exec_driver_sql(set_tenant_sql(TENANT_A.id))

    with pytest.raises(DBAPIError) as error:
        app.exec_driver_sql("UPDATE pg_settings SET setting = 'x' WHERE name = 'application_name'")
    assert sqlstate(error) == "42501"


# What each role may do


def test_the_owner_is_bound_by_the_policies_too(engines: Engines) -> None:
    with engines.owner.connect() as owner:
        without = titles(owner)
        owner.exec_driver_sql(set_tenant_sql(TENANT_B.id))

        assert (without, titles(owner)) == ([], ["b atlas", "b book 1", "b book 2"])


def test_the_operator_sees_every_tenant(engines: Engines) -> None:
    with engines.operator.connect() as operator:
        assert len(titles(operator)) == 6


def test_the_identity_role_sees_only_what_it_was_given(engines: Engines) -> None:
    with engines.identity.connect() as identity:
        assert identity.exec_driver_sql("SELECT count(*) FROM loan").scalar() == 2
        with pytest.raises(DBAPIError) as error:
            titles(identity)
        assert sqlstate(error) == "42501"


DENIED = [
    f"INSERT INTO book (tenant_id, id, title, pages, kind) VALUES ('{TENANT_B.id}', gen_random_uuid(), 't', 1, 'book')",
    f"UPDATE book SET tenant_id = '{TENANT_B.id}'",
    "UPDATE book SET id = gen_random_uuid()",
    "UPDATE loan SET reader = 'nobody'",
    "DELETE FROM loan",
    "TRUNCATE loan",
    "INSERT INTO language VALUES ('xx', 'x')",
    "SELECT * FROM reader",
    "SELECT * FROM invoice",
    "CREATE TABLE loot (id int)",
    "CREATE TEMPORARY TABLE book (id int)",
    "ALTER TABLE book DISABLE ROW LEVEL SECURITY",
    f"DROP POLICY {TENANT_POLICY} ON book",
    f"SET ROLE {ROLES.operator}",
    f"SET SESSION AUTHORIZATION {ROLES.operator}",
    "COPY book TO PROGRAM 'cat'",
]


@pytest.mark.parametrize("statement", DENIED)
def test_the_app_is_denied(app: Connection, statement: str) -> None:
    app.exec_driver_sql(set_tenant_sql(TENANT_A.id))

    with pytest.raises(DBAPIError) as error:
        app.exec_driver_sql(statement)
    assert sqlstate(error) == "42501"


def test_a_child_cannot_be_hung_on_a_foreign_parent(app: Connection) -> None:
    app.exec_driver_sql(set_tenant_sql(TENANT_A.id))

    with pytest.raises(DBAPIError) as error:
        app.execute(text("UPDATE book SET shelf_id = :shelf"), {"shelf": STOCK_B.shelf})
    assert sqlstate(error) == "23503"


def test_two_tenants_may_use_the_same_unique_value(bound_a: Session) -> None:
    bound_a.add(Book(tenant_id=TENANT_A.id, title="b book 1", shelf_id=STOCK_A.shelf))
    bound_a.flush()

    assert bound_a.scalar(select(func.count()).select_from(Book)) == 4


def test_a_cascade_stays_within_the_tenant(bound_a: Session, engines: Engines) -> None:
    bound_a.execute(text("DELETE FROM marking"))
    bound_a.execute(text("DELETE FROM shelf WHERE parent_id IS NOT NULL"))

    assert bound_a.scalar(select(func.count()).select_from(Book)) == 0
    assert bound_a.scalar(select(func.count()).select_from(Shelf)) == 1
    with engines.superuser.connect() as everything:
        assert len([title for title in titles(everything) if title.startswith("b")]) == 3


# assert_role


def test_each_bound_role_passes(engines: Engines) -> None:
    for engine, name in ((engines.app, ROLES.app), (engines.identity, ROLES.identity), (engines.operator, ROLES.operator)):
        with engine.connect() as connection:
            assert_role(connection, name)


def test_another_role_than_expected_is_refused(app: Connection) -> None:
    with pytest.raises(UnsafeRole, match="expected pw_operator"):
        assert_role(app, ROLES.operator)


def test_the_owner_is_refused(engines: Engines) -> None:
    with engines.owner.connect() as owner, pytest.raises(UnsafeRole, match="owns 8 tables"):
        assert_role(owner, OWNER)


def test_the_superuser_is_refused(superuser: Connection) -> None:
    with pytest.raises(UnsafeRole, match="superuser"):
        assert_role(superuser, "postgres")


POWERS = {
    "bypasses": "CREATE ROLE pw_odd BYPASSRLS",
    "superuser": "CREATE ROLE pw_odd SUPERUSER",
    "member of a bypasser": "CREATE ROLE pw_strong BYPASSRLS; CREATE ROLE pw_odd IN ROLE pw_strong",
    "member, without inheriting": "CREATE ROLE pw_strong SUPERUSER; CREATE ROLE pw_odd NOINHERIT IN ROLE pw_strong",
    "member of a member": "CREATE ROLE pw_strong BYPASSRLS; CREATE ROLE pw_m IN ROLE pw_strong; CREATE ROLE pw_odd IN ROLE pw_m",
    "owns": "CREATE ROLE pw_odd; CREATE TABLE stray (id int); ALTER TABLE stray OWNER TO pw_odd",
    "member of the owner": f"CREATE ROLE pw_odd IN ROLE {OWNER}",
}


@pytest.mark.parametrize("statements", POWERS.values(), ids=POWERS)
def test_a_role_that_could_pass_the_policies_is_refused(superuser: Connection, statements: str) -> None:
    superuser.exec_driver_sql(statements)
    superuser.exec_driver_sql("SET LOCAL ROLE pw_odd")

    with pytest.raises(UnsafeRole, match=r"pw_odd (is a superuser or may bypass|owns)"):
        assert_role(superuser, "pw_odd")


# Roles


def test_a_role_that_had_become_powerful_is_brought_back(superuser: Connection) -> None:
    roles = Roles("pw_one", "pw_two", "pw_three")
    superuser.exec_driver_sql("CREATE ROLE pw_one SUPERUSER BYPASSRLS CREATEROLE CREATEDB REPLICATION")

    create_roles(superuser, roles, dict.fromkeys(roles.login(), "it's 100% secret"))

    powers = "rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication"
    found = superuser.exec_driver_sql(f"SELECT rolname, {powers} FROM pg_roles WHERE rolname ~ '^pw_(one|two|three)$'").all()
    assert sorted(tuple(row) for row in found) == [("pw_one", False), ("pw_three", False), ("pw_two", False)]


def test_a_password_with_quote_and_percent_logs_in(engines: Engines) -> None:
    roles = Roles(*(f"pw_q{number}_{engines.url.database}" for number in range(3)))
    password = 'it\'s 100% "secret"'
    with engines.superuser.begin() as connection:
        create_roles(connection, roles, dict.fromkeys(roles.login(), password))
    try:
        with engines.as_role(roles.app, password).connect() as connection:
            assert connection.exec_driver_sql("SELECT current_user").scalar() == roles.app
    finally:
        with engines.superuser.begin() as connection:
            connection.exec_driver_sql(f"DROP ROLE {', '.join(roles.login())}")


def test_two_databases_may_create_the_same_roles_at_once(engines: Engines) -> None:
    roles = Roles(*(f"pw_r{number}_{engines.url.database}" for number in range(3)))
    failures: list[Exception] = []
    barrier = threading.Barrier(4)

    def create(engine: Any) -> None:
        try:
            with engine.begin() as connection:
                barrier.wait(10)
                create_roles(connection, roles, dict.fromkeys(roles.login(), "secret"))
        except Exception as error:
            failures.append(error)

    with fresh_engines("pwrace") as others:
        threads = [threading.Thread(target=create, args=(e.superuser,)) for e in (engines, others, engines, others)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    with engines.superuser.begin() as connection:
        connection.exec_driver_sql(f"DROP ROLE {', '.join(roles.login())}")
    assert failures == []


# What is generated


def test_every_tenant_table_has_the_same_predicate() -> None:
    found = {
        predicate
        for each in CLASSES.values()
        for name, (_, predicate) in expected_policies(each, ROLES).items()
        if name == TENANT_POLICY
    }

    assert found == {PREDICATE}
    assert "select" not in PREDICATE.lower()


def test_no_privilege_reaches_past_rows() -> None:
    held = {privilege for each in CLASSES.values() for some in expected_privileges(each, ROLES).values() for privilege in some}

    assert held <= {"SELECT", "INSERT", "UPDATE", "DELETE"}


def test_protecting_again_changes_nothing(engines: Engines, superuser: Connection) -> None:
    for found in CLASSES.values():
        for statement in (*protect_sql(found, ROLES), *protect_sql(found, ROLES)):
            superuser.exec_driver_sql(statement)

    assert verify(superuser, CLASSES, ROLES).findings == []


def test_a_table_of_keys_alone_can_be_protected(superuser: Connection) -> None:
    table = Table("link", MetaData(), Column("tenant_id", Uuid, primary_key=True), Column("id", Uuid, primary_key=True))
    table.create(superuser)

    for statement in protect_sql(Classification(table, TableClass.TENANT), ROLES):
        superuser.exec_driver_sql(statement)

    assert verify(superuser, {**CLASSES, "link": Classification(table, TableClass.TENANT)}, ROLES).findings == []


def test_a_name_in_need_of_quotes_can_be_protected(superuser: Connection) -> None:
    table = Table('odd "name"', MetaData(), Column("tenant_id", Uuid, primary_key=True), Column("Old Note", String))
    table.create(superuser)

    for statement in protect_sql(Classification(table, TableClass.TENANT), ROLES):
        superuser.exec_driver_sql(statement)

    assert verify(superuser, {**CLASSES, table.name: Classification(table, TableClass.TENANT)}, ROLES).findings == []


@pytest.mark.parametrize("times", [1, 2])
def test_the_migration_operation_protects_a_new_table(superuser: Connection, times: int) -> None:
    context = MigrationContext.configure(superuser, opts={"partywall_roles": ROLES})
    operations: Any = Operations(context)
    operations.create_table(
        "trip", Column("tenant_id", Uuid, primary_key=True), Column("id", Uuid, primary_key=True), Column("name", String)
    )

    for _ in range(times):
        operations.protect_table("trip", "tenant", append_only=True, identity_access=("SELECT",))

    live = Table("trip", MetaData(), autoload_with=superuser)
    declared = Classification(live, TableClass.TENANT, append_only=True, identity_access=("SELECT",))
    assert verify(superuser, {**CLASSES, "trip": declared}, ROLES).findings == []


def test_a_foreign_row_is_refused_before_any_other_rule(app: Connection) -> None:
    app.exec_driver_sql(set_tenant_sql(TENANT_A.id))

    with pytest.raises(DBAPIError) as error:
        app.execute(text("INSERT INTO book (tenant_id) VALUES (:tenant)"), {"tenant": UUID(int=1)})
    assert sqlstate(error) == "42501"

"""The rules for Citus, kept on any PostgreSQL: every statement of the programs, every migration, every policy is read.

No Citus server is part of the tests. What the rules say about one was measured elsewhere; here it is made sure that
nothing of ours breaks them. Each rule has a statement that does, so that a reader who became blind would be noticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, NullPool, create_engine, event, text

from api.test_conformance import bodies_of, requests_of
from cast import PASSWORD, Person, World
from citus_statements import Tables, faults, has_subselect
from partywall import classify
from partywall.tables import TableClass
from rowhouse import citus
from rowhouse.core.call import open_call
from rowhouse.core.db import Base, Database
from rowhouse.core.jobs import JobState, call_enqueue
from rowhouse.core.resource import Kind, Registry, Resource
from rowhouse.migrate import Addresses, find_addresses, migrate
from rowhouse.modules.crm.jobs import TASKS
from rowhouse.registry import build_registry
from rowhouse.settings import Settings
from rowhouse.worker import Worker, build_tasks
from rows import Rows, path_of
from samples import SAMPLES
from server import database_name, fresh_database, test_server

build_registry()
CLASSES = classify(Base.registry)
TENANT = frozenset(name for name, found in CLASSES.items() if found.table_class is TableClass.TENANT)
TABLES = Tables(TENANT, frozenset(citus.linked(CLASSES)), frozenset(CLASSES) - TENANT - citus.linked(CLASSES))
RULES = {rule.name for rule in citus.RULES}
Seen = set[tuple[str, str]]

BROKEN = {
    "tenant_key": "ALTER TABLE account ADD CONSTRAINT lonely UNIQUE (domain_norm)",
    "foreign_key": "ALTER TABLE crm_contact ADD CONSTRAINT lone FOREIGN KEY (account_id) REFERENCES account (id)",
    "global_to_tenant": "ALTER TABLE app_user ADD FOREIGN KEY (id) REFERENCES account (id)",
    "set_null": "ALTER TABLE crm_contact ADD FOREIGN KEY (tenant_id, account_id)"
    " REFERENCES account (tenant_id, id) ON DELETE SET NULL",
    "trigger": "CREATE TRIGGER stamp BEFORE UPDATE ON account FOR EACH ROW EXECUTE FUNCTION stamp()",
    "restrictive_policy": "CREATE POLICY p ON account AS RESTRICTIVE USING (true)",
    "policy_subselect": "CREATE POLICY p ON account USING (tenant_id IN (SELECT id FROM tenant))",
    "tenant_filter": "SELECT a.id FROM account a JOIN crm_contact c ON c.account_id = a.id WHERE a.tenant_id = $1",
    "recursion_without_tenant": "WITH RECURSIVE up AS (SELECT id FROM account WHERE tenant_id = $1 UNION ALL"
    " SELECT a.id FROM account a JOIN up ON a.id = up.id) SELECT id FROM up",
    "merge": "MERGE INTO account a USING crm_contact c ON a.tenant_id = c.tenant_id WHEN MATCHED THEN DELETE",
    "copy": "COPY account FROM STDIN",
    "insert_select": "INSERT INTO account (tenant_id, id) SELECT tenant_id, id FROM crm_contact WHERE tenant_id = $1",
    "moved_tenant": "UPDATE account SET tenant_id = $1 WHERE tenant_id = $2",
    "set_config": "SELECT id FROM account WHERE tenant_id = $1 AND set_config('app.tenant_id', $2, true) <> ''",
    "session_set": "SET app.tenant_id = 'x'",
    "not_alone": "SET LOCAL app.tenant_id = 'x'; SELECT id FROM account WHERE tenant_id = $1",
    "local_join": "SELECT a.id FROM account a JOIN login_attempt l ON l.id = a.id WHERE a.tenant_id = $1",
}
BROKEN_ACROSS = {
    "tenant_join": "SELECT j.id FROM job j JOIN outbox_event e ON e.id = j.id",
    "lock_without_tenant": "SELECT id FROM job WHERE dispatched_at IS NULL FOR UPDATE SKIP LOCKED",
    "global_outer": "DELETE FROM verified_domain v WHERE NOT EXISTS"
    " (SELECT 1 FROM tenant_domain t WHERE t.tenant_id = v.tenant_id)",
    "recursion_without_tenant": BROKEN["recursion_without_tenant"],
}
FRAME = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK")
KEPT = (
    "SELECT id FROM account WHERE account.tenant_id = %(tenant)s::UUID",
    "SELECT a.id FROM account a JOIN crm_contact c ON c.tenant_id = a.tenant_id AND c.account_id = a.id WHERE c.tenant_id = $1",
    "SELECT id FROM account a WHERE a.tenant_id = $1 AND EXISTS"
    " (SELECT 1 FROM crm_contact c WHERE c.tenant_id = a.tenant_id AND c.account_id = a.id)",
    "SELECT s.id FROM (SELECT id FROM account WHERE tenant_id = $1) s",
    "INSERT INTO account (tenant_id, id) VALUES ($1, $2) ON CONFLICT (tenant_id, id) DO UPDATE SET name = excluded.name",
    "SELECT count(id) FROM account WHERE false",
    "SET LOCAL app.tenant_id = 'x'",
)


# --- the reader ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_a_statement_that_breaks_a_rule_is_named(rule: str) -> None:
    assert [fault.rule for fault in faults(BROKEN[rule], TABLES)] == [rule]


@pytest.mark.parametrize("rule", sorted(BROKEN_ACROSS))
def test_a_statement_across_tenants_that_breaks_a_rule_is_named(rule: str) -> None:
    assert [fault.rule for fault in faults(BROKEN_ACROSS[rule], TABLES, across=True)] == [rule]


@pytest.mark.parametrize("statement", KEPT)
def test_a_statement_that_keeps_the_rules_is_not_named(statement: str) -> None:
    assert faults(statement, TABLES) == []


@pytest.mark.parametrize(
    "condition", ["true", "tenant_id = $1 OR true", "tenant_id <> $1", "NOT tenant_id = $1", "id = $1", "tenant_id = id"]
)
def test_what_only_looks_like_a_filter_is_named(condition: str) -> None:
    assert [fault.rule for fault in faults(f"SELECT id FROM account WHERE {condition}", TABLES)] == ["tenant_filter"]


def test_every_rule_is_broken_by_some_statement_here() -> None:
    # A circle of references shows in the declared tables only; that one has a test of its own in test_citus.py.
    assert BROKEN.keys() | BROKEN_ACROSS.keys() | {"parents_first"} == RULES


# --- the schema ---------------------------------------------------------------------------------------------------------


def test_the_declared_tables_keep_the_rules() -> None:
    assert citus.schema_faults(CLASSES) == []


def test_every_statement_of_the_migrations_keeps_the_rules(settings: Settings) -> None:
    url = fresh_database(test_server(), database_name("citusrules")).set(drivername="postgresql")
    own = Settings(DATABASE_URL=url.render_as_string(hide_password=False), secret_key=settings.secret.decode())
    with collected_everywhere() as seen:
        migrate(own, find_addresses(own))
    ours = {statement for statement in seen if "procrastinate" not in statement and not _is_of_the_driver(statement)}
    assert sum("CREATE TABLE" in statement for statement in ours) >= len(CLASSES)
    # The owner's session is direct and its own, and what it asks the catalogue concerns no tenant.
    found = [fault for statement in ours for fault in faults(statement, TABLES, across=True) if fault.rule != "session_set"]
    assert found == []


@contextmanager
def collected_everywhere() -> Iterator[set[str]]:
    """Collect the statements of every engine there is."""
    seen: set[str] = set()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.add(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _is_of_the_driver(statement: str) -> bool:
    return "pg_catalog" in statement


def test_every_policy_of_the_live_database_keeps_the_rules(addresses: Addresses) -> None:
    with create_engine(addresses.owner, poolclass=NullPool).connect() as connection:
        policies = connection.execute(text("SELECT tablename, permissive, qual, with_check FROM pg_policies")).all()
        triggers = connection.execute(
            text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = ANY (:ours)"),
            {
                "ours": connection.execute(
                    text("SELECT oid FROM pg_class WHERE relname = ANY (:names)"), {"names": list(CLASSES)}
                )
                .scalars()
                .all()
            },
        ).all()
    assert {policy.tablename for policy in policies} == TENANT
    assert {policy.permissive for policy in policies} == {"PERMISSIVE"}
    assert not any(has_subselect(policy.qual) or has_subselect(policy.with_check) for policy in policies)
    assert triggers == []
    assert has_subselect("tenant_id IN (SELECT id FROM tenant)")


# --- the statements -----------------------------------------------------------------------------------------------------


@contextmanager
def collected(database: Database) -> Iterator[Seen]:
    """Collect every statement the three roles send, with the role."""
    seen: Seen = set()
    engines = {"app": database.app, "identity": database.identity, "operator": database.operator}
    notes: list[tuple[Any, Any]] = []
    for role, engine in engines.items():

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any, role: str = role) -> None:
            seen.add((role, statement))

        event.listen(engine.sync_engine, "before_cursor_execute", note)
        notes.append((engine.sync_engine, note))
    watched = [("app", database.reads), ("identity", database.look_ups)]
    watchers = [(pipeline, lambda statement, role=role: seen.add((role, statement))) for role, pipeline in watched]
    for pipeline, watch in watchers:
        pipeline.watchers.append(watch)
    try:
        yield seen
    finally:
        for engine, note in notes:
            event.remove(engine, "before_cursor_execute", note)
        for pipeline, watch in watchers:
            pipeline.watchers.remove(watch)


async def test_every_statement_of_the_programs_keeps_the_rules(
    database: Database, registry: Registry, addresses: Addresses, world: World, rows_a: Rows, rows_b: Rows
) -> None:
    with collected(database) as seen:
        for rows in (rows_a, rows_b):
            for resource in registry:
                await _read(registry, resource, rows)
                await _write(registry, resource, rows)
            await _log_in(rows.person, world)
        await _work(database, registry, addresses, rows_a.person)
    statements = {
        (role, sql) for role, sql in seen if not sql.startswith(("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK"))
    }
    found = [(role, fault) for role, sql in sorted(statements) for fault in faults(sql, TABLES, across=role != "app")]
    assert found == []
    said = " ".join(sql for role, sql in statements if role == "app")
    assert {resource.model.__tablename__ for resource in registry if f"{resource.model.__tablename__}" not in said} == set()
    assert {role for role, _ in statements} == {"app", "identity", "operator"}
    assert len(statements) > 150


async def _read(registry: Registry, resource: Resource, rows: Rows) -> None:
    base, client = path_of(registry, resource, rows), rows.person.client
    if "list" not in resource.verbs:
        assert (await client.get(base)).status_code == 200
        return
    name = str(rows.by_name.get(resource.name, {}).get("name") or "acme").split()[0]
    for params in _lists(resource, name):
        answer = await client.get(base, params=params)
        assert answer.status_code in (200, 422), (resource.name, params, answer.text)
    page = (await client.get(base, params={"limit": 1})).json()
    if page["next_cursor"]:
        assert (await client.get(base, params={"limit": 1, "cursor": page["next_cursor"]})).status_code == 200
    await client.get(f"{base}/export")
    for report in resource.reports:
        if report.on == "collection":
            await client.get(f"{base}/reports/{report.name}")
    if resource.name in rows.by_name:
        row_id = rows.id_of(resource.name)
        for method, path in requests_of(registry, resource, rows, row_id):
            if method == "GET":
                assert (await client.get(path)).status_code in (200, 422), path


def _lists(resource: Resource, name: str) -> Iterator[dict[str, Any]]:
    yield {"total": "true", "archived": "all"}
    if resource.search:
        yield from ({"q": q, "total": "true"} for q in (name, f"{name} ltd", "no such words"))
    for column in resource.filters:
        yield {f"{column.key}.is_null": "true"}
        yield {column.key: "1"}
        yield {column.key: str(uuid4())}
    for column in resource.order:
        yield {"sort": f"-{column.key}"}


async def _write(registry: Registry, resource: Resource, rows: Rows) -> None:
    """Make a row and do to it whatever can be done, so that nobody else's row is touched."""
    base, client = path_of(registry, resource, rows), rows.person.client
    if resource.name not in SAMPLES:
        return
    sample = SAMPLES[resource.name](rows.ids())
    answer = await client.post(base, json=sample, headers={"idempotency-key": str(uuid4())})
    if answer.status_code != 201:
        # A second one may not be allowed; then the first stands for it.
        assert answer.status_code in (409, 422), (resource.name, answer.text)
        return
    row_id = answer.json()["id"]
    if resource.kind is Kind.RECORD:
        await client.post(f"{base}/bulk", json={"verb": "update", "items": [{"id": row_id}]})
    paths = list(requests_of(registry, resource, rows, row_id))
    for method, path in sorted(paths, key=lambda one: (one[0] == "DELETE", one[1].endswith(("/archive", "/restore")))):
        if method != "GET":
            answer = await client.request(method, path, json=_body(resource, path, sample) if method != "DELETE" else None)
            assert answer.status_code < 500, (method, path, answer.text)
    for action in resource.actions:
        if action.on == "collection":
            path = f"{base}/actions/{action.name}"
            assert (await client.post(path, json=bodies_of(resource, path))).status_code < 500


def _body(resource: Resource, path: str, sample: dict[str, Any]) -> Any:
    is_action = any(path.endswith(f"/{action.name}") for action in resource.actions)
    return bodies_of(resource, path) if is_action or path.endswith(("/archive", "/restore")) else sample


async def _log_in(person: Person, world: World) -> None:
    answer = await world.stranger.post(
        "/api/v1/session",
        json={"email": person.email, "password": PASSWORD},
        headers={"host": f"{person.tenant.slug}.localhost"},
    )
    assert answer.status_code == 200, answer.text
    cookie = answer.headers["set-cookie"].partition(";")[0]
    answer = await world.stranger.get("/api/v1/workspaces", headers={"cookie": cookie, "host": f"{person.tenant.slug}.localhost"})
    assert answer.status_code == 200, answer.text
    world.stranger.cookies.clear()


async def _work(database: Database, registry: Registry, addresses: Addresses, person: Person) -> None:
    """Queue every task of the product, and let a worker dispatch and run what waits."""
    ids: list[UUID] = []
    async with open_call(database, registry, person.tenant, person.principal) as call:
        for task in TASKS:
            if not task.event:
                row = await call_enqueue(call, task)
                assert row is not None
                ids.append(row.id)
    stop = asyncio.Event()
    worker = asyncio.create_task(Worker(database, registry, build_tasks(), addresses.urls["operator"]).run(stop, poll_s=0.02))
    try:
        async with asyncio.timeout(60):
            while set(await _states(person, ids)) - {JobState.DONE, JobState.FAILED}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        stop.set()
        await worker


async def _states(person: Person, ids: list[UUID]) -> list[str]:
    return [(await person.client.get(f"/api/v1/jobs/{row_id}")).json()["status"] for row_id in ids]

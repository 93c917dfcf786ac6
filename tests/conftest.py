"""The small cast every test uses, on a real PostgreSQL with real policies and the bound roles."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cast import PASSWORD, CallMaker, Command, Person, TenantMaker, World
from layers import take_away
from partywall import Tenant, system_scope
from rowhouse import clock
from rowhouse.app import create_app
from rowhouse.cli import app as commands
from rowhouse.core.call import open_call
from rowhouse.core.db import Database, open_database
from rowhouse.core.permissions import Principal, Role
from rowhouse.core.resource import Registry
from rowhouse.identity import tenants
from rowhouse.identity.keys import NewKey, create_key
from rowhouse.identity.members import NewMember, add_member, system_principal
from rowhouse.identity.provided import provide
from rowhouse.logs import configure_logs
from rowhouse.migrate import Addresses, find_addresses, migrate
from rowhouse.modules.crm.actions.pipelines import provision
from rowhouse.registry import build_registry
from rowhouse.settings import Settings
from rows import Rows, path_of
from samples import SAMPLES
from server import database_name, fresh_database, test_server


@pytest.fixture(scope="session")
def settings() -> Settings:
    server = test_server()
    url = fresh_database(server, database_name("rowhouse"))
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    found = Settings(DATABASE_URL=text, secret_key="test secret, the same for every worker of a run", log_level="error")
    provide(found)
    configure_logs(found)
    return found


@pytest.fixture(scope="session")
def addresses(settings: Settings) -> Addresses:
    found = find_addresses(settings)
    migrate(settings, found)
    take_away(found)
    return found


@pytest.fixture(scope="session")
def registry() -> Registry:
    return build_registry()


@pytest.fixture(scope="session")
async def database(addresses: Addresses) -> AsyncIterator[Database]:
    found = open_database(addresses.urls, addresses.roles, pool_size=4)
    await found.check_roles()
    yield found
    await found.close()


@pytest.fixture(scope="session")
def make_tenant(database: Database, registry: Registry) -> TenantMaker:
    """Make a tenant with its default pipeline and return it with its owner."""

    async def make(prefix: str) -> tuple[Tenant, Principal]:
        slug = f"{prefix}-{secrets.token_hex(3)}"
        new = tenants.NewTenant(
            name=f"{prefix.title()} Ltd",
            slug=slug,
            owner_email=f"owner@{slug}.example",
            owner_name=f"Owner of {prefix}",
            owner_password=PASSWORD,
        )
        with system_scope(reason="the tests' own tenants"):
            tenant = await tenants.create_tenant(database, new, now=clock.utc_now())
        async with open_call(database, registry, tenant, system_principal(), reason="provision") as call:
            await provision(call)
            owner = await add_member(call, NewMember(email=new.owner_email, role=Role.OWNER))
        return tenant, Principal("session", owner.id, owner.id, Role.OWNER)

    return make


@pytest.fixture(scope="session")
def app(settings: Settings, database: Database, registry: Registry) -> Any:
    return create_app(settings, database, registry)


@pytest.fixture(scope="session")
async def world(app: Any, database: Database, registry: Registry, make_tenant: TenantMaker) -> AsyncIterator[World]:
    people: dict[str, Person] = {}
    found: dict[str, Tenant] = {}
    for letter in ("a", "b"):
        tenant, owner = await make_tenant(f"tenant-{letter}")
        found[letter] = tenant
        for role in Role:
            people[f"{role.lower()}_{letter}"] = await _person(app, database, registry, tenant, role, owner)
    stranger = _client(app, found["a"], None)
    yield World(found["a"], found["b"], people, stranger)
    for client in (*(person.client for person in people.values()), stranger):
        await client.aclose()


async def _person(app: Any, database: Database, registry: Registry, tenant: Tenant, role: Role, owner: Principal) -> Person:
    email = f"{role.lower()}@{tenant.slug}.example"
    async with open_call(database, registry, tenant, owner) as call:
        if role is Role.OWNER:
            member_id = owner.member_id
        else:
            row = await add_member(call, NewMember(email=email, name=f"{role.title()} Person", role=role, password=PASSWORD))
            member_id = row.id
    principal = Principal("session", member_id, member_id, role)
    async with open_call(database, registry, tenant, principal) as call:
        made = await create_key.run(call, NewKey(name="tests", scopes=["*"]))
    return Person(tenant, principal, email, made.key, _client(app, tenant, made.key))


def _client(app: Any, tenant: Tenant, key: str | None) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{tenant.slug}.localhost", headers=headers)


@pytest.fixture
def owner_a(world: World) -> Person:
    return world.people["owner_a"]


@pytest.fixture
def admin_a(world: World) -> Person:
    return world.people["admin_a"]


@pytest.fixture
def member_a(world: World) -> Person:
    return world.people["member_a"]


@pytest.fixture
def viewer_a(world: World) -> Person:
    return world.people["viewer_a"]


@pytest.fixture
def owner_b(world: World) -> Person:
    return world.people["owner_b"]


@pytest.fixture
def member_b(world: World) -> Person:
    return world.people["member_b"]


@pytest.fixture
def stranger(world: World) -> httpx.AsyncClient:
    """A client at tenant A's host without a credential."""
    return world.stranger


@pytest.fixture
def call_as(database: Database, registry: Registry) -> CallMaker:
    """Open a call of one of the cast."""
    return lambda person: open_call(database, registry, person.tenant, person.principal)


async def _fill(person: Person, registry: Registry) -> Rows:
    rows = Rows(person)
    rows.by_name["members"] = {"id": person.id}
    for name, sample in SAMPLES.items():
        answer = await person.client.post(path_of(registry, registry[name], rows), json=sample(rows.ids()))
        assert answer.status_code == 201, (name, answer.text)
        rows.by_name[name] = answer.json()
    for resource in registry:
        if resource.name not in rows.by_name and "list" in resource.verbs:
            answer = await person.client.get(path_of(registry, resource, rows), params={"limit": 1})
            assert answer.status_code == 200, (resource.name, answer.text)
            if answer.json()["items"]:
                rows.by_name[resource.name] = answer.json()["items"][0]
    return rows


@pytest.fixture(scope="session")
async def rows_a(world: World, registry: Registry) -> Rows:
    return await _fill(world.people["owner_a"], registry)


@pytest.fixture(scope="session")
async def rows_b(world: World, registry: Registry) -> Rows:
    return await _fill(world.people["owner_b"], registry)


@pytest.fixture
def command(settings: Settings, addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command; an unexpected failure fails the test."""
    assert settings.database_url is not None
    assert settings.secret_key is not None
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("ROWHOUSE_SECRET_KEY", settings.secret_key.get_secret_value())
    monkeypatch.setenv("ROWHOUSE_LOG_LEVEL", "error")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, fails: type[Exception] | None = None) -> Result:
        result = CliRunner().invoke(commands, [str(word) for word in words])
        if fails is not None:
            assert isinstance(result.exception, fails), (words, result.output, result.exception)
        else:
            assert result.exit_code == 0, (words, result.output, result.exception)
        return result

    return run

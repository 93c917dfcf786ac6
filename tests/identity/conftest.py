"""Workspaces of the identity tests: fresh ones, so that no test sees what another one suspended or locked."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime

import pytest
from houses import NOW, PASSWORD, Clocks, FakeTxt, House
from sqlalchemy import select

from partywall import Tenant, system_scope
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database
from rowhouse.core.permissions import Principal, Role
from rowhouse.core.resource import Registry
from rowhouse.identity import tenants
from rowhouse.identity.directory import IdentityDirectory
from rowhouse.identity.members import NewMember, add_member, system_principal
from rowhouse.identity.models import Membership
from rowhouse.identity.provided import provide
from rowhouse.identity.remembered import Remembered
from rowhouse.identity.resources import RESOURCES
from rowhouse.identity.sessions import LoggedIn, LogIn, log_in
from rowhouse.settings import Settings

HouseMaker = Callable[[], Awaitable[House]]


@pytest.fixture(scope="session")
def workspace_registry() -> Registry:
    return Registry(RESOURCES)


@pytest.fixture
def txt(settings: Settings) -> Iterator[FakeTxt]:
    fake = FakeTxt()
    provide(settings, txt=fake)
    yield fake
    provide(settings)


@pytest.fixture
def make_house(database: Database, settings: Settings) -> HouseMaker:
    """Open a workspace of its own, with an owner who can log in."""
    provide(settings)

    async def make() -> House:
        slug = f"house-{secrets.token_hex(5)}"
        email = f"owner@{slug}.example"
        new = tenants.NewTenant(name="A House", slug=slug, owner_email=email, owner_name="Ada Owner", owner_password=PASSWORD)
        with system_scope(reason="the identity tests"):
            tenant = await tenants.create_tenant(database, new, now=NOW)
        async with database.people() as session:
            owner_id = (await session.scalars(select(Membership.id).where(Membership.tenant_id == tenant.id))).one()
        return House(tenant, Principal("session", owner_id, owner_id, Role.OWNER), email)

    return make


@pytest.fixture
async def house(make_house: HouseMaker) -> House:
    return await make_house()


@pytest.fixture
async def other_house(make_house: HouseMaker) -> House:
    return await make_house()


CallAs = Callable[[Tenant, Principal], AbstractAsyncContextManager[Call]]


@pytest.fixture
def call_of(database: Database, workspace_registry: Registry) -> CallAs:
    """Open a call of one caller in one workspace."""
    return lambda tenant, principal: open_call(database, workspace_registry, tenant, principal, now=NOW)


AddMember = Callable[..., Awaitable[Principal]]


@pytest.fixture
def add(call_of: CallAs) -> AddMember:
    """Add a member, vouched for by the operator, who can log in with PASSWORD."""

    async def add_one(tenant: Tenant, email: str, role: Role = Role.MEMBER) -> Principal:
        async with call_of(tenant, system_principal()) as call:
            row = await add_member(call, NewMember(email=email, name="Mel Member", role=role, password=PASSWORD))
        return Principal("session", row.id, row.id, role)

    return add_one


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def directory(database: Database, settings: Settings, clocks: Clocks) -> IdentityDirectory:
    """A directory whose memory ends when the test moves `clocks.monotonic_s`, not when the machine is slow."""
    remembered = Remembered(monotonic=lambda: clocks.monotonic_s)
    return IdentityDirectory(database, settings, remembered=remembered, now=lambda: clocks.now)


LogInAs = Callable[..., Awaitable[LoggedIn]]


@pytest.fixture
def enter(database: Database, settings: Settings) -> LogInAs:
    """Log somebody in."""

    async def log(email: str, tenant: Tenant | None = None, *, password: str = PASSWORD, now: datetime = NOW) -> LoggedIn:
        return await log_in(database, settings, LogIn(email, password, tenant), now=now)

    return log

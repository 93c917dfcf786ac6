"""The kinds no module uses yet, on tables of this file's own: settings and rollups."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

import pytest
from sqlalchemy import NullPool, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from partywall import Tenant, classify, tenant_unique, uuid7
from partywall.rls import protect_sql
from rowhouse.core import operations
from rowhouse.core.audit import AuditEntry
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Base, Database, Record, open_database
from rowhouse.core.errors import Forbidden, StaleVersion
from rowhouse.core.permissions import Principal, Role
from rowhouse.core.resource import Input, Kind, Registry, Replace, Resource
from rowhouse.migrate import find_addresses, migrate
from rowhouse.settings import Settings
from server import database_name, fresh_database, test_server


class Toys(DeclarativeBase):
    type_annotation_map = Base.type_annotation_map


class ToySettings(Record, Toys):
    __tablename__ = "toy_settings"
    greeting: Mapped[str] = mapped_column(default="Hello")
    limit: Mapped[int] = mapped_column(default=10)


class ToyDay(Record, Toys):
    __tablename__ = "toy_day"
    __table_args__ = (tenant_unique("day"),)
    day: Mapped[date]
    changes: Mapped[int]


class Day(Input):
    day: date


async def count_changes(call: Call, data: Day) -> list[ToyDay]:
    found = await call.session.scalar(select(func.count(AuditEntry.id)).where(func.date(AuditEntry.created_at) == data.day))
    row = (await call.session.scalars(select(ToyDay).where(ToyDay.day == data.day))).one_or_none()
    if row is None:
        row = ToyDay(day=data.day, changes=0)
        call.session.add(row)
    row.changes = found or 0
    return [row]


SETTINGS = Resource(
    model=ToySettings,
    name="toy-settings",
    group="toys",
    kind=Kind.SETTINGS,
    write=(ToySettings.greeting, ToySettings.limit),
)
DAYS = Resource(
    model=ToyDay,
    name="toy-days",
    group="toys",
    kind=Kind.ROLLUP,
    filters=(ToyDay.day,),
    order=(ToyDay.day,),
    replace={"recompute": Replace(count_changes, Day)},
)
A, B, NEW = (Tenant(uuid7(), f"toy-{letter}") for letter in "abc")
OWNER, VIEWER = (Principal("session", uuid7(), None, role) for role in (Role.OWNER, Role.VIEWER))


@pytest.fixture(scope="module")
async def toys(settings: Settings) -> AsyncIterator[Database]:
    """A database of this file's own with the two tables in it."""
    url = fresh_database(test_server(), database_name("toys")).set(drivername="postgresql").render_as_string(hide_password=False)
    addresses = find_addresses(found := Settings(DATABASE_URL=url, secret_key=settings.secret.decode()))
    migrate(found, addresses)
    with create_engine(addresses.owner, poolclass=NullPool).begin() as connection:
        Toys.metadata.create_all(connection)
        for tenant in (A, B, NEW):
            connection.exec_driver_sql(
                "INSERT INTO tenant (id, slug, name, status, timezone, currency, open_edit, created_at)"
                f" VALUES ('{tenant.id}', '{tenant.slug}', 'Toy', 'ACTIVE', 'UTC', 'USD', true, now())"
            )
        for declared in classify(Toys.registry).values():
            for statement in protect_sql(declared, addresses.roles):
                connection.exec_driver_sql(statement)
    database = open_database(addresses.urls, addresses.roles, pool_size=2)
    yield database
    await database.close()


def call_of(database: Database, tenant: Tenant, principal: Principal = OWNER):
    return open_call(database, Registry([SETTINGS, DAYS]), tenant, principal)


async def test_settings_begin_with_their_defaults_and_keep_what_is_set(toys: Database) -> None:
    async with call_of(toys, NEW) as call:
        assert (await operations.settings(call, SETTINGS)).greeting == "Hello"
    async with call_of(toys, NEW) as call:
        await operations.change_settings(call, SETTINGS, {"limit": 5}, version=1)
    async with call_of(toys, NEW) as call:
        row = await operations.settings(call, SETTINGS)
        assert (row.greeting, row.limit, row.version) == ("Hello", 5, 2)
        with pytest.raises(StaleVersion):
            await operations.change_settings(call, SETTINGS, {"limit": 6}, version=1)


async def test_each_tenant_has_settings_of_its_own(toys: Database) -> None:
    async with call_of(toys, A) as call:
        await operations.change_settings(call, SETTINGS, {"greeting": "Of A"})
    async with call_of(toys, B) as call:
        row = await operations.settings(call, SETTINGS)
        assert row.greeting != "Of A"
        assert len((await call.session.scalars(select(ToySettings))).all()) == 1


async def test_viewers_do_not_change_settings(toys: Database) -> None:
    async with call_of(toys, A, VIEWER) as call:
        with pytest.raises(Forbidden):
            await operations.change_settings(call, SETTINGS, {"limit": 7})


async def test_a_rollup_is_recomputed_for_its_period_and_its_tenant_alone(toys: Database) -> None:
    async with call_of(toys, A) as call:
        await operations.settings(call, SETTINGS)
    async with call_of(toys, A) as call:
        first = await operations.recompute(call, DAYS, {"day": call.today.isoformat()})
        again = await operations.recompute(call, DAYS, {"day": call.today.isoformat()})
        assert [row.id for row in first] == [row.id for row in again]
        assert again[0].changes >= 1
    async with call_of(toys, B) as call:
        assert (await call.session.scalars(select(ToyDay))).all() == []


def test_a_rollup_without_its_recompute_is_refused() -> None:
    with pytest.raises(ValueError, match="recompute"):
        Registry([Resource(model=ToyDay, name="toy-days", group="toys", kind=Kind.ROLLUP)])

"""The migrations make the schema the models declare, and nothing else."""

from __future__ import annotations

from sqlalchemy import NullPool, create_engine

from rowhouse.migrate import Addresses, differences, migrate, pending
from rowhouse.settings import Settings


def test_the_live_schema_is_the_declared_one(addresses: Addresses) -> None:
    with create_engine(addresses.owner, poolclass=NullPool).connect() as connection:
        differences(connection, addresses.roles)
        assert pending(connection) == []


def test_migrating_again_changes_nothing(addresses: Addresses, settings: Settings) -> None:
    migrate(settings, addresses)
    with create_engine(addresses.owner, poolclass=NullPool).connect() as connection:
        assert pending(connection) == []

"""Write a migration from the difference between the models and the schema: `make migration MESSAGE="add notes"`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sqlalchemy import NullPool, create_engine

import rowhouse.registry  # noqa: F401  # every model is known once the resources are
from rowhouse.embedded import postgres
from rowhouse.migrate import find_addresses, migrate, write_revision
from rowhouse.settings import Settings


def main(message: str) -> None:
    """Bring an empty database to the last migration, then write the next."""
    folder = Path(tempfile.mkdtemp(prefix="rowhouse-revision-"))
    settings = Settings(data_dir=folder)
    try:
        addresses = find_addresses(settings)
        migrate(settings, addresses)
        with create_engine(addresses.owner, poolclass=NullPool).connect() as connection:
            write_revision(connection, addresses.roles, message)
    finally:
        postgres.remove(folder / "pg")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "change")

"""A worker process whose job never ends, to be killed in the middle of it: `python blocked_worker.py`."""

import asyncio
import sys

from rowhouse.core import operations
from rowhouse.core.call import Call
from rowhouse.core.db import open_database
from rowhouse.core.jobs import Tasks, job
from rowhouse.core.resource import NoInput
from rowhouse.identity.provided import provide
from rowhouse.migrate import find_addresses
from rowhouse.registry import build_registry
from rowhouse.settings import Settings
from rowhouse.worker import Worker


@job("tests.blocked", retries=1)
async def blocked(call: Call, _args: NoInput) -> None:
    """Write something, then wait for ever."""
    await operations.create(call, call.registry["accounts"], {"name": "Written by whom?"})
    await call.flush()
    sys.stdout.write("running\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def main() -> None:
    settings = Settings()
    provide(settings)
    addresses = find_addresses(settings)
    database = open_database(addresses.urls, addresses.roles, pool_size=2)
    worker = Worker(database, build_registry(), Tasks([blocked]), addresses.urls["operator"])
    await worker.run(asyncio.Event(), poll_s=0.05)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

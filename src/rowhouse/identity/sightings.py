"""When a key or a log-in was last used, written down together every few seconds.

Ten thousand callers who come once a minute would otherwise cost a transaction each.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import bindparam, update
from sqlalchemy.exc import SQLAlchemyError

from rowhouse.core.db import Database
from rowhouse.identity.models import ApiKey, ServiceKey, UserSession

_EVERY_S = 2.0
_log = structlog.get_logger()
_API_KEY: Any = ApiKey.__table__
_SERVICE_KEY: Any = ServiceKey.__table__
_SESSION: Any = UserSession.__table__
_KEYS = (_API_KEY.c.tenant_id == bindparam("of_tenant"), _API_KEY.c.id == bindparam("row"))
_STATEMENTS = {
    "personal_key": update(_API_KEY).where(*_KEYS).values(last_used_at=bindparam("seen")),
    "service_key": update(_SERVICE_KEY).where(_SERVICE_KEY.c.id == bindparam("row")).values(last_used_at=bindparam("seen")),
    # An end written meanwhile by another process must stay.
    "session": update(_SESSION)
    .where(_SESSION.c.id == bindparam("row"), _SESSION.c.revoked_at.is_(None))
    .values(last_seen_at=bindparam("seen"), expires_at=bindparam("until")),
}


class Sightings:
    """Collects who was seen and writes it; at once as long as `start` was not called."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[str, dict[UUID, dict[str, Any]]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Write in the background from now on."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write what is left and stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self.write()

    async def note(self, kind: str, row_id: UUID, seen: datetime, **values: Any) -> None:
        """Note that a credential was used. values: of_tenant for a personal key, until (its new end) for a log-in."""
        self._seen.setdefault(kind, {})[row_id] = {"row": row_id, "seen": seen, **values}
        if self._task is None:
            await self.write()

    async def write(self) -> None:
        """Write down what was noted. What cannot be written is forgotten: it will be seen again."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        try:
            async with self._database.people() as session:
                for kind, rows in seen.items():
                    # In one order everywhere, so that two processes do not wait for each other.
                    await session.execute(_STATEMENTS[kind], [rows[row_id] for row_id in sorted(rows)])
        except SQLAlchemyError as error:
            _log.warning("sightings_lost", error=type(error).__name__)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.write()

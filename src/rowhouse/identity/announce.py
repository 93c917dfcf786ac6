"""Tells every process what changed about people, workspaces and keys, so that none goes on believing what it remembers.

PostgreSQL carries the word: a NOTIFY in the transaction of the change reaches all listeners when it commits. Whatever is
written through the ORM to one of the watched tables is announced by itself; a bulk statement that does not say whom it
concerns makes everybody forget everything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from psycopg import AsyncConnection, Error
from sqlalchemy import event, func, select
from sqlalchemy.orm import ORMExecuteState, Session

from rowhouse.core.db import CallSession
from rowhouse.identity.models import (
    ApiKey,
    Membership,
    ServiceKey,
    ServiceKeyGrant,
    TenantRow,
    User,
    UserSession,
    VerifiedDomain,
)
from rowhouse.identity.remembered import Remembered

CHANNEL = "rowhouse_identity"
EVERYTHING = "*"
# What an entry of the memory may be known by: the ids and names in the question that was asked and in its answer.
_WATCHED: dict[type, tuple[str, ...]] = {
    TenantRow: ("id", "slug"),
    VerifiedDomain: ("tenant_id", "domain"),
    Membership: ("tenant_id", "id"),
    ApiKey: ("id", "member_id"),
    UserSession: ("id", "user_id"),
    User: ("id",),
    ServiceKey: ("id",),
    ServiceKeyGrant: ("service_key_id",),
}
_TABLES = {model.__table__.name: model for model in _WATCHED}  # type: ignore[attr-defined]
CallSession.flushed_apart.update(_WATCHED)
# A NOTIFY holds 8,000 bytes.
_MOST_NAMES = 150
# Together less than a second: so long may a connection that died without a word be believed.
_HEARTBEAT_S = 0.3
_PATIENCE_S = 0.6
_AGAIN_S = 1.0
_log = structlog.get_logger()


@event.listens_for(Session, "after_flush")
def _announce_rows(session: Session, _context: Any) -> None:
    names: set[str] = set()
    for row in (*session.new, *session.dirty, *session.deleted):
        watched = _WATCHED.get(type(row))
        if watched is not None and (row not in session.dirty or session.is_modified(row)):
            names.update(str(getattr(row, name)) for name in watched)
    if names:
        _notify(session, names)


@event.listens_for(Session, "do_orm_execute")
def _announce_statement(state: ORMExecuteState) -> None:
    if state.is_select or not state.is_orm_statement or state.is_relationship_load:
        return
    table = getattr(state.statement, "table", None)
    if table is None or table.name not in _TABLES:
        return
    names = state.execution_options.get("announces", (EVERYTHING,))
    if names:
        _notify(state.session, {str(name) for name in names})


def _notify(session: Session, names: Iterable[str]) -> None:
    told = sorted(names)
    text = EVERYTHING if len(told) > _MOST_NAMES else " ".join(told)
    session.execute(select(func.pg_notify(CHANNEL, text)))


class Listener:
    """Listens for one process and makes its memories forget what it is told of.

    While it hears, a memory may keep answers long; as soon as it cannot be sure to hear, it keeps them short.
    conninfo: of a direct connection of the identity role; a pooler in transaction mode cannot listen.
    """

    def __init__(self, conninfo: str, remembered: Sequence[Remembered]) -> None:
        self.conninfo, self.remembered = conninfo, remembered
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen, in the background."""
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _listen(self) -> None:
        while True:
            try:
                async with await AsyncConnection.connect(self.conninfo, autocommit=True, prepare_threshold=None) as connection:
                    await self._hear(connection)
            except (Error, TimeoutError, OSError) as error:
                _log.warning("identity_listener_lost", error=type(error).__name__)
            finally:
                self._hears(False)
            await asyncio.sleep(_AGAIN_S)

    async def _hear(self, connection: AsyncConnection) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        self._hears(True)
        while True:
            async for told in connection.notifies(timeout=_HEARTBEAT_S):
                self._forget(told.payload)
            # A connection that died without a word would never tell; an answer in time shows that nothing was missed.
            async with asyncio.timeout(_PATIENCE_S):
                await connection.execute("SELECT 1")

    def _hears(self, is_told: bool) -> None:
        for memory in self.remembered:
            memory.forget()
            memory.is_told = is_told

    def _forget(self, payload: str) -> None:
        for memory in self.remembered:
            if payload == EVERYTHING:
                memory.forget()
            else:
                memory.forget_about(payload.split(" "))

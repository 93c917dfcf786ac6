"""One operation call: who, for which tenant, when, and the transaction it runs in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import inspect, select

from partywall import Tenant, TenantScoped, tenant_scope
from rowhouse.core import clock
from rowhouse.core.db import AsyncCallSession, Database, write_failures
from rowhouse.core.errors import NotFound, ReferenceNotFound
from rowhouse.core.events import OutboxEvent
from rowhouse.core.permissions import Principal
from rowhouse.core.resource import Registry

_Row = TypeVar("_Row", bound=TenantScoped)


@dataclass(frozen=True, slots=True)
class Moment:
    """Under what a row was changed: when, by which operation, by whom. Collected writes keep theirs until they are sent."""

    now: datetime
    operation: str
    principal: Principal


Derive = Callable[["Call", set[UUID]], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Call:
    """What every action, report and check receives first.

    now: the moment the call counts as, in UTC; rules take it from here, never from the clock.
    operation: the permission under which it runs, such as "opportunities:win"; it is the audit entry's action.
    """

    tenant: Tenant
    principal: Principal
    database: Database
    session: AsyncCallSession
    registry: Registry
    now: datetime
    request_id: str = ""
    operation: str = ""
    ip: str = ""
    reason: str = ""
    batch_id: UUID | None = None
    is_live: bool = True
    numbers: dict[str, list[int]] = field(default_factory=dict)
    derived: dict[Derive, set[UUID]] = field(default_factory=dict)
    _deferred: bool = False

    @property
    def today(self) -> date:
        """Return the tenant's calendar date of `now`."""
        return self.now.astimezone(ZoneInfo(self.tenant.timezone)).date()

    @property
    def member_id(self) -> UUID | None:
        """Return the calling person, None for a service key or the system."""
        return self.principal.member_id

    def emit(self, name: str, **payload: Any) -> None:
        """Record that something happened, in past tense ("crm.opportunity_won"), for subscribers; sent after commit."""
        actor = self.principal.subject_id
        self.session.add(OutboxEvent(name=name, payload=payload, created_at=self.now, request_id=self.request_id, actor_id=actor))

    async def flush(self) -> None:
        """Send pending writes; a no-op inside `deferred()`.

        Raises StaleVersion, Conflict (duplicate) or ReferenceNotFound in place of the database's own errors.
        """
        if not self._deferred:
            with write_failures():
                await self.session.flush()
                while self.derived:
                    # First named, first locked: the same order in every call.
                    run = next(iter(self.derived))
                    await run(self, self.derived.pop(run))

    @property
    def moment(self) -> Moment:
        """Return under what a row changed now is changed."""
        return Moment(self.now, self.operation, self.principal)

    def note_changes(self) -> None:
        """Keep the moment of the rows the ending operation has changed, while writes are collected."""
        if self._deferred:
            moments, moment = self.session.sync_session.moments, self.moment
            for row in self.session.dirty:
                moments.setdefault(inspect(row), moment)

    def derive(self, run: Derive, row_id: UUID) -> None:
        """Have `run` recompute what is derived from other rows, once for all rows named, right after the next flush.

        It sees what the flush has written, and writes with statements of its own.
        """
        self.derived.setdefault(run, set()).add(row_id)

    @asynccontextmanager
    async def deferred(self) -> AsyncIterator[None]:
        """Collect the writes of many operations and send them once at the end (imports, seeds)."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        await self.flush()

    @property
    def is_deferred(self) -> bool:
        """Return whether writes are being collected."""
        return self._deferred

    def tick(self) -> None:
        """Let a call of the present count from now on; after waiting for a lock, it comes after whoever held it."""
        if self.is_live:
            self.now = clock.utc_now()

    @contextmanager
    def at(self, now: datetime) -> Iterator[None]:
        """Let the enclosed operations count as having happened at another moment (imports of dated history)."""
        before, self.now, self.is_live = (self.now, self.is_live), now, False
        try:
            yield
        finally:
            self.now, self.is_live = before

    async def load(self, model: type[_Row], row_id: UUID, *, lock: bool = False) -> _Row:
        """Return a row of this tenant, archived ones included.

        lock: hold it until the transaction ends.  Raises NotFound, also for a row of another tenant.
        """
        row = await self.find(model, row_id, lock=lock)
        if row is None:
            raise NotFound
        return row

    async def find(self, model: type[_Row], row_id: UUID, *, lock: bool = False) -> _Row | None:
        """Return a row of this tenant, or None. Rows this call has loaded or added already cost no statement."""
        known = self.session.sync_session.known_row(model, row_id)
        if known is not None and (self._deferred or not lock):
            return known
        statement = select(model).where(model.id == row_id)
        if lock:
            await self.flush()
            statement = statement.with_for_update().execution_options(populate_existing=True)
        return (await self.session.scalars(statement)).one_or_none()

    async def reference(self, model: type[_Row], row_id: UUID | None, field: str) -> _Row | None:
        """Return the row an input field names; None for None.

        Raises ReferenceNotFound, naming the field, for an unknown or foreign id and for an archived row.
        """
        if row_id is None:
            return None
        row = await self.find(model, row_id)
        if row is None or getattr(row, "archived_at", None) is not None:
            raise ReferenceNotFound(field)
        return row


@asynccontextmanager
async def open_call(
    database: Database, registry: Registry, tenant: Tenant, principal: Principal, **about: Any
) -> AsyncIterator[Call]:
    """Open the transaction of one call; it commits when the block ends and rolls back on any error.

    about: request_id, ip, reason, now.
    """
    about.setdefault("is_live", "now" not in about)
    about.setdefault("now", clock.utc_now())
    # Deferred constraints speak up at the commit, so the whole transaction is answered for.
    with tenant_scope(tenant), write_failures():
        async with database.tenant(tenant) as session:
            call = Call(tenant=tenant, principal=principal, database=database, session=session, registry=registry, **about)
            session.sync_session.info["call"] = call
            yield call
            await call.flush()

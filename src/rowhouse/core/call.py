"""One operation call: who, for which tenant, when, and the transaction it runs in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import inspect, select

from partywall import Tenant, TenantMismatch, TenantScoped, get_tenant_id, tenant_scope
from rowhouse import clock
from rowhouse.core.db import AsyncCallSession, Database, write_failures
from rowhouse.core.errors import NotFound, ReferenceNotFound
from rowhouse.core.events import OutboxEvent
from rowhouse.core.permissions import Principal
from rowhouse.core.resource import Registry
from rowhouse.core.together import may_wait, send
from rowhouse.exchange import Ask, Line, Statement, ask_of, in_session, lines_of, makers_of, over_pipeline, rows_of
from rowhouse.pipeline import Pipeline

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
    registry: Registry
    now: datetime
    request_id: str = ""
    operation: str = ""
    ip: str = ""
    reason: str = ""
    batch_id: UUID | None = None
    is_live: bool = True
    may_be_stale: bool = False
    is_single: bool = False
    numbers: dict[str, list[int]] = field(default_factory=dict)
    derived: dict[Derive, set[UUID]] = field(default_factory=dict)
    _deferred: bool = False
    _session: AsyncCallSession | None = None

    @property
    def session(self) -> AsyncCallSession:
        """Return the transaction of this call; it begins with the first statement."""
        if self._session is None:
            self._session = AsyncCallSession(self.database.app, tenant=self.tenant)
            self._session.sync_session.info["call"] = self
        return self._session

    async def read(self, *asks: Ask) -> list[list[Line]]:
        """Return the lines of each ask: in one exchange, or through the transaction once this call has one."""
        if await self._is_writing():
            return [await in_session(self.session, ask) for ask in asks]
        return [lines_of(result) for result in await over_pipeline(self._reading(), self._own_tenant(), asks)]

    async def fetch(self, *statements: Statement) -> list[Sequence[Any]]:
        """Return the rows of each SELECT, all together as `read` does; each row a tuple of Python values.

        A mapped class stands in its row as one value, to be read only.
        """
        if await self._is_writing():
            return [(await self.session.execute(statement)).all() for statement in statements]
        asks = [ask_of(statement) for statement in statements]
        results = await over_pipeline(self._reading(), self._own_tenant(), asks)
        return [rows_of(result, makers_of(statement)) for result, statement in zip(results, statements, strict=True)]

    async def rows(self, statement: Statement) -> Sequence[Any]:
        """Return the rows of one SELECT, as `fetch` does."""
        return (await self.fetch(statement))[0]

    async def _is_writing(self) -> bool:
        """Return whether this call has a transaction; what waited to be sent with its commit is sent before."""
        session = self._session.sync_session if self._session is not None else None
        if session is None or not (session.has_begun or session.new or session.dirty or session.deleted):
            return False
        if self.is_single and not session.has_begun:
            self.is_single = False
            await self.flush()
        return True

    def _reading(self) -> Pipeline:
        replica = self.database.replica
        return replica if replica is not None and self.may_be_stale else self.database.reads

    def _own_tenant(self) -> UUID:
        if get_tenant_id() != self.tenant.id:
            raise TenantMismatch(f"call of tenant {self.tenant.id} used in a scope of tenant {get_tenant_id()}")
        return self.tenant.id

    async def close(self, *, commit: bool) -> None:
        """End the transaction, if there is one; new rows that could wait are sent with its commit."""
        if self._session is None:
            return
        try:
            if not commit:
                await self._session.rollback()
            elif not (self._may_wait() and await send(self.database, self._session.sync_session)):
                self.is_single = False
                await self.flush()
                await self._session.commit()
        finally:
            await self._session.close()

    def _may_wait(self) -> bool:
        return self.is_single and self._session is not None and not self.derived and may_wait(self._session.sync_session)

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
        if not self._deferred and self._session is not None and not self._may_wait():
            with write_failures():
                await self._session.flush()
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


def open_call(
    database: Database, registry: Registry, tenant: Tenant, principal: Principal, **about: Any
) -> AbstractAsyncContextManager[Call]:
    """Open the transaction of one call; it commits when the block ends and rolls back on any error.

    about: request_id, ip, reason, now, may_be_stale, is_single (the block does one operation, so that what it adds may be
    sent with the commit).
    """
    about.setdefault("is_live", "now" not in about)
    about.setdefault("now", clock.utc_now())
    return _Opened(Call(tenant=tenant, principal=principal, database=database, registry=registry, **about))


class _Opened(AbstractAsyncContextManager[Call]):
    """A call while its block runs. A class, since a generator costs more than the rest of opening it."""

    __slots__ = ("_call", "_scope")

    def __init__(self, call: Call) -> None:
        self._call, self._scope = call, tenant_scope(call.tenant)

    async def __aenter__(self) -> Call:
        self._scope.__enter__()
        return self._call

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            # Deferred constraints speak up at the commit, so the whole transaction is answered for.
            with write_failures():
                await self._end(error)
        finally:
            self._scope.__exit__(None, None, None)

    async def _end(self, error: Any) -> None:
        try:
            if error is not None:
                raise error
            await self._call.flush()
        except BaseException:
            await self._call.close(commit=False)
            raise
        await self._call.close(commit=True)

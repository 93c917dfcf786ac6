"""Transactions in one exchange with the database: BEGIN, SET LOCAL, the statements, COMMIT are sent and answered together.

Each is bound to one tenant, and READ ONLY unless it says that it writes; the values of a result stay bytes. What is sent,
and for whom, is decided above: this file knows connections and the protocol alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, Error, OperationalError
from psycopg.conninfo import make_conninfo
from psycopg.errors import QueryCanceled, error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from partywall.errors import NoTenant, UnsafeRole
from partywall.rls import set_tenant_sql

# More shapes than this on one connection come from somebody trying them out: the connection is replaced, its memory freed.
_MOST_PREPARED = 400
_PATIENCE_S = 60.0
_SWEEP_S = 5.0
# A connection that broke before it answered, and a server that ends its connections.
_GONE = frozenset({None, "57P01", "57P02", "57P03"})


@dataclass(frozen=True, slots=True)
class Read:
    """One statement with numbered parameters. name: the same for the same text, empty to have it planned anew.

    values: in PostgreSQL's text form, None for NULL.
    """

    text: bytes
    name: bytes
    values: tuple[bytes | None, ...]


_BEGIN, _BEGIN_READ, _COMMIT = (Read(text, text, ()) for text in (b"BEGIN", b"BEGIN READ ONLY", b"COMMIT"))


class Pipeline:
    """A pool of connections of one role that read, one exchange at a time on each.

    conninfo: a libpq connection string.  role: who it must lead to.  size: most connections.
    of_tenants: each exchange is bound to a tenant; otherwise none is.
    prepare: keep plans on the connection; False behind a pooler that hands connections from transaction to transaction.
    wait_s: how long to wait for a free connection.  watchers: told each statement that is sent, for checks and counts.
    """

    def __init__(
        self, conninfo: str, *, role: str, size: int, prepare: bool = True, of_tenants: bool = True, wait_s: float = 10.0
    ) -> None:
        self.conninfo, self.role, self.size, self.prepare, self.wait_s = conninfo, role, size, prepare, wait_s
        self.of_tenants = of_tenants
        self.watchers: list[Callable[[str], None]] = []
        self._free: list[_Link] = []
        self._all: set[_Link] = set()
        self._opening = 0
        self._is_closed = False
        self._waiting: deque[asyncio.Future[_Link | None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    async def run(self, tenant_id: UUID | None, reads: Sequence[Read], *, writes: bool = False) -> list[PGresult]:
        """Return the result of each SELECT, read in one transaction of the tenant.

        A connection that turns out to be gone is replaced once; not when the statements write, since they may have
        been committed.  Raises NoTenant without a tenant where one is needed,
        sqlalchemy's DBAPIError, by class and sqlstate as the ORM would, and its TimeoutError when no connection
        becomes free.
        """
        if (tenant_id is not None) != self.of_tenants:
            raise NoTenant(f"role {self.role} reads {'for a tenant' if self.of_tenants else 'for no tenant'}")
        bind = set_tenant_sql(tenant_id).encode() if tenant_id is not None else b""
        for watch in self.watchers:
            for text in (*([bind] if bind else []), *(read.text for read in reads)):
                watch(text.decode())
        begin = _BEGIN if writes else _BEGIN_READ
        for is_last in (writes, True):
            link = await self._take()
            try:
                return await link.exchange(begin, bind, reads)
            except Error as error:
                if is_last or error.sqlstate not in _GONE:
                    # The values of the statement are not part of the error.
                    raise DBAPIError.instance("exchange", {}, error, Error, hide_parameters=True) from error
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Close every connection; who waits is refused."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for link in list(self._all):
            link.lose(OperationalError("the pool is closed"))

    async def _take(self) -> _Link:
        while not self._is_closed:
            if self._free:
                return self._free.pop()
            if len(self._all) + self._opening < self.size:
                return await self._open()
            link = await self._turn()
            if link is not None:
                return link
        raise PoolTimeout("the pool is closed")

    async def _turn(self) -> _Link | None:
        """Wait for a link, in the order of coming; None when there is room for a new one."""
        turn: asyncio.Future[_Link | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self.wait_s):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._hand(turn.result())
            if isinstance(error, TimeoutError):
                raise PoolTimeout(f"no connection became free in {self.wait_s} s") from error
            raise

    def _hand(self, link: _Link | None) -> None:
        """Give a link, or the room for one, to whoever has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(link)
                return
        if link is not None:
            self._free.append(link)

    async def _open(self) -> _Link:
        self._opening += 1
        try:
            async with asyncio.timeout(self.wait_s):
                connection = await AsyncConnection.connect(self.conninfo, autocommit=True, prepare_threshold=None)
        except BaseException as error:
            self._opening -= 1
            self._hand(None)
            if isinstance(error, TimeoutError):
                raise PoolTimeout(f"no connection was made in {self.wait_s} s") from error
            if isinstance(error, Error):
                raise DBAPIError.instance("connect", {}, error, Error, hide_parameters=True) from error
            raise
        self._opening -= 1
        if len(self._all) + self._opening < self.size - 1:
            self._hand(None)
        try:
            check_session(connection.pgconn, self.role)
        except UnsafeRole:
            await connection.close()
            self._hand(None)
            raise
        link = _Link(connection, self)
        self._all.add(link)
        if self._sweeper is None:
            self._sweeper = link.loop.call_later(_SWEEP_S, self._sweep)
        return link

    def give_back(self, link: _Link) -> None:
        """Take back a link whose exchange has ended."""
        if len(link.prepared) > _MOST_PREPARED:
            link.lose(OperationalError("replaced"))
        else:
            self._hand(link)

    def forget(self, link: _Link) -> None:
        """Drop a link whose connection is gone."""
        self._all.discard(link)
        if link in self._free:
            self._free.remove(link)
        self._hand(None)

    def _sweep(self) -> None:
        # The server ends long statements itself; this is for a server that no longer answers at all.
        loop = asyncio.get_running_loop()
        for link in list(self._all):
            if link.waiter is not None and loop.time() - link.since > _PATIENCE_S:
                link.lose(QueryCanceled("the database does not answer"))
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)


class _Link:
    """One connection, for ever in pipeline mode. It goes back to its pool by itself when an exchange has ended."""

    __slots__ = ("connection", "fresh", "is_lost", "loop", "pgconn", "pool", "prepared", "results", "since", "socket", "waiter")

    def __init__(self, connection: AsyncConnection, pool: Pipeline) -> None:
        self.connection, self.pool = connection, pool
        self.pgconn: PGconn = connection.pgconn
        self.pgconn.nonblocking = 1
        self.pgconn.enter_pipeline_mode()
        self.prepared: set[bytes] = set()
        # Whether something was to be prepared in the exchange under way.
        self.fresh = False
        self.results: list[PGresult] = []
        self.waiter: asyncio.Future[list[PGresult]] | None = None
        self.since = 0.0
        self.is_lost = False
        self.loop = asyncio.get_running_loop()
        self.socket = self.pgconn.socket
        self.loop.add_reader(self.socket, self._readable)

    def exchange(self, begin: Read, bind: bytes, reads: Sequence[Read]) -> asyncio.Future[list[PGresult]]:
        """Send a transaction and return the future of its SELECTs' results. A caller that leaves does not stop it."""
        self.waiter = waiter = self.loop.create_future()
        self.since, self.fresh = self.loop.time(), False
        send = self.pgconn
        try:
            self._send(begin)
            if bind:
                # Its value is part of its text, so there would be a plan for each tenant.
                send.send_query_params(bind, None)
            for read in reads:
                self._send(read)
            self._send(_COMMIT)
            send.pipeline_sync()
            self._flush()
        except Error as error:
            self.lose(error)
        return waiter

    def _send(self, read: Read) -> None:
        if not (self.pool.prepare and read.name):
            self.pgconn.send_query_params(read.text, read.values)
            return
        if read.name not in self.prepared:
            self.pgconn.send_prepare(read.name, read.text)
            self.prepared.add(read.name)
            self.fresh = True
        self.pgconn.send_query_prepared(read.name, read.values)

    def lose(self, error: Error) -> None:
        """Close the connection; an exchange under way fails."""
        if self.is_lost:
            return
        self.is_lost = True
        self.loop.remove_reader(self.socket)
        self.loop.remove_writer(self.socket)
        self.pgconn.finish()
        self.pool.forget(self)
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _flush(self) -> None:
        if self.pgconn.flush():
            self.loop.add_writer(self.socket, self._writable)

    def _writable(self) -> None:
        try:
            if not self.pgconn.flush():
                self.loop.remove_writer(self.socket)
        except Error as error:
            self.lose(error)

    def _readable(self) -> None:
        receive = self.pgconn
        try:
            receive.consume_input()
            while self.waiter is not None and not receive.is_busy():
                result = receive.get_result()
                if result is None:
                    if receive.status == ConnStatus.BAD:
                        # libpq answers nothing for ever once it has lost its place in the stream.
                        raise OperationalError("the connection broke")
                    continue
                if result.status == ExecStatus.PIPELINE_SYNC:
                    self._end()
                else:
                    self.results.append(result)
        except Error as error:
            self.lose(error)

    def _end(self) -> None:
        results, self.results = self.results, []
        failed, waiter = None, self.waiter
        tables: list[PGresult] = []
        for result in results:
            if result.status == ExecStatus.TUPLES_OK:
                tables.append(result)
            elif result.status == ExecStatus.FATAL_ERROR:
                failed = failed or result
        assert waiter is not None
        if not waiter.done():
            if failed is not None:
                waiter.set_exception(error_from_result(failed))
            else:
                waiter.set_result(tables)
        self.waiter = None
        if failed is None:
            self.pool.give_back(self)
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        if self.fresh:
            # Whether the statement was prepared before the fault or not is not worth finding out.
            self.lose(OperationalError("replaced after a failed statement"))
            return
        self.waiter = self.loop.create_future()
        # Nobody waits for it; the link goes back to its pool when it is done.
        self.waiter.cancel()
        try:
            self.pgconn.send_query_params(b"ROLLBACK", None)
            self.pgconn.pipeline_sync()
            self._flush()
        except Error as error:
            self.lose(error)


def check_session(pgconn: PGconn, role: str) -> None:
    """Raise UnsafeRole unless a connection is of the bound role and speaks of time in UTC."""
    user, is_superuser = pgconn.parameter_status(b"session_authorization"), pgconn.parameter_status(b"is_superuser")
    if user != role.encode() or is_superuser != b"off":
        raise UnsafeRole(f"reads are to be made as {role}, not as {(user or b'?').decode()}; look at the database's address")
    if pgconn.parameter_status(b"TimeZone") != b"UTC":
        raise UnsafeRole(f"role {role} does not speak UTC; run: rowhouse migrate")


def conninfo_of(url: str) -> str:
    """Return an address as libpq reads it; the two write spaces differently."""
    address = make_url(url)
    named: dict[str, Any] = {**address.translate_connect_args(username="user", database="dbname"), **address.query}
    return make_conninfo("", **named)

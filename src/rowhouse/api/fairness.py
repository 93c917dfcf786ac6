"""Fair shares of one process: how many requests of a tenant run at once, wait, and come in a minute.

Inside the tenant middleware and around the routes, so a share belongs to a workspace whose member is asking. Whoever is
no member (log-in, health) has places of its own, shared by network: tenants cannot starve log-ins, nor the reverse.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect

from partywall.resolve import Resolution
from rowhouse.api.problems import answer, failed
from rowhouse.api.rates import Rate, RateReached
from rowhouse.api.system import REFUSED, WAITED
from rowhouse.core.errors import RowhouseError, TooLarge, TooMany
from rowhouse.identity.throttle import network_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_WITH_BODY = frozenset({"POST", "PATCH", "PUT"})
# A neighbour counts as active for this long after its last request; a person reads a page meanwhile.
_NEIGHBOUR_S = 10.0
# What runs longer waits for the database or for somebody outside: it no longer takes the processor from others.
_YOUNG_S = 0.25
_CROWDED = 1
# Requests that wait for this long without a gap are a flood, which takes half of the time at most; a page's are over sooner.
_FLOOD_S, _MOST_REST_S = 1.0, 0.05
_BODY_LIMIT_S = 30.0
_HOLD_S, _MOST_HELD = 1.0, 2_000
_BUSY = "This workspace has too many requests waiting; send fewer at once, and this one again shortly."
_SLOW = "The body came too slowly; send it again over a better connection, or in smaller parts."


class BodyTooSlow(RowhouseError):
    """The body of a request did not arrive in time."""

    status, code = 408, "body_too_slow"


class Group:
    """The requests of one tenant, or of one network of strangers.

    started: when each running request started, in seconds.  reading: requests whose body is still on its way.
    """

    __slots__ = ("key", "reading", "rests_until", "started", "waiting", "waits_since")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.started: list[float] = []
        self.waiting: deque[asyncio.Future[float]] = deque()
        self.reading = 0
        self.waits_since, self.rests_until = float("inf"), float("-inf")


class Slots:
    """Places for running requests, given to groups in turn. It belongs to one event loop and takes no lock.

    A group holds at most `share` of the places. While another group is active it also starts no request as long as one
    of its own is younger than 0.25 s, so that a flood leaves the processor to the others.
    queue: most waiting requests of a group.  wait_s: how long one waits.  clock: seconds, for tests.
    """

    def __init__(
        self,
        size: int,
        *,
        share: float = 0.5,
        queue: int = 64,
        wait_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size, self.queue, self.wait_s, self._now = size, queue, wait_s, clock
        self.most = max(1, int(share * size))
        self.running = 0
        self._groups: dict[Hashable, Group] = {}
        # Groups with waiting requests, the next one to be served first.
        self._turns: deque[Group] = deque()
        # When the last request came, of whom, and when the last one came of anybody else.
        self._latest: Hashable = None
        self._latest_at = self._other_at = float("-inf")
        self._clock: asyncio.TimerHandle | None = None

    def group(self, key: Hashable) -> Group:
        """Return the group of a key; it is forgotten when nothing of it runs or waits."""
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = Group(key)
        return found

    def enter(self, group: Group) -> float | None:
        """Take a place if one is free for the group and return its mark for `leave`, else None."""
        now = self._now()
        if group.key != self._latest:
            self._other_at, self._latest = self._latest_at, group.key
        self._latest_at = now
        if group.waiting or not self._is_free(group, now):
            return None
        self.running += 1
        group.started.append(now)
        return now

    async def wait(self, group: Group) -> float:
        """Wait for a place, first come first served within the group, and return its mark.

        Raises TooMany when too many wait already, or when the time is over.
        """
        if len(group.waiting) >= self.queue:
            raise TooMany(_BUSY, retry_after_s=1)
        place: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        if not group.waiting:
            self._turns.append(group)
            group.waits_since = self._now()
        group.waiting.append(place)
        self._look_again()
        try:
            async with asyncio.timeout(self.wait_s):
                return await place
        except BaseException as error:
            self._give_up(group, place)
            if isinstance(error, TimeoutError):
                raise TooMany(_BUSY, retry_after_s=max(1, round(self.wait_s))) from error
            raise

    def leave(self, group: Group, mark: float) -> None:
        """Give a place back and let the next one in."""
        self.running -= 1
        group.started.remove(mark)
        if group.waiting:
            self._let_rest(group, mark)
        if self._turns:
            self._serve()
        self.forget(group)

    def forget(self, group: Group) -> None:
        """Drop a group that has nothing to do with anybody any more, so that the memory stays bounded."""
        if not (group.started or group.waiting or group.reading) and self._groups.get(group.key) is group:
            del self._groups[group.key]

    def _let_rest(self, group: Group, mark: float) -> None:
        """Let a flood, which has made its own requests wait for a while, pause for as long as the request took that ended."""
        now = self._now()
        if now - group.waits_since > _FLOOD_S:
            pause = min(now - mark, _MOST_REST_S)
            group.rests_until = now + pause
            asyncio.get_running_loop().call_later(pause + 0.001, self._serve)

    def _is_free(self, group: Group, now: float) -> bool:
        held = len(group.started)
        if self.running >= self.size or held >= self.most:
            return False
        if now - (self._other_at if group.key == self._latest else self._latest_at) > _NEIGHBOUR_S:
            return True
        if now < group.rests_until:
            return False
        return held < _CROWDED or sum(now - mark < _YOUNG_S for mark in group.started) < _CROWDED

    def _look_again(self) -> None:
        # Requests grow older and neighbours leave without anybody's doing, so whoever waits is looked at now and then.
        if self._clock is None and self._turns:
            self._clock = asyncio.get_running_loop().call_later(_YOUNG_S, self._tick)

    def _tick(self) -> None:
        self._clock = None
        self._serve()
        self._look_again()

    def _serve(self) -> None:
        """Give what is free to the groups that wait, one place at a time and each group in its turn."""
        now, passed = self._now(), 0
        while self._turns and passed < len(self._turns) and self.running < self.size:
            group = self._turns.popleft()
            if not group.waiting:
                continue
            if not self._is_free(group, now):
                self._turns.append(group)
                passed += 1
                continue
            place = group.waiting.popleft()
            if group.waiting:
                self._turns.append(group)
            else:
                group.waits_since = float("inf")
            if not place.done():
                self.running += 1
                group.started.append(now)
                place.set_result(now)
            passed = 0

    def _give_up(self, group: Group, place: asyncio.Future[float]) -> None:
        if place.done() and not place.cancelled():
            # It was given in the very moment the waiting ended.
            self.leave(group, place.result())
            return
        if place in group.waiting:
            group.waiting.remove(place)
        if not group.waiting and group in self._turns:
            self._turns.remove(group)
            group.waits_since = float("inf")
        self.forget(group)


class Fairness:
    """Pure ASGI: lets each request run when its group may, and refuses what is too much with 429.

    slots: requests of members at once; strangers have a quarter of it beside.  tenant_rate, caller_rate: per minute in
    this process, 0 for no limit.  A body is received before a place is taken, so a slow sender holds none, and a
    streamed answer gives its place back with its first piece, so a slow reader holds none either.
    """

    def __init__(
        self,
        app: Any,
        *,
        slots: int,
        share: float = 0.5,
        tenant_rate: int = 0,
        caller_rate: int = 0,
    ) -> None:
        self.app = app
        self.members = Slots(slots, share=share)
        self.strangers = Slots(max(2, slots // 4), share=0.5)
        self.tenant_rate, self.caller_rate = Rate("tenant", tenant_rate), Rate("caller", caller_rate)
        self.body_limit_s, self.hold_s = _BODY_LIMIT_S, _HOLD_S
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        resolution: Resolution | None = scope.get("partywall")
        is_member = resolution is not None and resolution.member is not None
        slots = self.members if is_member else self.strangers
        group = slots.group(_key(scope, resolution))
        try:
            self._count(resolution)
            if scope["method"] in _WITH_BODY:
                receive = await self._received(slots, group, receive)
            mark = slots.enter(group)
            if mark is None:
                WAITED.labels("member" if is_member else "stranger").inc()
                mark = await slots.wait(group)
        except (RowhouseError, _Left) as error:
            slots.forget(group)
            if isinstance(error, TooMany):
                await self._hold()
            await _refuse(error, scope, send)
            return
        except BaseException:
            slots.forget(group)
            raise
        await self._run(slots, group, mark, (scope, receive, send))

    async def _run(self, slots: Slots, group: Group, mark: float, request: tuple[Scope, Receive, Send]) -> None:
        scope, receive, send = request
        held = True

        def sending(message: Message) -> Awaitable[None]:
            nonlocal held
            if held and message.get("more_body", False):
                held = False
                slots.leave(group, mark)
            return send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            if held:
                slots.leave(group, mark)

    async def _hold(self) -> None:
        """Let who is refused wait for the answer, or one who repeats at once would take the processor by being refused."""
        if self._held >= _MOST_HELD:
            return
        self._held += 1
        try:
            # Not all of them in the same moment: they would come back together too.
            await asyncio.sleep(self.hold_s * (1 + self._held % 16 / 16))
        finally:
            self._held -= 1

    def _count(self, resolution: Resolution | None) -> None:
        if resolution is None or resolution.credential is None:
            return
        # The caller first: what one key sends too much is not counted against its workspace.
        self.caller_rate.count(resolution.credential.credential_id)
        if resolution.member is not None:
            self.tenant_rate.count(resolution.member.tenant_id)

    async def _received(self, slots: Slots, group: Group, receive: Receive) -> Receive:
        """Return a receive channel that has the whole body at hand. Its size is bounded by the edge."""
        if group.reading >= slots.queue:
            raise TooMany(_BUSY, retry_after_s=1)
        group.reading += 1
        try:
            async with asyncio.timeout(self.body_limit_s):
                body = await _whole_body(receive)
        except TimeoutError as error:
            raise BodyTooSlow(_SLOW) from error
        except TooLarge as error:
            # Told by the route that reads it, so that who may not write there is told that first.
            return _raising(error)
        finally:
            group.reading -= 1
        return _replaying(body, receive)


class _Left(Exception):
    """The client went away before its request was complete."""


async def _whole_body(receive: Receive) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return bytes(message.get("body", b""))
    body = bytearray()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)
        message = await receive()
    raise _Left


def _replaying(body: bytes, receive: Receive) -> Receive:
    is_told = False

    async def replay() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _raising(error: TooLarge) -> Receive:
    async def refuse() -> Message:
        raise error

    return refuse


def _key(scope: Scope, resolution: Resolution | None) -> Hashable:
    if resolution is not None and resolution.credential is not None:
        # A person who has not chosen a workspace yet is known all the same.
        return resolution.member.tenant_id if resolution.member is not None else resolution.credential.subject_id
    client = scope.get("client")
    return network_of(client[0]) if client else ""


async def _refuse(error: RowhouseError | _Left, scope: Scope, send: Send) -> None:
    if isinstance(error, _Left):
        found, kind = failed(ClientDisconnect()), "left"
    else:
        found, kind = answer(error), error.kind if isinstance(error, RateReached) else error.code
    REFUSED.labels(kind).inc()
    headers = [*found.raw_headers, *(error.headers() if isinstance(error, RateReached) else ())]
    await send({"type": "http.response.start", "status": found.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else bytes(found.body)})

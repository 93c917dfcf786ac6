"""The outermost layer: request id, one log line, metrics, the body limit."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

import structlog

from partywall import uuid7
from rowhouse.api.problems import failed
from rowhouse.api.system import REQUESTS, SECONDS
from rowhouse.core.errors import TooLarge
from rowhouse.logs import write_request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_TOO_LARGE = "The body is larger than this server accepts; send less, or import a file."
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
# A client that stops reading must not hold a transaction, and with it a connection, for ever.
_SEND_LIMIT_S = 30
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{8,64}$")


class Edge:
    """Pure ASGI: numbers each request, limits its body, logs and counts its answer."""

    def __init__(self, app: Any, *, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["rowhouse.request_id"] = request_id
        scope["rowhouse.seen"] = seen = {"route": "unmatched", "tenant": None}
        structlog.contextvars.bind_contextvars(request_id=request_id, tenant=None)
        answer = _Answer(send, request_id)
        started = time.perf_counter()
        try:
            await self.app(scope, self._limited(scope, receive), answer)
        except Exception as error:
            # What the layers around the routes raise: the look-ups of the resolvers, above all.
            if answer.status:
                raise
            found = failed(error)
            headers = [*found.raw_headers]
            await answer({"type": "http.response.start", "status": found.status_code, "headers": headers})
            await answer({"type": "http.response.body", "body": bytes(found.body)})
        finally:
            _report(scope, seen, answer.status or 500, time.perf_counter() - started)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        too_large = declared.isdigit() and int(declared) > self.max_body_bytes
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            if too_large:
                raise TooLarge(_TOO_LARGE)
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_body_bytes:
                raise TooLarge(_TOO_LARGE)
            return message

        return limited


class _Answer:
    """The send channel, with the request id added to the headers and the status kept."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            extra = [(b"x-request-id", self._request_id.encode()), (b"x-content-type-options", b"nosniff")]
            message["headers"] = [*message.get("headers", []), *extra]
            await self._send(message)
        elif message.get("more_body"):
            await asyncio.wait_for(self._send(message), _SEND_LIMIT_S)
        else:
            await self._send(message)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return given if _REQUEST_ID.match(given) else str(uuid7())


def _report(scope: Scope, seen: MutableMapping[str, Any], status: int, seconds: float) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    answered, lasted = _counters(method, seen["route"], status)
    answered.inc()
    lasted.observe(seconds)
    ms = round(seconds * 1000, 1)
    write_request(method=scope["method"], **seen, status=status, ms=ms, request_id=scope["rowhouse.request_id"])


@lru_cache(4_000)
def _counters(method: str, route: str, status: int) -> tuple[Any, Any]:
    return REQUESTS.labels(method, route, str(status)), SECONDS.labels(method, route)


class Seen:
    """Pure ASGI, inside the tenant middleware: tells the edge which route and workspace the request reached."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = scope.get("rowhouse.seen", {})
        resolution = scope.get("partywall")
        if resolution is not None and resolution.tenant is not None:
            seen["tenant"] = resolution.tenant.slug
            structlog.contextvars.bind_contextvars(tenant=resolution.tenant.slug)
        try:
            await self.app(scope, receive, send)
        finally:
            seen["route"] = getattr(scope.get("route"), "path", "unmatched")

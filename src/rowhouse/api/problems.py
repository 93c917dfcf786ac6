"""RFC 9457 answers: a stable code, the field, the way out; never a value of another record."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic_core import to_json
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from partywall.errors import NoTenant, PartywallError
from rowhouse.core.errors import BadRequest, Conflict, RowhouseError, Unavailable

_log = structlog.get_logger()
MEDIA_TYPE = "application/problem+json"
# A deadlock and a failed serialisation: nothing was changed, and a repetition succeeds.
_TRY_AGAIN = frozenset({"40P01", "40001"})
_LOCKED_OUT, _CANCELLED = "55P03", "57014"
_HTTP_CODES = {404: "no_such_path", 405: "method_not_allowed"}


def body_of(error: RowhouseError) -> dict[str, Any]:
    """Return an error as the members of a problem document."""
    found: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "code": error.code,
        "detail": error.message,
    }
    if error.faults:
        found["errors"] = [{"field": f.field, "code": f.code, "message": f.message} for f in error.faults]
    # A field may be named as the caller wrote it, halves of characters included.
    return {name: _writable(value) for name, value in found.items()}


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [{name: _writable(text) for name, text in item.items()} for item in value]
    return value


def answer(error: RowhouseError) -> Response:
    """Return the response for an error."""
    headers = {"cache-control": "no-store"}
    if error.retry_after_s:
        headers["retry-after"] = str(error.retry_after_s)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Response(to_json(body_of(error)), status_code=error.status, media_type=MEDIA_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Let every error of the application become a problem document."""

    async def answered(_request: Request, error: Exception) -> Response:
        return response_to(error)

    for expected in (RowhouseError, HTTPException, PartywallError, DBAPIError, PoolTimeout, ClientDisconnect, Exception):
        app.add_exception_handler(expected, answered)


def response_to(error: Exception) -> Response:
    """Return the answer to whatever a route raised."""
    if isinstance(error, RowhouseError):
        return answer(error)
    if isinstance(error, HTTPException):
        return _plain(error.status_code, _HTTP_CODES.get(error.status_code, "http_error"), error.headers)
    if isinstance(error, NoTenant):
        return answer(BadRequest("Choose a workspace: use its host, or send X-Tenant-ID.", code="tenant_required"))
    return failed(error)


def failed(error: Exception) -> Response:
    """Return the answer to an error nobody asked for; its text goes to the log alone, since it may hold other records."""
    if isinstance(error, ClientDisconnect):
        return _plain(400, "client_left", None)
    sqlstate = getattr(getattr(error, "orig", error), "sqlstate", "")
    if sqlstate in _TRY_AGAIN:
        return answer(Conflict("Somebody changed the same records; try again.", code="try_again", retry_after_s=1))
    if sqlstate == _LOCKED_OUT:
        return answer(Conflict("Somebody is changing the same records; try again.", code="try_again", retry_after_s=1))
    if sqlstate == _CANCELLED:
        _log.warning("statement_timeout")
        slow = "This took the database too long and was ended; ask for less at once, with a narrower filter."
        return answer(Unavailable(slow, code="too_slow", retry_after_s=5))
    if isinstance(error, PoolTimeout):
        _log.error("database_busy")
        return answer(Unavailable("Too much is going on at once; try again shortly.", code="busy", retry_after_s=5))
    if isinstance(error, OperationalError | InterfaceError):
        _log.error("database_unavailable", error=type(error).__name__)
        return answer(Unavailable("The database is not answering; try again shortly.", retry_after_s=5))
    _log.error("unexpected_error", exc_info=error)
    return _plain(500, "internal_error", None)


def _plain(status: int, code: str, headers: Mapping[str, str] | None) -> Response:
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": title}
    return Response(
        to_json(document), status_code=status, media_type=MEDIA_TYPE, headers={"cache-control": "no-store", **(headers or {})}
    )

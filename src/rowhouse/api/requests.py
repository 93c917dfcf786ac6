"""Reading a request: its caller, its body, its query; and opening the call it runs in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi import Request
from fastapi.responses import Response
from pydantic_core import to_json

from partywall.errors import NoTenant
from partywall.resolve import Resolution
from rowhouse.api.idempotency import Answer, earlier_answer, keep_answer
from rowhouse.core import operations
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database
from rowhouse.core.errors import BadRequest, Forbidden, Invalid, Unauthenticated
from rowhouse.core.permissions import Principal
from rowhouse.core.reads import Query
from rowhouse.core.resource import Registry, Resource
from rowhouse.identity.directory import principal_of
from rowhouse.identity.sessions import csrf_matches
from rowhouse.settings import Settings
from rowhouse.values.cursors import Cursors

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_USUAL = 500
_LIST_WORDS = frozenset({"filter", "q", "sort", "fields", "cursor", "limit", "archived", "total"})


@dataclass(frozen=True, slots=True)
class Api:
    """What every handler needs: the database, the resources, the settings. exports: running now in this process."""

    database: Database
    registry: Registry
    settings: Settings
    cursors: Cursors
    exports: Counter[UUID] = field(default_factory=Counter)


def api_of(request: Request) -> Api:
    """Return the application's own parts."""
    found: Api = request.scope.get("api") or request.app.state.api
    return found


def resolution_of(request: Request) -> Resolution:
    """Return how the request was placed."""
    found: Resolution = request.scope["partywall"]
    return found


def caller_of(request: Request) -> Principal:
    """Return the member behind a request.

    Raises Unauthenticated without a credential, NoTenant when no workspace was chosen, Forbidden when a page's request
    lacks its CSRF token.
    """
    resolution = resolution_of(request)
    if resolution.credential is None:
        raise Unauthenticated("Sign in, or send a key: Authorization: Bearer rh_….")
    check_csrf(request)
    if resolution.tenant is None or resolution.member is None:
        raise NoTenant
    return principal_of(resolution.credential, resolution.member)


def check_csrf(request: Request) -> None:
    """Raise Forbidden when a request that changes something comes with a cookie but without the session's token."""
    credential = resolution_of(request).credential
    if credential is None or credential.kind != "session" or request.method in _SAFE:
        return
    if not csrf_matches(api_of(request).settings, credential, request.headers.get("x-csrf-token", "")):
        raise Forbidden("Send the session's token in X-CSRF-Token; GET /api/v1/session returns it.", code="csrf_failed")


def tenant_call(request: Request, *, is_single: bool = False) -> AbstractAsyncContextManager[Call]:
    """Open the call a request runs in. is_single: it does one operation, and its answer is made after the commit."""
    api, principal = api_of(request), caller_of(request)
    tenant = resolution_of(request).tenant
    assert tenant is not None
    about = {
        "request_id": request.scope.get("rowhouse.request_id", ""),
        "ip": request.client.host if request.client else "",
        "is_single": is_single,
        "may_be_stale": api.database.replica is not None and _accepts_stale(request),
    }
    return open_call(api.database, api.registry, tenant, principal, **about)


def _accepts_stale(request: Request) -> bool:
    preferences = request.headers.get("prefer", "").lower().split(",")
    return request.method in _SAFE and "eventual" in {preference.strip() for preference in preferences}


async def read_body(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request's body; an empty body is an empty object.

    Raises BadRequest for anything that is not one JSON object in UTF-8.
    """
    raw = await request.body()
    if not raw:
        return {}
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise BadRequest("Send JSON with Content-Type: application/json.", code="not_json")
    try:
        body = json.loads(raw, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is not valid JSON in UTF-8.", code="broken_json") from error
    if b"\\ud" in raw.lower() and _has_surrogate(body):
        raise BadRequest("The body is not valid JSON in UTF-8.", code="broken_json")
    if not isinstance(body, dict):
        raise BadRequest("The body must be one JSON object.", code="not_an_object")
    return body


def _has_surrogate(value: Any) -> bool:
    """Return whether a text holds half of a character, which no column and no log can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def row_id_of(request: Request, name: str = "id") -> UUID:
    """Return the id in the path.  Raises Invalid for what is not a UUID."""
    text = request.path_params[name]
    try:
        if len(text) != 36:
            raise ValueError("not in the usual form")
        return UUID(text)
    except ValueError as error:
        raise Invalid("An id is a UUID, 8-4-4-4-12 hexadecimal digits.", code="invalid_value", field=name) from error


def version_of(request: Request) -> int | None:
    """Return the version of If-Match, or None.  Raises Invalid for what is not one of our versions."""
    text = request.headers.get("if-match")
    if text is None or text.strip() == "*":
        return None
    number = text.strip().removeprefix("W/").strip('"')
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise Invalid('If-Match takes the version of the record, such as "3".', code="invalid_value", field="If-Match")
    return int(number)


def plain_params(request: Request, allowed: frozenset[str]) -> dict[str, str]:
    """Return the query parameters, each at most once.  Raises Invalid for one that is not allowed."""
    found: dict[str, str] = {}
    for name, value in _pairs(request.scope["query_string"]):
        if name not in allowed:
            raise Invalid(f"There is no parameter {name[:100]} here.", code="unknown_field", field=name[:100])
        if name in found:
            raise Invalid(f"{name} may be sent once.", code="invalid_value", field=name)
        if "\0" in value:
            raise Invalid("Remove the NUL character.", code="invalid_value", field=name)
        found[name] = value
    return found


def list_query(request: Request, *, parent_id: UUID | None = None) -> Query:
    """Return the list query of a request; any other parameter is a comparison: `name=value` or `name.operator=value`."""
    text = request.scope["query_string"]
    # Pages are asked for in few forms, many times; a long question is nobody else's.
    return _asked(text, parent_id) if len(text) <= _USUAL else _asked.__wrapped__(text, parent_id)


@lru_cache(1_000)
def _asked(query_string: bytes, parent_id: UUID | None) -> Query:
    words: dict[str, str] = {}
    params: list[tuple[str, str, str]] = []
    for name, value in _pairs(query_string):
        if "\0" in value:
            raise Invalid("Remove the NUL character.", code="invalid_value", field=name[:100])
        if name in _LIST_WORDS:
            if name in words:
                raise Invalid(f"{name} may be sent once.", code="invalid_value", field=name)
            words[name] = value
        else:
            field, _, operator = name.partition(".")
            params.append((field, operator or "eq", value))
    archived = words.get("archived", "exclude")
    if archived not in ("exclude", "only", "all"):
        raise Invalid("archived is exclude, only or all.", code="invalid_value", field="archived")
    return Query(
        filter=_filter(words["filter"]) if "filter" in words else None,
        params=tuple(params),
        q=words.get("q", ""),
        sort=_names(words.get("sort", "")),
        fields=_names(words.get("fields", "")),
        cursor=words.get("cursor", ""),
        limit=_limit(words.get("limit", "50")),
        archived=archived,  # type: ignore[arg-type]  # checked above
        parent_id=parent_id,
        total=_flag(words.get("total", "false"), "total"),
    )


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    return parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)


def _filter(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Invalid("filter is a JSON object.", code="invalid_value", field="filter") from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        raise Invalid("limit is a whole number.", code="invalid_value", field="limit")
    return int(text)


def _flag(text: str, name: str) -> bool:
    if text not in ("true", "false"):
        raise Invalid(f"{name} is true or false.", code="invalid_value", field=name)
    return text == "true"


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response, private to its caller."""
    return raw_answer(to_json(value), status, headers)


def raw_answer(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response of JSON that is made already, private to its caller."""
    found = {"cache-control": "private, no-store", **(headers or {})}
    return Response(body, status_code=status, media_type="application/json", headers=found)


async def once(request: Request, call: Call, body: Mapping[str, Any], *, needs: tuple[Resource, str], run: Any) -> Response:
    """Run a POST's work, or repeat the answer it got before when the caller sent the same Idempotency-Key.

    needs: the resource and verb whose permission is asked before anything is repeated.
    """
    operations.require(call, *needs)
    key = request.headers.get("idempotency-key")
    if key is None:
        answer: Response = await run()
        return answer
    asked = to_json([request.method, request.url.path, sorted(_pairs(request.scope["query_string"])), body])
    earlier = await earlier_answer(call, key, asked)
    if earlier is not None:
        headers = dict(line.split(": ", 1) for line in earlier.headers)
        return Response(earlier.body, status_code=earlier.status, headers={**headers, "idempotent-replay": "true"})
    answer = await run()
    lines = tuple(f"{name}: {value}" for name, value in answer.headers.items() if name != "content-length")
    await keep_answer(call, key, asked, Answer(answer.status_code, lines, bytes(answer.body)))
    return answer

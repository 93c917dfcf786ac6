"""The walk along a path finds what FastAPI would find, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from hypothesis import given, settings
from hypothesis import strategies as st

from rowhouse.api.dispatch import Dispatch, Route
from rowhouse.api.routes import build_router, build_routes
from rowhouse.registry import build_registry

pytestmark = pytest.mark.no_database
ROUTES = build_routes(build_registry())
ID = "01a2075a-1a34-7f47-8c91-ea0153ab037c"


def echo(route: Route) -> Route:
    """Return a route that answers with its own name and its parameters."""

    async def handler(request: Request) -> Response:
        return JSONResponse([route.name, request.path_params])

    return Route(route.method, route.path, route.name, handler)


ECHOES = [echo(route) for route in ROUTES]
APP = FastAPI(openapi_url=None, redirect_slashes=False)
APP.state.api = None
APP.include_router(build_router(ECHOES), prefix="/api/v1")
DISPATCH = Dispatch(APP, ECHOES, prefix="/api/v1")


def scope_of(method: str, path: str) -> dict[str, object]:
    return {"type": "http", "method": method, "path": path, "root_path": "", "headers": [], "query_string": b""}


async def answer_of(app: Any, method: str, path: str) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope_of(method, path), receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize("route", ECHOES, ids=lambda route: f"{route.method} {route.path}")
def test_every_generated_route_is_found(route: Route) -> None:
    path = "/api/v1" + route.path.replace("{id}", ID).replace("{parent_id}", ID)
    found = DISPATCH._find(scope_of(route.method, path))
    assert found is not None
    assert found[0] is route
    assert set(found[1]) == {name for name in ("id", "parent_id") if f"{{{name}}}" in route.path}


WORDS = sorted({segment for route in ROUTES for segment in route.path.strip("/").split("/") if not segment.startswith("{")})
PATHS = st.lists(st.sampled_from([*WORDS, ID, "", ".", "..", "é", "{id}"]), max_size=5)


@settings(deadline=None)
@given(method=st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD"]), parts=PATHS)
async def test_the_answer_is_fastapis(method: str, parts: list[str]) -> None:
    path = "/api/v1/" + "/".join(parts)
    assert await answer_of(DISPATCH, method, path) == await answer_of(APP, method, path)

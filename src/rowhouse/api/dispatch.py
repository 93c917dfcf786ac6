"""Finding the handler of a resource's route by walking its path, a segment at a time.

The generated routes are many and FastAPI tries one after the other; here the time does not depend on how many there are.
What is not found, and hand-written routes, go to FastAPI, which knows every route and answers for all the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from rowhouse.api.problems import response_to

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One generated route. path: with its parameters in braces, below the prefix."""

    method: str
    path: str
    name: str
    handler: Handler


@dataclass(slots=True)
class _Node:
    """One place in a path: what may follow by name, what follows any value, and the routes that end here."""

    fixed: dict[str, _Node] = field(default_factory=dict)
    any: _Node | None = None
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)


class Dispatch:
    """Pure ASGI: runs the handler of a generated route; everything else goes to the application behind it."""

    def __init__(self, app: FastAPI, routes: Iterable[Route], *, prefix: str) -> None:
        self.app, self.prefix = app, f"{prefix}/"
        self._root = _Node()
        for route in routes:
            self._add(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._find(scope) if scope["type"] == "http" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        route, parameters = found
        scope.update(route=route, path_params=parameters, app=self.app, router=self.app.router, api=self.app.state.api)
        request = Request(scope, receive, send)
        try:
            answer = await route.handler(request)
        except Exception as error:
            answer = response_to(error)
        await answer(scope, receive, send)

    def _add(self, route: Route) -> None:
        node, names = self._root, []
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                names.append(segment.strip("{}"))
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.fixed.setdefault(segment, _Node())
        node.routes[route.method] = (route, tuple(names))

    def _find(self, scope: Scope) -> tuple[Route, dict[str, str]] | None:
        path: str = scope["path"]
        if not path.startswith(self.prefix):
            return None
        node, values = self._root, []
        for segment in path[len(self.prefix) :].split("/"):
            following = node.fixed.get(segment)
            if following is None:
                if node.any is None or not segment:
                    return None
                values.append(segment)
                following = node.any
            node = following
        found = node.routes.get(scope["method"])
        return (found[0], dict(zip(found[1], values, strict=True))) if found is not None else None

"""The routes of every resource, made by walking the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from pydantic_core import from_json

from rowhouse.api.dispatch import Handler, Route
from rowhouse.api.problems import body_of
from rowhouse.api.requests import (
    api_of,
    json_answer,
    list_query,
    once,
    plain_params,
    raw_answer,
    read_body,
    row_id_of,
    tenant_call,
    version_of,
)
from rowhouse.api.rows import row_as_json
from rowhouse.core import operations
from rowhouse.core.call import Call
from rowhouse.core.errors import Invalid, TooMany
from rowhouse.core.operations import BulkItem
from rowhouse.core.reads import Query, names_of
from rowhouse.core.resource import Action, Kind, Registry, Report, Resource, parent_table
from rowhouse.values.csv_lines import csv_file

# An export holds a connection for as long as its reader takes; all tenants share the pool.
EXPORTS_AT_ONCE = 2
_BULK_VERBS = ("create", "update", "archive", "restore")


def build_routes(registry: Registry) -> list[Route]:
    """Return the routes of all resources, to be mounted under /api/v1; fixed paths stand before {id}."""
    return [route for resource in registry for route in _routes_of(registry, resource)]


def build_router(routes: Sequence[Route]) -> APIRouter:
    """Return generated routes as FastAPI knows them."""
    router = APIRouter(redirect_slashes=False)
    for route in routes:
        router.add_api_route(route.path, route.handler, methods=[route.method], name=route.name, response_model=None)
    return router


def base_path(registry: Registry, resource: Resource) -> str:
    """Return a resource's path below /api/v1; a part's runs through its parent."""
    if resource.parent is None:
        return f"/{resource.name}"
    parent = registry.of_table(parent_table(resource))
    assert parent is not None, f"{resource.name} lives in a table that is no resource"
    return f"/{parent.name}/{{parent_id}}/{resource.name.removeprefix(f'{parent.singular}-')}"


def _routes_of(registry: Registry, resource: Resource) -> Iterator[Route]:
    base = base_path(registry, resource)
    for method, path, verb, make in _VERBS:
        if verb in resource.verbs and (resource.kind is Kind.SETTINGS) == (path is None):
            yield Route(method, f"{base}{path or ''}", f"{resource.name}:{verb}", make(resource))
    for report in resource.reports:
        path = f"/reports/{report.name}" if report.on == "collection" else f"/{{id}}/{report.name}"
        yield Route("GET", f"{base}{path}", f"{resource.name}:{report.name}", _report(resource, report))
    for action in resource.actions:
        path = f"/actions/{action.name}" if action.on == "collection" else f"/{{id}}/{action.name}"
        yield Route("POST", f"{base}{path}", f"{resource.name}:{action.name}", _action(resource, action))


def _list(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            query = list_query(request, parent_id=_parent_id(request, resource))
            page = await operations.list_(call, resource, query, api_of(request).cursors)
        cursor = f'"{page.next_cursor}"' if page.next_cursor else "null"
        total = f',"total":{page.total}' if page.total is not None else ""
        return raw_answer(b'{"items":[%b],"next_cursor":%b%b}' % (b",".join(page.rows), cursor.encode(), total.encode()))

    return handler


def _get(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            row_id, parent_id = row_id_of(request), _parent_id(request, resource)
            text = plain_params(request, frozenset({"fields"})).get("fields", "")
            fields = tuple(part for part in text.split(",") if part)
            row = await operations.get(call, resource, row_id, fields=fields, parent_id=parent_id)
        return raw_answer(row, headers=_etag(from_json(row).get("version")))

    return handler


def _create(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        # The answer that is kept for a key is kept in the same transaction, so it is made before that ends.
        is_kept = "idempotency-key" in request.headers
        async with tenant_call(request, is_single=not is_kept) as call:
            plain_params(request, frozenset())
            body = await read_body(request)

            async def work() -> Response:
                return _created(request, resource, await _added(request, call, resource, body))

            if is_kept:
                return await once(request, call, body, needs=(resource, "create"), run=work)
            row = await _added(request, call, resource, body)
        return _created(request, resource, row)

    return handler


async def _added(request: Request, call: Call, resource: Resource, body: Mapping[str, Any]) -> Any:
    return await operations.create(call, resource, body, parent_id=_parent_id(request, resource))


def _created(request: Request, resource: Resource, row: Any) -> Response:
    place = f"{request.url.path.rstrip('/')}/{row.id}"
    return _row_answer(resource, row, status=201, headers={"location": place})


def _update(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            plain_params(request, frozenset())
            row_id, parent_id, version = row_id_of(request), _parent_id(request, resource), version_of(request)
            body = await read_body(request)
            row = await operations.update(call, resource, row_id, body, version=version, parent_id=parent_id)
            return _row_answer(resource, row)

    return handler


def _delete(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            plain_params(request, frozenset())
            row_id, parent_id, version = row_id_of(request), _parent_id(request, resource), version_of(request)
            await operations.delete(call, resource, row_id, version=version, parent_id=parent_id)
        return Response(status_code=204, headers={"cache-control": "no-store"})

    return handler


def _archive(resource: Resource) -> Handler:
    return _toggle(resource, operations.archive)


def _restore(resource: Resource) -> Handler:
    return _toggle(resource, operations.restore)


def _toggle(resource: Resource, run: Any) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            plain_params(request, frozenset())
            operations.parse(_NOTHING, await read_body(request))
            row = await run(call, resource, row_id_of(request), version=version_of(request))
            return _row_answer(resource, row)

    return handler


def _bulk(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            plain_params(request, frozenset())
            body = await read_body(request)
            verb, items = body.get("verb"), body.get("items")
            if verb not in _BULK_VERBS or not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise Invalid(f"Send a verb ({', '.join(_BULK_VERBS)}) and a list of items.", code="invalid_value", field="verb")
            if set(body) != {"verb", "items"}:
                raise Invalid("Send only verb and items.", code="unknown_field", field="items")

            async def work() -> Response:
                done = await operations.bulk(call, resource, verb, items)
                return json_answer({"items": [_bulk_line(item) for item in done]})

            return await once(request, call, body, needs=(resource, "bulk"), run=work)

    return handler


def _bulk_line(item: BulkItem) -> dict[str, Any]:
    if item.error is None:
        return {"index": item.index, "ok": True, "id": item.id}
    return {"index": item.index, "ok": False, "error": body_of(item.error)}


def _history(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            plain_params(request, frozenset())
            return json_answer({"items": await operations.history(call, resource, row_id_of(request))})

    return handler


def _export(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            # Checked in a call of its own before the first byte, so that a refusal is a proper answer.
            query = list_query(request, parent_id=_parent_id(request, resource))
            await operations.check_export(call, resource, query)
        if api_of(request).exports[call.tenant.id] >= EXPORTS_AT_ONCE:
            raise TooMany("Two exports of this workspace are running; wait for one to end.", retry_after_s=10)
        headers = {
            "content-disposition": f'attachment; filename="{resource.name}.csv"',
            "cache-control": "private, no-store",
        }
        lines = _csv(request, resource, query, tenant_id=call.tenant.id)
        return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)

    return handler


async def _csv(request: Request, resource: Resource, query: Query, *, tenant_id: UUID) -> AsyncIterator[bytes]:
    # Counted here, since a response that is never begun would never be counted down.
    api_of(request).exports[tenant_id] += 1
    try:
        async with tenant_call(request) as call:
            async for line in csv_file(names_of(resource, query), operations.export(call, resource, query)):
                yield line
    finally:
        api_of(request).exports[tenant_id] -= 1


def _settings_get(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            plain_params(request, frozenset())
            return _row_answer(resource, await operations.settings(call, resource))

    return handler


def _settings_update(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            plain_params(request, frozenset())
            body, version = await read_body(request), version_of(request)
            return _row_answer(resource, await operations.change_settings(call, resource, body, version=version))

    return handler


def _recompute(resource: Resource) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            plain_params(request, frozenset())
            rows = await operations.recompute(call, resource, await read_body(request))
            return json_answer({"items": [row_as_json(resource, row) for row in rows]})

    return handler


def _report(resource: Resource, report: Report) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            params = plain_params(request, frozenset(report.params.model_fields))
            row_id = row_id_of(request) if report.on == "row" else None
            found = await operations.report(call, resource, report, params, row_id=row_id)
            return json_answer({"items": found} if report.many else found)

    return handler


def _action(resource: Resource, action: Action) -> Handler:
    async def handler(request: Request) -> Response:
        async with tenant_call(request) as call:
            plain_params(request, frozenset())
            row_id = row_id_of(request) if action.on == "row" else None
            body, version = await read_body(request), version_of(request)

            async def work() -> Response:
                found = await operations.act(call, resource, action, body, row_id=row_id, version=version)
                return _action_answer(call, found)

            if action.reads or action.shown_once:
                return await work()
            return await once(request, call, body, needs=(resource, action.name), run=work)

    return handler


def _action_answer(call: Call, found: Any) -> Response:
    if found is None:
        return Response(status_code=204, headers={"cache-control": "no-store"})
    if isinstance(found, BaseModel):
        return json_answer(found)
    return _row_answer(call.registry.of_model(type(found)), found)


def _row_answer(resource: Resource, row: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    found = {**_etag(getattr(row, "version", None)), **(headers or {})}
    return json_answer(row_as_json(resource, row), status, found)


def _etag(version: Any) -> dict[str, str]:
    return {"etag": f'"{version}"'} if version is not None else {}


def _parent_id(request: Request, resource: Resource) -> Any:
    return row_id_of(request, "parent_id") if resource.parent is not None else None


class _NOTHING(BaseModel):
    """The body of a verb that takes none."""

    model_config = {"extra": "forbid"}


# Method, path below the resource (None: the settings row itself), verb, handler. Fixed paths stand before {id}.
_VERBS: tuple[tuple[str, str | None, str, Callable[[Resource], Handler]], ...] = (
    ("GET", None, "get", _settings_get),
    ("PATCH", None, "update", _settings_update),
    ("GET", "", "list", _list),
    ("POST", "", "create", _create),
    ("GET", "/export", "export", _export),
    ("POST", "/bulk", "bulk", _bulk),
    ("POST", "/recompute", "recompute", _recompute),
    ("GET", "/{id}", "get", _get),
    ("PATCH", "/{id}", "update", _update),
    ("DELETE", "/{id}", "delete", _delete),
    ("POST", "/{id}/archive", "archive", _archive),
    ("POST", "/{id}/restore", "restore", _restore),
    ("GET", "/{id}/history", "history", _history),
)

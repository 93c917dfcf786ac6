"""The OpenAPI 3.1 document of the generated routes, made from the same declarations as the routes themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rowhouse.api.routes import base_path
from rowhouse.core.filters import operators
from rowhouse.core.reads import LARGEST_PAGE
from rowhouse.core.resource import Action, Column, Kind, Registry, Report, Resource
from rowhouse.core.schemas import create_schema, read_schema, update_schema

Document = dict[str, Any]
_REF = "#/components/schemas/{model}"
_REFUSALS = ("400", "401", "403", "404", "409", "413", "422", "423", "429", "503")
_FRAGMENTS: dict[str, Document] = {
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "Stable; act on this."},
            "detail": {"type": "string", "description": "What is wrong and the way out."},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "code", "message"],
                    "properties": {name: {"type": "string"} for name in ("field", "code", "message")},
                },
            },
        },
    },
    "BulkRequest": {
        "type": "object",
        "required": ["verb", "items"],
        "additionalProperties": False,
        "properties": {
            "verb": {"enum": ["create", "update", "archive", "restore"]},
            "items": {"type": "array", "minItems": 1, "maxItems": 500, "items": {"type": "object"}},
        },
    },
    "Bulk": {
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["index", "ok"],
                    "properties": {
                        "index": {"type": "integer"},
                        "ok": {"type": "boolean"},
                        "id": {"type": ["string", "null"], "format": "uuid"},
                        "error": {"$ref": "#/components/schemas/Problem"},
                    },
                },
            }
        },
    },
    "History": {
        "type": "object",
        "required": ["items"],
        "properties": {"items": {"type": "array", "items": {"type": "object"}}},
    },
    "Nothing": {"type": "object", "additionalProperties": False},
}


def complete(registry: Registry, document: Document) -> Document:
    """Return FastAPI's document with the generated routes described."""
    models: set[type[BaseModel]] = set()
    paths: dict[str, Document] = document.setdefault("paths", {})
    for resource in registry:
        for path, method, operation in _operations(registry, resource, models):
            place = paths.setdefault(f"/api/v1{path}", {})
            place[method] = operation
    _, schemas = models_json_schema([(model, "validation") for model in sorted(models, key=_name)], ref_template=_REF)
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update({**_FRAGMENTS, **schemas.get("$defs", {})})
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "A personal or service key: rh_…"},
        "session": {"type": "apiKey", "in": "cookie", "name": "__Host-rowhouse"},
    }
    document["security"] = [{"key": []}, {"session": []}]
    for place in paths.values():
        for operation in place.values():
            operation["responses"] = {**operation["responses"], **_refusals(operation["responses"])}
    return document


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _operations(registry: Registry, resource: Resource, models: set[type[BaseModel]]) -> list[tuple[str, str, Document]]:
    base = base_path(registry, resource)
    row = _use(models, read_schema(resource.name, resource))
    path_ids = [_path_id("parent_id")] if resource.parent is not None else []
    found: list[tuple[str, str, Document]] = []

    def add(path: str, method: str, verb: str, answers: Document, body: Document | None, params: list[Document]) -> None:
        operation: Document = {
            "operationId": f"{resource.name}-{verb}",
            "tags": [resource.group],
            "summary": f"{verb.replace('-', ' ').capitalize()} ({resource.name})",
            "x-permission": str(resource.permission(verb)),
            "parameters": [*path_ids, *([_path_id("id")] if "{id}" in path else []), *params],
            "responses": answers,
        }
        if body is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        found.append((base + path, method, operation))

    for verb in resource.verbs:
        for path, method, answers, body, params in _verb(resource, verb, row, models):
            add(path, method, verb, answers, body, params)
    for action in resource.actions:
        add(*_action(resource, action, row, models))
    for report in resource.reports:
        add(*_report(report, models))
    return found


def _verb(resource: Resource, verb: str, row: Document, models: set[type[BaseModel]]) -> list[Any]:
    if resource.kind is Kind.SETTINGS and verb in ("get", "update"):
        body = _use(models, update_schema(resource.name, resource)) if verb == "update" else None
        return [("", "get" if verb == "get" else "patch", _json(row), body, _if_match(verb == "update"))]
    match verb:
        case "list":
            return [("", "get", _json(_page(row)), None, _list_params(resource, paged=True))]
        case "export":
            text = {"200": {"description": "CSV", "content": {"text/csv": {"schema": {"type": "string"}}}}}
            return [("/export", "get", text, None, _list_params(resource, paged=False))]
        case "create":
            body = _use(models, create_schema(resource.name, resource))
            return [("", "post", _json(row, "201"), body, [_header("Idempotency-Key")])]
        case "get":
            return [("/{id}", "get", _json(row), None, [_query("fields", {"type": "string"}, "Names, comma-separated.")])]
        case "update":
            return [("/{id}", "patch", _json(row), _use(models, update_schema(resource.name, resource)), _if_match(True))]
        case "delete":
            return [("/{id}", "delete", {"204": {"description": "Removed"}}, None, _if_match(True))]
        case "archive" | "restore":
            return [(f"/{{id}}/{verb}", "post", _json(row), _ref("Nothing"), _if_match(True))]
        case "bulk":
            return [("/bulk", "post", _json(_ref("Bulk")), _ref("BulkRequest"), [_header("Idempotency-Key")])]
        case "recompute":
            found = {"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": row}}}
            return [("/recompute", "post", _json(found), _use(models, resource.replace["recompute"].extra), [])]
        case "history":
            return [("/{id}/history", "get", _json(_ref("History")), None, [])] if resource.kind is not Kind.SETTINGS else []
    return []


def _action(resource: Resource, action: Action, row: Document, models: set[type[BaseModel]]) -> Any:
    path = f"/actions/{action.name}" if action.on == "collection" else f"/{{id}}/{action.name}"
    answer = _use(models, action.output) if action.output is not None else row
    answers = {**_json(answer), "204": {"description": "Done"}}
    headers = [] if action.reads else [_header("Idempotency-Key")]
    params = [*headers, *(_if_match(True) if action.on == "row" else [])]
    return path, "post", action.name, answers, _use(models, action.input), params


def _report(report: Report, models: set[type[BaseModel]]) -> Any:
    path = f"/reports/{report.name}" if report.on == "collection" else f"/{{id}}/{report.name}"
    line = _use(models, report.output)
    answer = {"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": line}}}
    schema = report.params.model_json_schema(ref_template=_REF)
    defs = schema.get("$defs", {})
    params = [_query(name, _inline(found, defs), "") for name, found in schema.get("properties", {}).items()]
    for param in params:
        param["required"] = param["name"] in schema.get("required", [])
    return path, "get", report.name, _json(answer if report.many else line), None, params


def _inline(schema: Document, defs: Document) -> Document:
    name = str(schema.get("$ref", "")).rsplit("/", 1)[-1]
    if name in defs:
        return dict(defs[name])
    # A query parameter that may be left out is not sent as null.
    options = [_inline(option, defs) for option in schema.get("anyOf", []) if option.get("type") != "null"]
    return options[0] if len(options) == 1 else schema


def _list_params(resource: Resource, *, paged: bool) -> list[Document]:
    orders = [sign + column.key for column in resource.order for sign in ("", "-")]
    params = [
        _query("filter", {"type": "string"}, 'JSON: {"field", "op", "value"}, {"and": […]}, {"or": […]} or {"not": …}.'),
        _query("sort", {"type": "string"}, f"Comma-separated, '-' for descending: {', '.join(orders)}."),
        _query("fields", {"type": "string"}, "Names to return, comma-separated."),
        _query("archived", {"enum": ["exclude", "only", "all"]}, ""),
    ]
    if resource.search:
        params.append(_query("q", {"type": "string", "maxLength": 200}, "Words that must all occur."))
    if paged:
        params += [
            _query("cursor", {"type": "string"}, "next_cursor of the page before."),
            _query("limit", {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE}, ""),
            _query("total", {"enum": ["true", "false"]}, "Also count the matching rows."),
        ]
    return params + [_query(column.key, {"type": "string"}, _comparison(column)) for column in resource.filters]


def _comparison(column: Column) -> str:
    return f"Equal to; or {column.key}.OP with OP one of {', '.join(sorted(operators(column)))}."


def _page(row: Document) -> Document:
    return {
        "type": "object",
        "required": ["items", "next_cursor"],
        "properties": {
            "items": {"type": "array", "items": row},
            "next_cursor": {"type": ["string", "null"]},
            "total": {"type": "integer"},
        },
    }


def _json(schema: Document, status: str = "200") -> Document:
    return {status: {"description": "Done", "content": {"application/json": {"schema": schema}}}}


def _refusals(declared: Document) -> Document:
    problem = {"application/problem+json": {"schema": _ref("Problem")}}
    return {status: {"description": "Refused", "content": problem} for status in _REFUSALS if status not in declared}


def _use(models: set[type[BaseModel]], model: type[BaseModel]) -> Document:
    models.add(model)
    return _ref(model.__name__)


def _ref(name: str) -> Document:
    return {"$ref": _REF.format(model=name)}


def _query(name: str, schema: Document, text: str) -> Document:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def _header(name: str) -> Document:
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string", "minLength": 1, "maxLength": 200}}


def _if_match(wanted: bool) -> list[Document]:
    if not wanted:
        return []
    return [{"name": "If-Match", "in": "header", "required": False, "schema": {"type": "string", "pattern": '^"\\d{1,9}"$'}}]


def _path_id(name: str) -> Document:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}

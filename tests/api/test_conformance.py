"""What every resource owes its callers, walked over the registry: a new resource is tested by being registered."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cast import Person
from rowhouse.core.permissions import Role, allows
from rowhouse.core.references import references
from rowhouse.core.resource import Kind, Registry, Resource
from rowhouse.registry import build_registry
from rows import Rows, path_of
from samples import SAMPLES

ALL = list(build_registry())
NAMES = [resource.name for resource in ALL]
LISTED = [resource.name for resource in ALL if "list" in resource.verbs]
CREATABLE = [name for name in NAMES if name in SAMPLES]
RECORDS = [resource.name for resource in ALL if resource.kind is Kind.RECORD and resource.name in SAMPLES]


def requests_of(registry: Registry, resource: Resource, rows: Rows, row_id: str) -> Iterator[tuple[str, str]]:
    """Yield method and path of each thing that can be done to one row."""
    base = path_of(registry, resource, rows)
    verbs = {"get": ("GET", ""), "update": ("PATCH", ""), "archive": ("POST", "/archive"), "restore": ("POST", "/restore")}
    more = {"history": ("GET", "/history"), "delete": ("DELETE", "")}
    for verb, (method, path) in {**verbs, **more}.items():
        if verb in resource.verbs and not (verb == "history" and resource.kind is Kind.SETTINGS):
            yield method, f"{base}/{row_id}{path}"
    for action in resource.actions:
        if action.on == "row":
            yield "POST", f"{base}/{row_id}/{action.name}"
    for report in resource.reports:
        if report.on == "row":
            yield "GET", f"{base}/{row_id}/{report.name}"


def bodies_of(resource: Resource, path: str) -> Any:
    """Return a body that passes validation for an action, so that the row is what is looked for."""
    for action in resource.actions:
        if path.endswith(f"/{action.name}"):
            return _minimal(action.input.model_json_schema())
    return {}


def _minimal(schema: dict[str, Any]) -> dict[str, Any]:
    defs = schema.get("$defs", {})

    def value(found: dict[str, Any]) -> Any:
        if "$ref" in found:
            found = defs[found["$ref"].rsplit("/", 1)[-1]]
        if "anyOf" in found:
            return value(found["anyOf"][0])
        if "enum" in found:
            return found["enum"][0]
        if found.get("format") == "uuid":
            return str(uuid.uuid4())
        if found.get("format") == "date-time":
            return "2026-01-01T00:00:00Z"
        kinds = {"string": "x" * max(3, found.get("minLength", 3)), "integer": found.get("minimum", 1), "boolean": True}
        if found.get("type") == "array":
            return [value(found["items"])] * max(1, found.get("minItems", 1))
        return kinds.get(found.get("type", "object"), {})

    return {name: value(schema["properties"][name]) for name in schema.get("required", [])}


@pytest.mark.parametrize("name", NAMES)
async def test_without_a_credential_everything_is_401(
    name: str, registry: Registry, rows_a: Rows, stranger: httpx.AsyncClient
) -> None:
    resource = registry[name]
    base = path_of(registry, resource, rows_a)
    asked = [("GET", base), ("POST", base), ("POST", f"{base}/bulk"), ("GET", f"{base}/export")]
    row_id = rows_a.by_name.get(name, {}).get("id", str(uuid.uuid4()))
    for method, path in [*asked, *requests_of(registry, resource, rows_a, row_id)]:
        answer = await stranger.request(method, path)
        assert answer.status_code in (401, 405), (method, path, answer.text)
        if answer.status_code == 405:
            assert path in (base, f"{base}/bulk", f"{base}/export")


@pytest.mark.parametrize("name", NAMES)
async def test_a_foreign_row_is_answered_like_an_unknown_one(name: str, registry: Registry, rows_a: Rows, rows_b: Rows) -> None:
    resource = registry[name]
    if name not in rows_a.by_name or name not in rows_b.by_name:
        pytest.skip("journals of imports and jobs have their own isolation tests")
    own = await rows_b.person.client.get(f"{path_of(registry, resource, rows_b)}/{rows_b.id_of(name)}")
    assert own.status_code == 200, own.text
    foreign_id = rows_a.id_of(name)
    before = await rows_a.person.client.get(f"{path_of(registry, resource, rows_a)}/{foreign_id}")
    paths = requests_of(registry, resource, rows_b, foreign_id)
    for method, path in paths:
        body = bodies_of(resource, path)
        foreign = await rows_b.person.client.request(method, path, json=body if method in ("POST", "PATCH") else None)
        unknown_path = path.replace(foreign_id, str(uuid.uuid4()))
        unknown = await rows_b.person.client.request(method, unknown_path, json=body if method in ("POST", "PATCH") else None)
        assert (foreign.status_code, foreign.content) == (unknown.status_code, unknown.content), (method, path)
        assert foreign.status_code in (404, 409, 422), (method, path, foreign.text)
        if not body and method != "POST":
            assert foreign.status_code == 404, (method, path, foreign.text)
    still = await rows_a.person.client.get(f"{path_of(registry, resource, rows_a)}/{foreign_id}")
    assert (still.status_code, still.content) == (200, before.content)


@pytest.mark.parametrize("name", LISTED)
async def test_the_list_holds_own_rows_and_no_foreign_ones(name: str, registry: Registry, rows_a: Rows, rows_b: Rows) -> None:
    resource = registry[name]
    seen = set()
    for rows in (rows_a, rows_b):
        ids = await all_ids(rows, path_of(registry, resource, rows))
        if name in rows.by_name:
            assert rows.id_of(name) in ids
        assert not seen & ids
        seen |= ids


async def all_ids(rows: Rows, path: str) -> set[str]:
    """Return the ids of every row of a list, page by page."""
    found: set[str] = set()
    params: dict[str, Any] = {"limit": 100, "archived": "all", "fields": "id"}
    while True:
        answer = await rows.person.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        found |= {item["id"] for item in answer.json()["items"]}
        if answer.json()["next_cursor"] is None:
            return found
        params["cursor"] = answer.json()["next_cursor"]


@pytest.mark.parametrize("name", CREATABLE)
async def test_a_foreign_reference_is_refused_like_an_unknown_one(
    name: str, registry: Registry, rows_a: Rows, rows_b: Rows
) -> None:
    resource = registry[name]
    writable = {column.key for column in resource.write}
    base = path_of(registry, resource, rows_b)
    for column, model in references(resource.model).items():
        target = registry.of_model(model).name
        if column not in writable or target not in rows_a.by_name:
            continue
        answers = []
        for wrong in (rows_a.id_of(target), str(uuid.uuid4())):
            body = {**SAMPLES[name](rows_b.ids()), column: wrong}
            answers.append(await rows_b.person.client.post(base, json=body))
        assert answers[0].status_code == 422, (column, answers[0].text)
        assert answers[0].content == answers[1].content
        assert answers[0].json()["code"] == "reference_not_found"
        assert answers[0].json()["errors"][0]["field"] == column


@pytest.mark.parametrize("name", CREATABLE)
async def test_a_viewer_may_read_and_not_write(name: str, registry: Registry, rows_a: Rows, viewer_a: Person) -> None:
    resource = registry[name]
    base = path_of(registry, resource, rows_a)
    if allows(viewer_a.principal, resource.permission("create")):
        pytest.skip("viewers may write this")
    assert (await viewer_a.client.get(base)).status_code == 200
    body = SAMPLES[name](rows_a.ids())
    row = f"{base}/{rows_a.id_of(name)}"
    for method, path, sent in (("POST", base, body), ("PATCH", row, {}), ("DELETE", row, None)):
        answer = await viewer_a.client.request(method, path, json=sent)
        assert answer.status_code == 403, (method, path, answer.text)
        assert answer.json()["code"] == "permission_denied"


@pytest.mark.parametrize("name", CREATABLE)
async def test_the_tenant_cannot_be_written(name: str, registry: Registry, rows_a: Rows, rows_b: Rows) -> None:
    base = path_of(registry, registry[name], rows_a)
    body = {**SAMPLES[name](rows_a.ids()), "tenant_id": str(rows_b.person.tenant.id)}
    answer = await rows_a.person.client.post(base, json=body)
    assert answer.status_code == 422
    assert {"field": "tenant_id", "code": "unknown_field"}.items() <= answer.json()["errors"][0].items()


@pytest.mark.parametrize("name", LISTED)
async def test_undeclared_filters_sorts_and_fields_are_refused(name: str, registry: Registry, rows_a: Rows) -> None:
    base = path_of(registry, registry[name], rows_a)
    hidden = [column.key for column in registry[name].hidden] or ["tenant_id"]
    for params, code in (
        ({"no_such_field": "1"}, "unknown_field"),
        ({hidden[0]: "1"}, "unknown_field"),
        ({"sort": "no_such_field"}, "not_sortable"),
        ({"fields": hidden[0]}, "unknown_field"),
        ({"cursor": "bm90IGEgY3Vyc29y"}, "invalid_cursor"),
        ({"filter": "{"}, "invalid_value"),
        ({"filter": json.dumps({"field": "tenant_id", "value": str(rows_a.person.tenant.id)})}, "unknown_field"),
        ({"limit": "101"}, "invalid"),
    ):
        answer = await rows_a.person.client.get(base, params=params)
        assert answer.status_code == 422, (params, answer.text)
        assert answer.json()["code"] == code, (params, answer.text)


@pytest.mark.parametrize("name", RECORDS)
async def test_every_change_is_audited_and_seen_in_the_history(name: str, registry: Registry, rows_a: Rows) -> None:
    resource = registry[name]
    path = f"{path_of(registry, resource, rows_a)}/{rows_a.id_of(name)}"
    history = (await rows_a.person.client.get(f"{path}/history")).json()["items"]
    assert history[-1]["verb"] == "create"
    assert history[-1]["actor_id"] == rows_a.person.id
    hidden = {column.key for column in resource.hidden}
    assert not hidden & set(history[-1]["changes"])
    params = {"entity_id": rows_a.id_of(name), "verb": "create"}
    audit = await rows_a.person.client.get("/api/v1/audit-entries", params=params)
    assert len(audit.json()["items"]) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_hidden_columns_are_never_shown(name: str, registry: Registry, rows_a: Rows) -> None:
    shown = set(rows_a.by_name.get(name, {}))
    assert not shown & ({column.key for column in registry[name].hidden} | {"tenant_id"})


@pytest.mark.parametrize("name", LISTED)
async def test_a_cursor_of_another_tenant_is_refused(name: str, registry: Registry, rows_a: Rows, rows_b: Rows) -> None:
    pages = []
    for rows in (rows_a, rows_b):
        base = path_of(registry, registry[name], rows)
        pages.append((await rows.person.client.get(base, params={"limit": 1})).json())
    if pages[0]["next_cursor"] is None:
        pytest.skip("one row or none: there is no next page")
    base = path_of(registry, registry[name], rows_b)
    answer = await rows_b.person.client.get(base, params={"limit": 1, "cursor": pages[0]["next_cursor"]})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_cursor"


def test_every_creatable_resource_has_a_sample() -> None:
    made_otherwise = {"members", "api-keys", "merges"}
    creatable = {resource.name for resource in ALL if "create" in resource.verbs}
    assert creatable - made_otherwise <= set(SAMPLES)


def test_permissions_are_denied_by_default_to_viewers() -> None:
    for resource in ALL:
        for verb in {"create", "update", "archive", "delete", "bulk", "import"} & set(resource.verbs):
            permission = resource.permission(verb)
            assert permission.role is not Role.VIEWER or resource.name == "api-keys", str(permission)

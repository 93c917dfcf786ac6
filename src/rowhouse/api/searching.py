"""The route of the search over every resource. Hand-written, since it is nobody's list."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python

from rowhouse.api.requests import api_of, json_answer, plain_params, tenant_call
from rowhouse.core.errors import Invalid
from rowhouse.core.resource import Registry, Resource
from rowhouse.core.search.query import Hit, find

router = APIRouter(tags=["search"])
_MOST, _USUAL = 50, 10


class Found(BaseModel):
    """What was found, best first."""

    items: list[Hit]


def _described() -> dict[str, Any]:
    params: list[tuple[str, bool, dict[str, Any], str]] = [
        ("q", True, {"type": "string", "minLength": 1, "maxLength": 200}, "Words that must all occur; the last may be begun."),
        ("resources", False, {"type": "string"}, "Names, comma-separated; all you may list when left out."),
        ("limit", False, {"type": "integer", "minimum": 1, "maximum": _MOST}, f"Of each resource; {_USUAL} when left out."),
    ]
    schema = TypeAdapter(Found).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    hit = schema.pop("$defs")["Hit"]
    schema["properties"]["items"]["items"] = hit
    return {
        "parameters": [
            {"name": name, "in": "query", "required": required, "schema": kind, "description": text}
            for name, required, kind, text in params
        ],
        "responses": {"200": {"description": "Done", "content": {"application/json": {"schema": schema}}}},
    }


@router.get("/search", openapi_extra=_described())
async def search(request: Request) -> Response:
    """Search every resource the caller may list, or those named; misspelt words are forgiven."""
    words = plain_params(request, frozenset({"q", "resources", "limit"}))
    if not words.get("q"):
        raise Invalid("Say what to look for: q.", code="required", field="q")
    async with tenant_call(request) as call:
        chosen = _chosen(api_of(request).registry, words.get("resources", ""))
        hits = await find(call, chosen, words["q"], limit=_limit(words.get("limit", str(_USUAL))))
    return json_answer({"items": to_jsonable_python(hits)})


def _chosen(registry: Registry, names: str) -> list[Resource]:
    if not names:
        return [resource for resource in registry if resource.search]
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in registry or not registry[name].search:
            raise Invalid(
                f"{name[:100] or '(nothing)'} is no resource that is searched.", code="not_searchable", field="resources"
            )
    return [registry[name] for name in dict.fromkeys(wanted)]


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not 1 <= int(text) <= _MOST:
        raise Invalid(f"limit is 1 to {_MOST}.", code="invalid_value", field="limit")
    return int(text)

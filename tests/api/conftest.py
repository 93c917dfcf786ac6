"""One row of every resource in both tenants, made through the API in the order their references ask for."""

from __future__ import annotations

import pytest
from cast import Person, World
from rows import Rows, path_of
from samples import SAMPLES

from rowhouse.core.resource import Registry


async def _fill(person: Person, registry: Registry) -> Rows:
    rows = Rows(person)
    rows.by_name["members"] = {"id": person.id}
    for name, sample in SAMPLES.items():
        answer = await person.client.post(path_of(registry, registry[name], rows), json=sample(rows.ids()))
        assert answer.status_code == 201, (name, answer.text)
        rows.by_name[name] = answer.json()
    for resource in registry:
        if resource.name not in rows.by_name and "list" in resource.verbs:
            answer = await person.client.get(path_of(registry, resource, rows), params={"limit": 1})
            assert answer.status_code == 200, (resource.name, answer.text)
            if answer.json()["items"]:
                rows.by_name[resource.name] = answer.json()["items"][0]
    return rows


@pytest.fixture(scope="session")
async def rows_a(world: World, registry: Registry) -> Rows:
    return await _fill(world.people["owner_a"], registry)


@pytest.fixture(scope="session")
async def rows_b(world: World, registry: Registry) -> Rows:
    return await _fill(world.people["owner_b"], registry)

"""How many statements a page costs, counted at the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from cast import Person
from rowhouse.core.db import Database
from rowhouse.core.resource import Registry
from rowhouse.registry import build_registry
from rows import Rows, path_of

LISTED = [resource.name for resource in build_registry() if "list" in resource.verbs]


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """Collect every statement of the application role, from its sessions and from its pipeline."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    engine = database.app.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    database.reads.watchers.append(seen.append)
    try:
        yield seen
    finally:
        database.reads.watchers.remove(seen.append)
        event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("name", LISTED)
async def test_a_list_page_takes_at_most_three_statements(
    name: str, database: Database, registry: Registry, rows_a: Rows, owner_a: Person
) -> None:
    base = path_of(registry, registry[name], rows_a)
    for limit in (1, 100):
        with counted(database) as seen:
            answer = await owner_a.client.get(base, params={"limit": limit, "archived": "all"})
        assert answer.status_code == 200
        assert len(seen) <= 3, seen
        assert seen[0].startswith("SET LOCAL app.tenant_id")
        assert all("tenant_id" in statement for statement in seen)


async def test_the_count_is_one_statement_more(database: Database, owner_a: Person, rows_a: Rows) -> None:
    with counted(database) as seen:
        answer = await owner_a.client.get("/api/v1/accounts", params={"total": "true", "limit": 100})
    assert answer.json()["total"] >= 1
    assert len(seen) == 3

"""The rows of one tenant that tests of the API work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cast import Person
from rowhouse.api.routes import base_path
from rowhouse.core.resource import Registry, Resource, parent_table


@dataclass
class Rows:
    """The rows of one tenant, by resource name."""

    person: Person
    by_name: dict[str, dict[str, Any]] = field(default_factory=dict)

    def id_of(self, name: str) -> str:
        return str(self.by_name[name]["id"])

    def ids(self) -> Mapping[str, str]:
        return {name: row["id"] for name, row in self.by_name.items()}


def path_of(registry: Registry, resource: Resource, rows: Rows) -> str:
    """Return a resource's path, the parent's id filled in from the tenant's own rows."""
    path = f"/api/v1{base_path(registry, resource)}"
    if resource.parent is None:
        return path
    parent = registry.of_table(parent_table(resource))
    assert parent is not None
    return path.replace("{parent_id}", rows.id_of(parent.name))

"""The coverage page says what the registry says, and every setting and route is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rowhouse.api.openapi import complete
from rowhouse.registry import build_registry

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "coverage.md").read_text()
ROWS = [
    tuple(cell.strip() for cell in row.split("|")[1:-1])
    for row in PAGE.splitlines()
    if re.match(r"\| .* \| (yes|not yet) \|", row)
]
MODELS = {row[1]: row for row in ROWS if len(row) == 5}
pytestmark = pytest.mark.no_database


def test_the_page_names_each_of_the_52_models() -> None:
    assert len(MODELS) == 52


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_is_on_the_page_as_it_is_in_the_registry(name: str) -> None:
    registered = {resource.model.__name__: resource for resource in build_registry()}
    assert (MODELS[name][2] == "yes") == (name in registered)
    if name in registered:
        document = complete(build_registry(), {"paths": {}})
        shown = MODELS[name][4].strip("`")
        assert shown in {path.replace("{parent_id}", "{id}") for path in document["paths"]}


def test_every_file_the_page_names_exists() -> None:
    for name in re.findall(r"`((?:partywall|identity|core|transfer|modules|tests|docs)/[\w./]*)`", PAGE):
        places = [ROOT / name, ROOT / "src" / name, ROOT / "src" / "rowhouse" / name]
        assert any(place.exists() for place in places), name

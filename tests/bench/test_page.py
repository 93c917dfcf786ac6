"""The performance page says what results.json says, and goals are judged by one rule."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
pytestmark = pytest.mark.no_database


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("bench.page")


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("bench.results")


def row(**changed: Any) -> dict[str, Any]:
    plain = {"name": "list.pgbench", "what": "List", "value": 1500.0, "unit": "requests/s", "against": "pgbench"}
    judged = {"goal": 0.5, "direction": "least", "judged": "ratio"}
    return {**plain, "other": 3000.0, "ratio": 0.5, "low": 0.45, "high": 0.55, **judged, **changed}


def found(*rows: dict[str, Any], stage: str = "list") -> dict[str, Any]:
    about = {"date": "2026-01-01 00:00Z", "commit": "abc", "load_before": 0.1, "notes": ["A note."]}
    return {"machine": {}, "stages": {stage: {**about, "rows": list(rows)}}}


def growth(verb: str, size: int, value: float) -> dict[str, Any]:
    return row(name=f"growth.{verb}.{size}", value=value, unit="ms", goal=None)


def test_the_committed_page_and_plots_are_those_of_the_committed_results(page: ModuleType, results: ModuleType) -> None:
    made = page.generate(results.load_results())
    there = {"performance.md", *(f"plots/{path.name}" for path in (REFERENCE / "plots").glob("*.svg"))}
    assert there == set(made)
    assert {path: (REFERENCE / path).read_text() for path in made} == made


def test_the_same_results_make_the_same_files(page: ModuleType) -> None:
    first = page.generate(found(row()))
    assert first == page.generate(found(row()))
    assert first != page.generate(found(row(value=1501.0)))


@pytest.mark.parametrize(
    ("changed", "met"),
    [
        ({"ratio": 0.5}, True),
        ({"ratio": 0.499}, False),
        ({"direction": "most", "goal": 1.2, "ratio": 1.2}, True),
        ({"direction": "most", "goal": 1.2, "ratio": 1.21}, False),
        ({"judged": "value", "direction": "most", "goal": 150, "value": 150.0}, True),
        ({"judged": "value", "direction": "most", "goal": 150, "value": 151.0}, False),
        ({"goal": None}, None),
    ],
)
def test_a_goal_is_judged_by_ratio_or_value(results: ModuleType, changed: dict[str, Any], met: bool | None) -> None:
    assert results.is_met(row(**changed)) is met


def test_a_missed_goal_is_named_at_the_top(page: ModuleType) -> None:
    made = page.generate(found(row(), row(name="list.other", ratio=0.3)))["performance.md"]
    assert "1 of 2 goals are reached. Missed: `list.other`." in made
    assert "**no**" in made


def test_a_stage_without_figures_says_so(page: ModuleType) -> None:
    made = page.generate({"machine": {}, "stages": {}})
    assert set(made) == {"performance.md"}
    assert made["performance.md"].count("Not measured yet.") == len(page._TITLES)


def test_every_plot_is_a_picture_with_a_name(page: ModuleType) -> None:
    stages = found(*(growth("list", size, 5.0 + size / 1000) for size in (10, 100, 1000)), stage="growth")["stages"]
    stages |= found(row(name="bottlecrm.list", ratio=120.0), stage="bottlecrm")["stages"]
    stages |= found(row(name="isolation.get", ratio=0.97), stage="isolation")["stages"]
    made = page.generate({"machine": {}, "stages": stages})
    drawn = {name: ElementTree.fromstring(text) for name, text in made.items() if name.endswith(".svg")}
    assert set(drawn) == {f"plots/{name}.svg" for name in ("goals", "growth", "bottlecrm", "isolation")}
    assert all(picture.get("aria-label") for picture in drawn.values())
    assert all(f"({name})" in made["performance.md"] for name in drawn)

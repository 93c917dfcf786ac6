"""The shape of the code, held by tests instead of by memory."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from rowhouse.core.resource import Resource
from rowhouse.registry import build_registry

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MODULE_FILES = {"__init__", "models", "states", "rules", "actions", "reports", "resources", "jobs"}
pytestmark = pytest.mark.no_database


def lines_of(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))


def test_no_file_is_longer_than_400_lines() -> None:
    assert {str(path): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 400} == {}


def test_the_kernel_stays_within_2000_lines() -> None:
    assert lines_of(ROOT / "src" / "partywall") <= 2000


def test_the_machine_stays_within_3000_lines() -> None:
    """Search is an engine behind one door and is counted apart: docs/decisions/0008-reads-in-one-exchange.md."""
    core = ROOT / "src" / "rowhouse" / "core"
    assert lines_of(core / "search") <= 600
    assert lines_of(core) - lines_of(core / "search") <= 3000


def test_a_resource_has_at_most_sixteen_options() -> None:
    assert len(Resource.__dataclass_fields__) <= 16


def test_a_module_folder_holds_only_the_fixed_files() -> None:
    folders = [path for path in (ROOT / "src" / "rowhouse" / "modules").iterdir() if path.is_dir() and path.name != "__pycache__"]
    found = {
        child.stem for folder in folders if folder.name != "tools" for child in folder.iterdir() if child.name != "__pycache__"
    }
    assert found <= MODULE_FILES


# Tables of which a tenant has few rows, and parts, which are read along their parent.
FEW = {"members", "invitations", "domains", "api-keys", "pipelines", "exchange-rates", "merges", "imports"}


def test_every_list_that_may_grow_is_read_along_an_index() -> None:
    unread = []
    for resource in build_registry():
        if "list" not in resource.verbs or resource.parent is not None or resource.name in FEW:
            continue
        columns = [[column.name for column in index.columns] for index in resource.table.indexes]
        if not any(names[:2] == ["tenant_id", resource.order[0].key] for names in columns):
            unread.append(resource.name)
    assert unread == []


def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    found: list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node))
    return found


def test_no_function_is_longer_than_45_lines() -> None:
    long = {name: size for name, node in functions() if (size := (node.end_lineno or 0) - node.lineno + 1) > 45}
    assert long == {}


def test_nothing_is_imported_inside_a_function() -> None:
    inside = [name for name, node in functions() if any(isinstance(k, ast.Import | ast.ImportFrom) for k in ast.walk(node))]
    assert inside == []


def test_public_kernel_names_have_docstrings() -> None:
    missing = []
    for path in (ROOT / "src" / "partywall").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_definition and not node.name.startswith("_") and not ast.get_docstring(node):
                missing.append(f"{path.name}:{node.name}")
    assert missing == []

"""The conformance tests on foreign rows, with one layer taken away, and with two as the negative control."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SELECTED = "foreign_row or foreign_reference or own_rows_and_no_foreign or foreign_write"


def run_without(layers: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/api/test_conformance.py",
        "-k",
        SELECTED,
        "-p",
        "no:cacheprovider",
        "--tb=line",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, "ROWHOUSE_WITHOUT": layers}, capture_output=True, text=True, timeout=600
    )
    return done.returncode, done.stdout + done.stderr


def passed(output: str) -> int:
    return sum(line.count(".") for line in output.splitlines() if re.fullmatch(r"[.sFE]+( +\[ *\d+%\])?", line.strip()))


@pytest.mark.parametrize("layer", ["guard", "policies"])
def test_one_layer_alone_holds(layer: str) -> None:
    status, output = run_without(layer)
    assert status == 0, output[-3000:]
    assert passed(output) >= 30, output[-3000:]


def test_without_both_layers_the_same_tests_fail() -> None:
    status, output = run_without("guard,policies")
    assert status == 1, output[-3000:]
    assert "test_a_foreign_row_is_answered_like_an_unknown_one" in output

"""The figures: one row each, merged into results.json stage by stage."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.places import RESULTS, ROOT, wrk
from bench.rounds import Ratio
from rowhouse.embedded import postgres

Direction = Literal["least", "most"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure.

    name: unique, stable.  value: in `unit`.  against: what it was compared with, in `unit` too as `other`.
    ratio: the figure over the other, median of the rounds; low and high: the rounds' extremes.
    goal: what `judged` (the ratio, or the value where there is none) must reach at least, or may be at most.
    """

    name: str
    what: str
    value: float
    unit: str
    against: str = ""
    other: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    goal: float | None = None
    direction: Direction = "least"
    judged: Literal["ratio", "value"] = "ratio"


def compared(
    name: str,
    what: str,
    value: float,
    unit: str,
    *,
    against: str,
    other: float,
    ratio: Ratio,
    goal: float | None = None,
    direction: Direction = "least",
) -> Row:
    """Return the row of a figure measured beside another."""
    return Row(
        name=name,
        what=what,
        value=_short(value),
        unit=unit,
        against=against,
        other=_short(other),
        ratio=_short(ratio.middle),
        low=_short(ratio.least),
        high=_short(ratio.greatest),
        goal=goal,
        direction=direction,
    )


def plain(name: str, what: str, value: float, unit: str, *, goal: float | None = None, direction: Direction = "most") -> Row:
    """Return the row of a figure that stands alone."""
    return Row(name=name, what=what, value=_short(value), unit=unit, goal=goal, direction=direction, judged="value")


def is_met(row: Any) -> bool | None:
    """Return whether a row of results.json reaches its goal, None without one."""
    if row["goal"] is None:
        return None
    found = row[row["judged"]]
    return bool(found >= row["goal"] if row["direction"] == "least" else found <= row["goal"])


def load_results(path: Path = RESULTS) -> dict[str, Any]:
    """Return what results.json holds, empty stages when there is none yet."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"machine": {}, "stages": {}}
    return found


def save_stage(stage: str, rows: list[Row], *, notes: list[str], load_before: float, path: Path = RESULTS) -> None:
    """Write a stage's rows in place of its earlier ones, with the machine's facts; the rest stays."""
    found = load_results(path)
    found["machine"] = machine()
    found["stages"][stage] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z",
        "commit": _commit(),
        "load_before": round(load_before, 2),
        "notes": notes,
        "rows": [asdict(row) for row in rows],
    }
    found["stages"] = dict(sorted(found["stages"].items()))
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(found, indent=1) + "\n")
    draft.replace(path)


def machine() -> dict[str, Any]:
    """Return the facts about this machine and its programs that a figure depends on."""
    version = subprocess.run([wrk(), "-v"], capture_output=True, text=True, check=False)
    server = subprocess.run([postgres.find_bin_dir() / "postgres", "-V"], capture_output=True, text=True, check=True)
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "postgresql": server.stdout.split()[-1],
        "wrk": (version.stdout or version.stderr).split("[")[0].strip().removeprefix("wrk "),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "status", "--porcelain", "src"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() + (" and changes" if changed.stdout.strip() else "")


def _short(value: float) -> float:
    """Return a figure with three digits that count; more would pretend."""
    return float(f"{value:.3g}") if abs(value) < 1000 else float(round(value))

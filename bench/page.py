"""docs/reference/performance.md and its plots, made from results.json and nothing else."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import plots
from bench.results import Row, is_met, load_results

# results.json holds them as they are read: rows are dictionaries of Row's fields.
Found = dict[str, Any]

_TITLES = {
    "list": "List",
    "get": "Get",
    "create": "Create",
    "orm": "The ORM path",
    "isolation": "What isolation costs",
    "latency": "Latency at half load",
    "process": "Memory, start, statements",
    "bottlecrm": "Beside BottleCRM",
    "search": "Search",
    "fairness": "Fairness",
    "growth": "Growth",
}
_HEAD = """# Performance

Made by `python -m bench` from `bench/results.json`; do not edit. `make bench` measures anew (about ten minutes on two cores
once its databases are loaded; the first time about half an hour), `make bench ARGS="list growth"` some stages, with `--full`
longer turns. Databases, BottleCRM and logs are kept in `$XDG_CACHE_HOME/rowhouse-bench` (about 15 GB); delete it freely.

Every comparison ran side by side: the contenders take turns of some seconds in one run, every other round backwards, all on
this one machine with the load generator; a ratio is the median of the rounds' ratios, with the least and the greatest beside
it. Rates depend on the machine, ratios much less. All contenders use one PostgreSQL with the product's own settings, but with
room for more connections.
"""
# The stages before one leave a load of their own; more than this comes from elsewhere.
_QUIET_BELOW = 4.0
_RULE = "|---|---|---|---|---|---|"


def generate(found: Found) -> dict[str, str]:
    """Return the files by their paths under docs/reference: the same results give the same files, byte for byte."""
    drawn = plots.draw(found)
    parts = [_HEAD, _machine(found), _goals(found, drawn)]
    parts += [_stage(name, title, found, drawn) for name, title in _TITLES.items()]
    page = "\n".join(part.rstrip("\n") + "\n" for part in parts if part)
    return {"performance.md": page, **{f"plots/{name}": text for name, text in drawn.items()}}


def write(page: Path, results: Path) -> None:
    """Write the page and its plots, and remove plots that are no longer made."""
    made = generate(load_results(results))
    (page.parent / "plots").mkdir(parents=True, exist_ok=True)
    for path, text in made.items():
        (page.parent / path).write_text(text)
    for old in (page.parent / "plots").glob("*.svg"):
        if f"plots/{old.name}" not in made:
            old.unlink()


def line(row: Row) -> str:
    """Return a row as one line of progress."""
    found = asdict(row)
    verdict = {True: ", goal reached", False: ", GOAL MISSED", None: ""}[is_met(found)]
    beside = f"; {row.against}: {_number(row.other)}; ratio {_ratio(found)}" if row.against else ""
    return f"{row.what}: {_number(row.value)} {row.unit}{beside}{verdict}"


def _machine(found: Found) -> str:
    facts = found["machine"]
    if not facts:
        return "Nothing has been measured yet.\n"
    return (
        f"Machine of the last run: {facts['cores']} cores ({facts['processor']}), {facts['memory_gib']} GiB, {facts['system']},"
        f" Python {facts['python']}, PostgreSQL {facts['postgresql']}, wrk {facts['wrk']}.\n"
    )


def _goals(found: Found, drawn: dict[str, str]) -> str:
    rows = [row for _, row in _rows(found) if row["goal"] is not None]
    if not rows:
        return ""
    missed = [row["name"] for row in rows if not is_met(row)]
    verdict = f"{len(rows) - len(missed)} of {len(rows)} goals are reached."
    if missed:
        verdict += " Missed: " + ", ".join(f"`{name}`" for name in missed) + "."
    lines = ["## Goals", "", _wrapped(verdict), "", *_picture("goals", "Each goal and how far it is reached", drawn)]
    lines += ["| figure | goal | found | reached |", "|---|---|---|---|"]
    for row in rows:
        figure = f"{row['what']}{', against ' + row['against'] if row['against'] else ''}"
        lines.append(f"| {figure} (`{row['name']}`) | {_goal(row)} | {_judged(row)} | {_verdict(row)} |")
    return "\n".join(lines) + "\n"


def _stage(name: str, title: str, found: Found, drawn: dict[str, str]) -> str:
    stage = found["stages"].get(name)
    lines = [f"## {title}", ""]
    if stage is None:
        return "\n".join([*lines, "Not measured yet."]) + "\n"
    about = f"Measured {stage['date']} at {stage['commit']}, load average before it {stage['load_before']:g}."
    if stage["load_before"] > _QUIET_BELOW:
        about += " **The machine was busy with other work: a trial, not a measurement.**"
    lines += [_wrapped(about), ""]
    lines += _picture(name, title, drawn)
    for note in stage["notes"]:
        lines += [_wrapped(note), ""]
    if stage["rows"]:
        lines += ["| figure | value | against | its value | ratio | goal |", _RULE]
    for row in stage["rows"]:
        other = f"{_number(row['other'])} {row['unit']}" if row["other"] is not None else ""
        value = f"{_number(row['value'])} {row['unit']}"
        goal = f"{_goal(row)}: {_verdict(row)}" if row["goal"] is not None else ""
        lines.append(f"| {row['what']} | {value} | {row['against']} | {other} | {_ratio(row)} | {goal} |")
    return "\n".join(lines) + "\n"


def _rows(found: Found) -> Iterator[tuple[str, Found]]:
    for name in _TITLES:
        for row in found["stages"].get(name, {"rows": []})["rows"]:
            yield name, row


def _picture(name: str, title: str, drawn: dict[str, str]) -> list[str]:
    return [f"![{title}](plots/{name}.svg)", ""] if f"{name}.svg" in drawn else []


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 125, break_long_words=False, break_on_hyphens=False)


def _goal(row: Found) -> str:
    unit = f" {row['unit']}" if row["judged"] == "value" else ""
    return f"{'≥' if row['direction'] == 'least' else '≤'} {_number(row['goal'])}{unit}"


def _judged(row: Found) -> str:
    return f"{_number(row['value'])} {row['unit']}" if row["judged"] == "value" else _ratio(row)


def _verdict(row: Found) -> str:
    return "yes" if is_met(row) else "**no**"


def _ratio(row: Found) -> str:
    if row["ratio"] is None:
        return ""
    return f"{_number(row['ratio'])} ({_number(row['low'])} to {_number(row['high'])})"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else json.dumps(value).removesuffix(".0")

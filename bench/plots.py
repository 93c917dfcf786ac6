"""Plots as SVG, drawn by hand: readable in light and dark, the same bytes for the same figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from bench.results import is_met

_WIDTH = 760
_STYLES = "abcdef"
_UNITS = [part * 10.0**power for power in range(-2, 6) for part in (1, 2, 5)]
_STYLE = """<style>
.paper { fill: #ffffff } .soft { fill: #59636e } .small { font-size: 12px } .grid { stroke: #d1d9e0; stroke-width: 1 }
.text { fill: #1f2328; stroke: #ffffff; stroke-width: 4; paint-order: stroke; font-family: system-ui, sans-serif }
.text { font-size: 13px } .text.small { font-size: 12px } .text.soft { fill: #59636e }
.goal { stroke: #1f2328; stroke-width: 1.5 } .met, .a { fill: #0969da } .missed, .b { fill: #bc4c00 }
.c { fill: #1a7f37 } .d { fill: #8250df } .e { fill: #6e7781 } .f { fill: #bf3989 } .line.f { stroke: #bf3989 }
.line.a { stroke: #0969da } .line.b { stroke: #bc4c00 } .line.c { stroke: #1a7f37 } .line.d { stroke: #8250df }
.line.e { stroke: #6e7781 } .line { fill: none !important; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117 } .text { fill: #e6edf3; stroke: #0d1117 } .text.soft { fill: #9198a1 } .grid { stroke: #30363d }
.goal { stroke: #e6edf3 } .met, .a { fill: #4493f8 } .missed, .b { fill: #f0883e }
.c { fill: #3fb950 } .d { fill: #ab7df8 } .e { fill: #9198a1 } .f { fill: #db61a2 } .line.f { stroke: #db61a2 }
.line.a { stroke: #4493f8 } .line.b { stroke: #f0883e } .line.c { stroke: #3fb950 } .line.d { stroke: #ab7df8 }
.line.e { stroke: #9198a1 }
}
</style>"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its length on a logarithmic scale, and what is written at its end."""

    label: str
    value: float
    said: str
    style: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of points, x rising."""

    label: str
    points: tuple[tuple[float, float], ...]


def draw(found: dict[str, Any]) -> dict[str, str]:
    """Return the plots by file name; a plot whose figures are missing is left out."""
    made = {
        "goals.svg": _goals(found),
        "bottlecrm.svg": _against(found, "bottlecrm", "Requests per second, times BottleCRM"),
        "isolation.svg": _against(found, "isolation", "Throughput kept with isolation (1 = none lost)"),
        "growth.svg": _growth(found),
    }
    return {name: text for name, text in made.items() if text}


def _goals(found: dict[str, Any]) -> str:
    bars = []
    for row in (row for stage in found["stages"].values() for row in stage["rows"] if row["goal"] is not None):
        value = row[row["judged"]]
        reached = value / row["goal"] if row["direction"] == "least" else row["goal"] / max(value, 1e-9)
        met = is_met(row)
        bars.append(Bar(row["name"], reached, f"{reached:.2f}{'' if met else ' missed'}", "met" if met else "missed"))
    return _bars("Goals: found over wanted, right of the line is reached", bars, at=1.0)


def _against(found: dict[str, Any], stage: str, title: str) -> str:
    rows = [
        row
        for row in found["stages"].get(stage, {"rows": []})["rows"]
        if row["ratio"] is not None and not row["name"].endswith(".cpu")
    ]
    return _bars(title, [Bar(row["name"].partition(".")[2], row["ratio"], f"{row['ratio']:g}", "a") for row in rows], at=1.0)


def _growth(found: dict[str, Any]) -> str:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in found["stages"].get("growth", {"rows": []})["rows"]:
        kind, verb, size = (*row["name"].split("."), "")[:3]
        if kind != "growth":
            continue
        points.setdefault(verb.replace("_", " "), []).append((float(size), row["value"]))
    lines = [Line(verb, tuple(sorted(each))) for verb, each in points.items()]
    return _lines("95th percentile in ms, by number of workspaces (half of all rows in one)", lines)


def _bars(title: str, bars: Sequence[Bar], *, at: float) -> str:
    """Return horizontal bars on a logarithmic scale, with a line where `at` is."""
    if not bars:
        return ""
    left, right, top, step = 270, _WIDTH - 80, 46, 24
    low = 10 ** math.floor(math.log10(min(at, *(max(bar.value, 1e-4) for bar in bars)) * 0.999))
    high = 10 ** math.ceil(math.log10(max(at, *(bar.value for bar in bars)) * 1.001))
    height = top + step * len(bars) + 34

    def x(value: float) -> float:
        share = math.log10(max(value, low) / low) / math.log10(high / low)
        return round(left + share * (right - left), 1)

    parts = [_text(16, 24, title)]
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        parts.append(_rule(x(10.0**power), top - 8, height - 28, "grid"))
        parts.append(_text(x(10.0**power), height - 12, f"{10.0**power:g}", "soft small", "middle"))
    parts.append(_rule(x(at), top - 8, height - 28, "goal"))
    for number, bar in enumerate(bars):
        y = top + number * step
        parts.append(_text(left - 10, y + 12, bar.label, "small", "end"))
        parts.append(f'<rect class="{bar.style}" x="{left}" y="{y}" width="{round(x(bar.value) - left, 1)}" height="16" rx="2"/>')
        parts.append(_text(x(bar.value) + 6, y + 12, bar.said, "small"))
    return _svg(height, title, parts)


def _lines(title: str, lines: Sequence[Line]) -> str:
    """Return lines over a logarithmic x axis, each named at its end."""
    if not lines or any(len(line.points) < 2 for line in lines):
        return ""
    if len(lines) > len(_STYLES):
        raise ValueError(f"there are colours for {len(_STYLES)} lines, not for {len(lines)}")
    left, right, top, bottom = 60, _WIDTH - 210, 46, 300
    xs = sorted({x for line in lines for x, _ in line.points})
    most = max(y for line in lines for _, y in line.points)
    unit = next(unit for unit in _UNITS if most / unit <= 6)
    ticks = [round(unit * number, 2) for number in range(math.ceil(most / unit) + 1)]

    def x(value: float) -> float:
        share = math.log10(value / xs[0]) / math.log10(xs[-1] / xs[0])
        return round(left + share * (right - left), 1)

    def y(value: float) -> float:
        return round(bottom - value / ticks[-1] * (bottom - top), 1)

    parts = [_text(16, 24, title)]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{left}" y1="{y(tick)}" x2="{right}" y2="{y(tick)}"/>')
        parts.append(_text(left - 8, y(tick) + 4, f"{tick:g}", "soft small", "end"))
    parts += [_text(x(value), bottom + 20, f"{value:,.0f}", "soft small", "middle") for value in xs]
    ends = _apart([y(line.points[-1][1]) for line in lines])
    for line, style, end in zip(lines, _STYLES, ends, strict=False):
        path = " ".join(f"{x(one)},{y(other)}" for one, other in line.points)
        parts.append(f'<polyline class="line {style}" points="{path}"/>')
        parts += [f'<circle class="{style}" cx="{x(one)}" cy="{y(other)}" r="3.5"/>' for one, other in line.points]
        parts.append(f'<circle class="{style}" cx="{right + 16}" cy="{end}" r="3.5"/>')
        parts.append(_text(right + 24, end + 4, line.label, "small"))
    return _svg(bottom + 36, title, parts)


def _apart(wanted: Sequence[float], least: float = 16.0) -> list[float]:
    """Return heights near the wanted ones, in their order, none closer to another than `least`."""
    found = list(wanted)
    last = -math.inf
    for index in sorted(range(len(wanted)), key=lambda number: wanted[number]):
        found[index] = last = round(max(wanted[index], last + least), 1)
    return found


def _text(x: float, y: float, said: str, style: str = "", anchor: str = "start") -> str:
    styles = " ".join(filter(None, ("text", style)))
    return f'<text class="{styles}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(said)}</text>'


def _rule(x: float, top: float, bottom: float, style: str) -> str:
    return f'<line class="{style}" x1="{x}" y1="{top}" x2="{x}" y2="{bottom}"/>'


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    paper = f'<rect class="paper" width="{_WIDTH}" height="{height}"/>'
    return "\n".join([head, _STYLE, paper, *parts, "</svg>"]) + "\n"

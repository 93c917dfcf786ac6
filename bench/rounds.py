"""Contenders that take turns: A B A B …, so that whatever disturbs the machine disturbs them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from bench.load_runs import Run

Contender = Callable[[float], Run]


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the ratios of each round, with the least and the greatest."""

    middle: float
    least: float
    greatest: float


class Turns:
    """The runs of every contender, in the order of the rounds."""

    def __init__(self, runs: dict[str, list[Run]]) -> None:
        self.runs = runs

    def rate(self, name: str) -> float:
        """Return a contender's median of requests per second."""
        return median(run.per_second for run in self.runs[name])

    def p50(self, name: str) -> float:
        """Return a contender's median of the rounds' medians, in ms."""
        return median(run.p50_ms for run in self.runs[name])

    def p95(self, name: str) -> float:
        """Return a contender's median of the rounds' 95th percentiles, in ms."""
        return median(run.p95_ms for run in self.runs[name])

    def p99(self, name: str) -> float:
        """Return a contender's median of the rounds' 99th percentiles, in ms."""
        return median(run.p99_ms for run in self.runs[name])

    def ratio(self, name: str, against: str, what: Callable[[Run], float] = lambda run: run.per_second) -> Ratio:
        """Return a contender's figure as a part of another's in the same round."""
        pairs = zip(self.runs[name], self.runs[against], strict=True)
        found = sorted(what(one) / max(what(other), 1e-9) for one, other in pairs)
        return Ratio(median(found), found[0], found[-1])


def take_turns(contenders: Mapping[str, Contender], *, rounds: int, seconds: float, warm_s: float = 1.0) -> Turns:
    """Warm every contender, then let them run in turn; every other round goes backwards."""
    for contender in contenders.values():
        contender(warm_s)
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            runs[name].append(contenders[name](seconds))
    return Turns(runs)

"""A small memory of look-ups: for a moment, and never of more than a bounded number."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


class Remembered:
    """Remembers answers for `life_s` seconds from the moment the question was put.

    Counted from the question, not from the answer: a change that was committed before the answer may be missing in it.
    """

    def __init__(self, life_s: float = 0.4, *, most: int = 20_000, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.life_s, self.most, self.monotonic = life_s, most, monotonic
        self._kept: dict[tuple[Any, ...], tuple[float, Any]] = {}

    async def get(self, key: tuple[Any, ...], ask: Callable[[], Awaitable[_T]]) -> _T:
        """Return the remembered answer to a question, or put it. The key must name everything the answer depends on."""
        asked_at = self.monotonic()
        kept = self._kept.get(key)
        if kept is not None and kept[0] > asked_at:
            answer: _T = kept[1]
            return answer
        answer = await ask()
        # Entries of equal life expire in the order they were put, so the oldest are in front.
        self._kept.pop(key, None)
        self._kept[key] = (asked_at + self.life_s, answer)
        while len(self._kept) > self.most or self._is_first_over(asked_at):
            del self._kept[next(iter(self._kept))]
        return answer

    def forget(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def _is_first_over(self, moment: float) -> bool:
        return bool(self._kept) and next(iter(self._kept.values()))[0] <= moment

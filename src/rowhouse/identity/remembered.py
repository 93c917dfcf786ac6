"""A small memory of look-ups: bounded in time and number, and told to forget what has changed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar
from uuid import UUID

_T = TypeVar("_T")


class Remembered:
    """Remembers answers for `life_s` seconds from the moment the question was put; for `told_life_s` while it is told.

    Counted from the question, not from the answer: a change that was committed before the answer may be missing in it.
    is_told: whether somebody makes it forget what changes (`announce.Listener`).
    """

    def __init__(
        self,
        life_s: float = 0.4,
        *,
        told_life_s: float = 60.0,
        most: int = 50_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.life_s, self.told_life_s, self.most, self.monotonic = life_s, told_life_s, most, monotonic
        self.is_told = False
        self._kept: dict[tuple[Any, ...], tuple[float, Any, set[str]]] = {}
        self._about: dict[str, set[tuple[Any, ...]]] = {}
        self._forgotten = 0

    async def get(self, key: tuple[Any, ...], ask: Callable[[], Awaitable[_T]]) -> _T:
        """Return the remembered answer to a question, or put it. The key must name everything the answer depends on."""
        asked_at = self.monotonic()
        kept = self._kept.get(key)
        if kept is not None and kept[0] > asked_at:
            answer: _T = kept[1]
            return answer
        forgotten = self._forgotten
        answer = await ask()
        # Word of a change that came while the question was out may have been about this very answer.
        is_sure = self.is_told and forgotten == self._forgotten
        self._keep(key, asked_at, self.told_life_s if is_sure else self.life_s, answer)
        return answer

    def forget(self) -> None:
        """Forget everything."""
        self._forgotten += 1
        self._kept.clear()
        self._about.clear()

    def forget_about(self, names: Iterable[str]) -> None:
        """Forget every answer in whose question or answer one of these ids or names stands."""
        self._forgotten += 1
        for name in names:
            for key in tuple(self._about.get(name, ())):
                self._drop(key)

    def _keep(self, key: tuple[Any, ...], asked_at: float, life_s: float, answer: Any) -> None:
        self._drop(key)
        names = _names((key, answer))
        self._kept[key] = (asked_at + life_s, answer, names)
        for name in names:
            self._about.setdefault(name, set()).add(key)
        # In the order they were put, so the oldest are in front.
        while len(self._kept) > self.most or self._is_first_over(asked_at):
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[Any, ...]) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        for name in kept[2]:
            keys = self._about.get(name, set())
            keys.discard(key)
            if not keys:
                self._about.pop(name, None)

    def _is_first_over(self, moment: float) -> bool:
        return bool(self._kept) and next(iter(self._kept.values()))[0] <= moment


def _names(value: Any) -> set[str]:
    """Return the ids and texts in a question or an answer."""
    if isinstance(value, str | UUID):
        return {str(value)}
    if isinstance(value, tuple | list | frozenset):
        return set().union(*map(_names, value))
    if is_dataclass(value):
        return set().union(*(_names(getattr(value, field.name)) for field in fields(value)))
    return set()

"""How many requests of one kind a minute may see, counted in this process.

Two counts per key, of this minute and of the one before, weighted by how much of it still lies within the last 60
seconds. The library `limits` answers the same question; its storage in memory starts a thread for nearly every request
of a quiet server to look through all of its keys, which one event loop that serves everybody cannot afford.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable

from rowhouse.core.errors import TooMany

WINDOW_S = 60.0
_ROUNDING = 1e-6


class RateReached(TooMany):
    """A caller or a workspace sent more requests in a minute than its limit. kind: "caller" or "tenant"."""

    code = "rate_reached"

    def __init__(self, kind: str, limit: int, wait_s: int) -> None:
        whose = "This workspace" if kind == "tenant" else "This key or session"
        super().__init__(f"{whose} sent more than {limit} requests in a minute; wait {wait_s} s.", retry_after_s=wait_s)
        self.kind, self.limit = kind, limit

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return RateLimit-Policy and RateLimit, in the form of the IETF's draft of HTTP rate limits."""
        policy = f'"{self.kind}";q={self.limit};w={int(WINDOW_S)}'
        left = f'"{self.kind}";r=0;t={self.retry_after_s}'
        return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode())]


class Rate:
    """Counts requests by key; what is refused is not counted. limit: per minute, 0 for none.

    Keys of the last two minutes are kept and no others, so the memory is bounded by who was there.
    """

    def __init__(self, kind: str, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.kind, self.limit, self._clock = kind, limit, clock
        self._now: dict[Hashable, int] = {}
        self._before: dict[Hashable, int] = {}
        self._ends_at = clock() + WINDOW_S

    def count(self, key: Hashable) -> None:
        """Count one request.  Raises RateReached, with the seconds to wait, when the minute is full."""
        if not self.limit:
            return
        now = self._clock()
        if now >= self._ends_at:
            self._turn(now)
        here, before = self._now.get(key, 0), self._before.get(key, 0)
        if here + before * (self._ends_at - now) / WINDOW_S > self.limit - 1 + _ROUNDING:
            raise RateReached(self.kind, self.limit, self._wait_s(here, before, now))
        self._now[key] = here + 1

    def _turn(self, now: float) -> None:
        passed = int((now - self._ends_at) // WINDOW_S) + 1
        self._before = self._now if passed == 1 else {}
        self._now = {}
        self._ends_at += passed * WINDOW_S

    def _wait_s(self, here: int, before: int, now: float) -> int:
        left_s = self._ends_at - now
        if here < self.limit:
            return max(1, math.ceil(left_s - (self.limit - 1 - here) * WINDOW_S / before))
        # This minute is full by itself: its count becomes the one before, and has to lose one request then.
        return max(1, math.ceil(left_s + WINDOW_S - (self.limit - 1) * WINDOW_S / here))

    def __len__(self) -> int:
        return len(self._now.keys() | self._before.keys())

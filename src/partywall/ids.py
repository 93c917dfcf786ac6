"""Time-ordered identifiers (UUID version 7, RFC 9562), made by the application so that no sequence is shared."""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0


def uuid7() -> UUID:
    """Return a UUID version 7.

    Values made by one process strictly increase: 48 bits of milliseconds, 12 bits of sub-millisecond time or counter,
    62 random bits.
    """
    global _last
    with _lock:
        # Milliseconds and a 12-bit fraction in one number, pushed forward when the clock stands or steps back.
        stamp = time.time_ns() * 4096 // 1_000_000
        _last = stamp = max(stamp, _last + 1)
    random_bits = int.from_bytes(os.urandom(8), "big") & (1 << 62) - 1
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | random_bits
    return UUID(int=value)

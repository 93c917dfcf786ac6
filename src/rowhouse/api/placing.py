"""Placing the same caller again: what was decided for equal headers holds for half a second."""

from __future__ import annotations

from typing import Any

from partywall.asgi import Scope, TenantMiddleware
from partywall.resolve import Resolution
from rowhouse.identity.remembered import Remembered

# Everything of a request that its placing depends on, beside its peer and scheme.
_DECIDING = frozenset({b"host", b"x-forwarded-host", b"x-forwarded-proto", b"x-tenant-id", b"authorization", b"cookie"})
# With the half second that a look-up may be old when nobody tells of changes, this stays below one.
LIFE_S = 0.5


class Placing(TenantMiddleware):
    """The tenant middleware, with a memory. Refusals are never remembered.

    remembered: told of changes like the memory of the look-ups, and keyed by the very bytes that were sent.
    """

    remembered: Remembered

    async def place(self, scope: Scope) -> Resolution:
        """Return where a request belongs, as it was decided for the same headers a moment ago."""
        client: Any = scope.get("client")
        deciding = tuple([header for header in scope["headers"] if header[0].lower() in _DECIDING])
        key = (deciding, client[0] if client else None, scope.get("scheme"))
        return await self.remembered.get(key, lambda: super(Placing, self).place(scope))

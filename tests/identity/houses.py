"""What the identity tests share: one moment, one password, and name servers that answer what a test has published."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from partywall import Tenant
from rowhouse.core.permissions import Principal
from rowhouse.identity.dns import DnsTimeout
from rowhouse.identity.tokens import COOKIE

PASSWORD = "four small red houses"
NOW = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)


class FakeTxt:
    """Name servers that answer what a test has published."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.is_down = False

    async def txt(self, name: str) -> list[str]:
        if self.is_down:
            raise DnsTimeout("down")
        return self.records.get(name, [])


@dataclass(frozen=True)
class House:
    """One workspace and its owner."""

    tenant: Tenant
    owner: Principal
    owner_email: str


@dataclass
class Clocks:
    """The two clocks of a directory, moved by hand."""

    now: datetime = NOW
    monotonic_s: float = 0.0


def with_cookie(cookie: str) -> dict:
    """Return the scope of a request with a log-in's cookie."""
    return {"headers": [(b"cookie", f"theme=dark; {COOKIE}={cookie}".encode())]}


def with_key(key: str) -> dict:
    """Return the scope of a request with a key."""
    return {"headers": [(b"authorization", f"Bearer {key}".encode())]}

"""Questions to the domain name system, behind a protocol that tests answer themselves."""

from __future__ import annotations

from typing import Protocol

from dns.asyncresolver import Resolver
from dns.exception import DNSException
from dns.resolver import NXDOMAIN, NoAnswer

from rowhouse.core.errors import Unavailable

TIMEOUT_S = 5.0


class DnsTimeout(Unavailable):
    """The name servers gave no usable answer in time."""

    code = "dns_timeout"


class TxtResolver(Protocol):
    """Who answers TXT questions."""

    async def txt(self, name: str) -> list[str]:
        """Return the TXT values of a name, empty when there are none.  Raises DnsTimeout without an answer."""


class DnsTxtResolver:
    """Asks the name servers this machine is configured with."""

    async def txt(self, name: str) -> list[str]:
        """Return the TXT values of a name, empty when there are none.  Raises DnsTimeout after five seconds."""
        try:
            answer = await Resolver().resolve(f"{name}.", "TXT", lifetime=TIMEOUT_S)
        except (NXDOMAIN, NoAnswer):
            return []
        except DNSException as error:
            raise _unanswered(name) from error
        return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]


def _unanswered(name: str) -> DnsTimeout:
    return DnsTimeout(f"The name servers of {name} did not answer; try again in a few minutes.")

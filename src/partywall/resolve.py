"""Which tenant a request belongs to: five methods propose one, the cross-checks decide.

In order: subdomain, custom domain, X-Tenant-ID, the caller's membership, the default of single-tenant mode.
L0  the host is a base domain, one label below it, or a verified custom domain; every other host is unknown.
L1  host, header and credential name the same tenant, and a service key is granted it.
L2  the caller has an active membership there, whatever proposed the tenant.
A tenant that does not exist and one that is not the caller's are refused with the same answer after the same look-ups.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal, Protocol
from uuid import UUID

from partywall.context import Tenant
from partywall.errors import ResolutionError, TenantMismatch

Method = Literal["subdomain", "custom_domain", "header", "membership", "default"]

REFUSALS: Mapping[str, tuple[int, str]] = {
    "bad_host": (400, "The request must name exactly one valid host."),
    "bad_tenant_header": (400, "X-Tenant-ID may be sent only once."),
    "authentication_required": (401, "This request needs a credential; sign in or send a key."),
    "unknown_host": (404, "Nothing is served at this address."),
    "tenant_not_found": (404, "This workspace does not exist, or you are not a member of it."),
    "tenant_suspended": (423, "This workspace is suspended; its owner can have it reopened."),
}
RESERVED_SLUGS = frozenset({"www", "api", "app", "admin", "auth", "static", "assets", "mail", "status", "support"})

_SERVED = frozenset({"ACTIVE", "SUSPENDED"})
_SCHEMES = frozenset({"http", "https", "ws", "wss"})
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PORT = re.compile(r"[0-9]{1,5}")
# Asked for in place of a tenant that does not exist, so that the answer takes the look-ups a foreign tenant takes.
_NOBODY = UUID(int=0)


class Refused(ResolutionError):
    """A request refused for a reason in REFUSALS.

    conflict: the two sources that disagree, such as "host/credential", or empty; for log and counter, never answered.
    """

    def __init__(self, code: str, *, conflict: str = "") -> None:
        status, message = REFUSALS[code]
        super().__init__(code, message, status=status)
        self.conflict = conflict


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the edge saw, in the order received; nothing is decided yet.

    hosts, forwarded_hosts, forwarded_protos, tenant_header: every value of Host, X-Forwarded-Host, X-Forwarded-Proto
    and X-Tenant-ID.  peer: the address of the other end of the connection itself, never one taken from a header.
    """

    hosts: tuple[str, ...]
    forwarded_hosts: tuple[str, ...] = ()
    forwarded_protos: tuple[str, ...] = ()
    peer: str | None = None
    tenant_header: tuple[str, ...] = ()
    scheme: str = "https"


@dataclass(frozen=True, slots=True)
class Credential:
    """What the product's authenticator has proven about the caller.

    subject_id: the user, or the service key itself.  tenant_id: the tenant the credential is bound to, if any.
    grants: the tenants a service key may work for; not read for other kinds.
    """

    kind: Literal["session", "personal_key", "service_key"]
    subject_id: UUID
    credential_id: UUID
    tenant_id: UUID | None = None
    grants: frozenset[UUID] = frozenset()
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Member:
    """The caller's active membership of one tenant, or a service key's grant."""

    subject_id: UUID
    tenant_id: UUID
    role: str
    capabilities: frozenset[str] = frozenset()


class Directory(Protocol):
    """The look-ups the product provides; each returns None, or an empty sequence, when there is nothing."""

    async def tenant_by_slug(self, slug: str) -> Tenant | None:
        """Return the tenant with this slug, whatever its status."""

    async def tenant_by_domain(self, domain: str) -> Tenant | None:
        """Return the tenant that has proven this domain; a mere claim does not count."""

    async def tenant_by_id(self, tenant_id: UUID) -> Tenant | None:
        """Return the tenant with this id, whatever its status."""

    async def memberships(self, credential: Credential) -> Sequence[UUID]:
        """Return the tenants of the caller's active memberships or grants, oldest first."""

    async def member(self, credential: Credential, tenant_id: UUID) -> Member | None:
        """Return the caller's active membership of, or grant for, this tenant."""


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """Where the product is served.

    base_domains: normalised, without port.  trusted_proxies: the only peers whose X-Forwarded headers are read; such a
    proxy must overwrite them.  default_tenant_slug: only in declared single-tenant mode.
    Raises ValueError for a base domain that is not normalised.
    """

    base_domains: tuple[str, ...]
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    default_tenant_slug: str | None = None
    reserved_slugs: frozenset[str] = RESERVED_SLUGS

    def __post_init__(self) -> None:
        for domain in self.base_domains:
            if not _is_normal(domain):
                raise ValueError(f"base domain {domain!r} is not normalised; write it in lower case without port or dot")


@dataclass(frozen=True, slots=True)
class Resolution:
    """The decided answer: where the request arrived, for which tenant, and who is asking.

    base_domain: whether the host is a base domain itself.  member: present exactly when tenant and credential are.
    scheme: as the caller used it, a trusted proxy's X-Forwarded-Proto considered.
    """

    host: str
    base_domain: bool
    tenant: Tenant | None
    method: Method | None
    credential: Credential | None
    member: Member | None
    scheme: str = "https"


async def resolve(facts: RequestFacts, credential: Credential | None, directory: Directory, config: ResolverConfig) -> Resolution:
    """Return the tenant and the caller's membership for one request, or refuse it.

    Without a credential the tenant of the host stands alone, for the log-in page.  A base domain may have no tenant.
    Raises Refused as REFUSALS lists, TenantMismatch if the directory answers with another row than was asked for.
    """
    host, scheme = request_host(facts, config), request_scheme(facts, config)
    on_base = host in config.base_domains
    tenant, method = (None, None) if on_base else await _of_host(host, directory, config)
    if facts.tenant_header:
        named = _named(facts.tenant_header, credential)
        if tenant is None:
            tenant, method = await _look_up(named, directory), "header"
        elif named not in (tenant.id, tenant.slug):
            raise Refused("tenant_not_found", conflict="host/header")
    elif tenant is None:
        tenant, method = await _implied(credential, directory, config)
    member = None
    if credential is not None and method is not None:
        member = await _admit(credential, tenant, method, directory)
        if tenant is not None and tenant.status == "SUSPENDED":
            raise Refused("tenant_suspended")
    if method is not None and tenant is None:
        raise Refused("tenant_not_found")
    return Resolution(host, on_base, tenant, method, credential, member, scheme)


def request_host(facts: RequestFacts, config: ResolverConfig) -> str:
    """Return the host the caller asked for, normalised.

    X-Forwarded-Host counts only from a trusted proxy.  Raises Refused("bad_host") unless there is exactly one value.
    """
    host = _only(facts.hosts)
    if facts.forwarded_hosts and _is_trusted(facts.peer, config):
        host = _only(facts.forwarded_hosts)
    return normalise_host(host)


def request_scheme(facts: RequestFacts, config: ResolverConfig) -> str:
    """Return the scheme the caller used; X-Forwarded-Proto counts only from a trusted proxy.

    Raises Refused("bad_host") if a trusted proxy sent several values or an unknown one.
    """
    if not (facts.forwarded_protos and _is_trusted(facts.peer, config)):
        return facts.scheme
    scheme = _only(facts.forwarded_protos).lower()
    if scheme not in _SCHEMES:
        raise Refused("bad_host")
    return scheme


@lru_cache(4_096)
def normalise_host(host: str) -> str:
    """Return a host name in lower-case A-labels, without port and without the root's dot.

    Raises Refused("bad_host") for anything but a DNS name or an IPv4 address.  A label whose Unicode form does not
    survive the way to its A-label and back (ß, full-width letters) is refused, not guessed at.
    """
    name, colon, port = host.partition(":")
    if len(name) > 254 or (colon and not (_PORT.fullmatch(port) and 0 < int(port) < 65536)):
        raise Refused("bad_host")
    labels = [_a_label(label) for label in name.removesuffix(".").split(".")]
    normal = ".".join(labels)
    if len(normal) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise Refused("bad_host")
    return normal


def _a_label(label: str) -> str:
    if label.isascii():
        return label.lower()
    try:
        encoded = label.encode("idna")
        survives = encoded.startswith(b"xn--") and encoded.decode("idna") == label.lower()
    except UnicodeError:
        survives = False
    return encoded.decode("ascii") if survives else ""


def _is_normal(domain: str) -> bool:
    try:
        return normalise_host(domain) == domain
    except ResolutionError:
        return False


def _only(values: tuple[str, ...]) -> str:
    if len(values) != 1:
        raise Refused("bad_host")
    return values[0]


def _is_trusted(peer: str | None, config: ResolverConfig) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in config.trusted_proxies)


async def _of_host(host: str, directory: Directory, config: ResolverConfig) -> tuple[Tenant, Method]:
    # No top-level domain starts with a digit, so such a host is an address in one of its spellings, or below one.
    if host.rpartition(".")[2][0].isdigit():
        raise Refused("unknown_host")
    parents = [base for base in config.base_domains if host.endswith(f".{base}")]
    method: Method = "subdomain" if parents else "custom_domain"
    if parents:
        slug = host.removesuffix(f".{max(parents, key=len)}")
        # Nothing below a base domain is ever looked up as a custom domain: its owner could not have proven it.
        if "." in slug or slug in config.reserved_slugs:
            raise Refused("unknown_host")
        tenant = await _look_up(slug, directory)
    else:
        tenant = _served(await directory.tenant_by_domain(host))
    if tenant is None:
        raise Refused("unknown_host")
    return tenant, method


def _named(values: tuple[str, ...], credential: Credential | None) -> UUID | str | None:
    """Return what X-Tenant-ID names: an id if it has the form of one, else a slug; None if it can be neither."""
    if credential is None:
        raise Refused("authentication_required")
    if len(values) != 1:
        raise Refused("bad_tenant_header")
    name = values[0].strip(" \t")
    # Only ASCII is folded: lower() would also turn the Kelvin sign into a k.
    name = name.lower() if name.isascii() else name
    if _UUID.fullmatch(name):
        return UUID(name)
    return name if _LABEL.fullmatch(name) else None


async def _implied(
    credential: Credential | None, directory: Directory, config: ResolverConfig
) -> tuple[Tenant | None, Method | None]:
    if credential is not None and credential.tenant_id is not None:
        return await _look_up(credential.tenant_id, directory), "membership"
    memberships = set(await directory.memberships(credential)) if credential is not None else set()
    # One of several is never guessed: such a caller chooses by host or header.
    if len(memberships) == 1 and (tenant := await _look_up(memberships.pop(), directory)):
        return tenant, "membership"
    if config.default_tenant_slug is not None:
        return await _look_up(config.default_tenant_slug, directory), "default"
    return None, None


async def _admit(credential: Credential, tenant: Tenant | None, method: Method, directory: Directory) -> Member:
    source = "host" if method in ("subdomain", "custom_domain") else method
    tenant_id = _NOBODY if tenant is None else tenant.id
    if credential.tenant_id is not None and credential.tenant_id != tenant_id:
        raise Refused("tenant_not_found", conflict=f"{source}/credential")
    if credential.kind == "service_key" and tenant_id not in credential.grants:
        raise Refused("tenant_not_found", conflict=f"{source}/grants")
    member = await directory.member(credential, tenant_id)
    if tenant is None or member is None:
        raise Refused("tenant_not_found", conflict=f"{source}/membership")
    if (member.subject_id, member.tenant_id) != (credential.subject_id, tenant_id):
        raise TenantMismatch(f"asked for the membership in {tenant_id}, was given one of {member.tenant_id}")
    return member


async def _look_up(name: UUID | str | None, directory: Directory) -> Tenant | None:
    if name is None:
        return None
    tenant = await (directory.tenant_by_id(name) if isinstance(name, UUID) else directory.tenant_by_slug(name))
    if tenant is not None and name not in (tenant.id, tenant.slug):
        raise TenantMismatch(f"asked for tenant {name}, was given {tenant.id} ({tenant.slug})")
    return _served(tenant)


def _served(tenant: Tenant | None) -> Tenant | None:
    return tenant if tenant is not None and tenant.status in _SERVED else None

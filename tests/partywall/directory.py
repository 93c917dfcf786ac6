"""A directory held in memory, and the small cast that the resolver's tests use."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from uuid import UUID

from partywall.context import Tenant
from partywall.ids import uuid7
from partywall.resolve import Credential, Member, RequestFacts, ResolverConfig

PROXY = "10.0.0.7"
CONFIG = ResolverConfig(("rowhouse.example", "127.0.0.1"), trusted_proxies=(ip_network("10.0.0.0/8"),))
SINGLE = replace(CONFIG, default_tenant_slug="acme")

# Fixed, since the ids of cases hold them and every worker must collect the same cases.
TENANT_A = Tenant(UUID("0190a000-0000-7000-8000-0000000000aa"), "acme")
TENANT_B = Tenant(UUID("0190a000-0000-7000-8000-0000000000bb"), "birch")
CLOSED = {status: Tenant(uuid7(), status.lower(), status=status) for status in ("CANCELLED", "PENDING", "PURGED", "active")}
SUSPENDED = Tenant(uuid7(), "sleepy", status="SUSPENDED")

MEMBER_A = Credential("session", uuid7(), uuid7())
MEMBER_B = Credential("session", uuid7(), uuid7())
MEMBER_AB = Credential("session", uuid7(), uuid7())
STRANGER = Credential("session", uuid7(), uuid7())
ROBOT = Credential("service_key", uuid7(), uuid7(), grants=frozenset({TENANT_A.id}))


@dataclass
class MemoryDirectory:
    """Tenants, proven domains and active memberships; `look_ups` lists what was asked, in order."""

    tenants: list[Tenant] = field(default_factory=list)
    domains: dict[str, UUID] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    look_ups: list[str] = field(default_factory=list)

    async def tenant_by_slug(self, slug: str) -> Tenant | None:
        self.look_ups.append("tenant_by_slug")
        return next((tenant for tenant in self.tenants if tenant.slug == slug), None)

    async def tenant_by_domain(self, domain: str) -> Tenant | None:
        self.look_ups.append("tenant_by_domain")
        return next((tenant for tenant in self.tenants if tenant.id == self.domains.get(domain)), None)

    async def tenant_by_id(self, tenant_id: UUID) -> Tenant | None:
        self.look_ups.append("tenant_by_id")
        return next((tenant for tenant in self.tenants if tenant.id == tenant_id), None)

    async def memberships(self, credential: Credential) -> Sequence[UUID]:
        self.look_ups.append("memberships")
        return [member.tenant_id for member in self.members if member.subject_id == credential.subject_id]

    async def member(self, credential: Credential, tenant_id: UUID) -> Member | None:
        self.look_ups.append("member")
        asked = (credential.subject_id, tenant_id)
        return next((member for member in self.members if (member.subject_id, member.tenant_id) == asked), None)

    def join(self, credential: Credential, tenant: Tenant) -> None:
        self.members.append(Member(credential.subject_id, tenant.id, "MEMBER", frozenset({"opportunities:win"})))


def town() -> MemoryDirectory:
    """Return tenants A and B with a domain each, one suspended tenant, and one tenant of every status not served."""
    directory = MemoryDirectory(tenants=[TENANT_A, TENANT_B, SUSPENDED, *CLOSED.values()])
    directory.domains = {"crm.acme.test": TENANT_A.id, "xn--bcher-kva.test": TENANT_B.id}
    directory.domains |= {f"{tenant.slug}.test": tenant.id for tenant in (SUSPENDED, *CLOSED.values())}
    for credential, tenant in (
        (MEMBER_A, TENANT_A),
        (MEMBER_B, TENANT_B),
        (MEMBER_AB, TENANT_A),
        (MEMBER_AB, TENANT_B),
        (ROBOT, TENANT_A),
    ):
        directory.join(credential, tenant)
    return directory


def at(host: str, *, tenant: str | UUID | None = None, peer: str = "203.0.113.9", **others: tuple[str, ...]) -> RequestFacts:
    """Return the facts of a request to one host, with X-Tenant-ID if tenant is given."""
    header = () if tenant is None else (str(tenant),)
    return replace(RequestFacts(hosts=(host,), peer=peer, tenant_header=header), **others)

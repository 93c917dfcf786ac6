"""What a workspace's administrators work with: members, invitations, domains, keys."""

from __future__ import annotations

from rowhouse.core.permissions import Capability, Role
from rowhouse.core.resource import ADMIN_WRITES, Access, Replace, Resource
from rowhouse.identity.domains import ClaimedDomain, check_domain, claim, instructions, set_primary, verify
from rowhouse.identity.invitations import InvitedAddress, check_invitation, create_invitation, invite, renew
from rowhouse.identity.keys import check_key, create_key, refuse_create, rotate
from rowhouse.identity.members import MemberAddress, check_member, create_member
from rowhouse.identity.models import ApiKey, Invitation, Membership, TenantDomain

_MANAGERS_WRITE = Access(write=Role.ADMIN, capability=Capability.MEMBERS_MANAGE)

_STAFF = Access(write=Role.ADMIN, capability=Capability.MEMBERS_MANAGE)

members = Resource(
    model=Membership,
    name="members",
    group="workspace",
    write=(Membership.name, Membership.title, Membership.role, Membership.capabilities),
    filters=(Membership.role, Membership.email, Membership.external_id, Membership.created_at),
    search=(Membership.name, Membership.email, Membership.title),
    order=(Membership.name, Membership.created_at, Membership.role),
    import_key=(Membership.email, Membership.external_id),
    check=check_member,
    access=_MANAGERS_WRITE,
    replace={"create": Replace(create_member, MemberAddress)},
)

invitations = Resource(
    model=Invitation,
    name="invitations",
    group="workspace",
    write=(Invitation.name, Invitation.role, Invitation.capabilities),
    hidden=(Invitation.token_hash, Invitation.email_norm),
    filters=(Invitation.email, Invitation.role, Invitation.expires_at, Invitation.accepted_at),
    search=(Invitation.email, Invitation.name),
    order=(Invitation.created_at, Invitation.expires_at, Invitation.email),
    actions=(invite, renew),
    check=check_invitation,
    access=_MANAGERS_WRITE,
    replace={"create": Replace(create_invitation, InvitedAddress)},
)

domains = Resource(
    model=TenantDomain,
    name="domains",
    group="workspace",
    hidden=(TenantDomain.verify_token,),
    filters=(TenantDomain.status, TenantDomain.is_primary),
    search=(TenantDomain.domain,),
    order=(TenantDomain.domain, TenantDomain.created_at),
    actions=(instructions, verify, set_primary),
    check=check_domain,
    access=ADMIN_WRITES,
    replace={"create": Replace(claim, ClaimedDomain)},
)

# Any member may see which keys exist, whose they are and what they may do; no resource option limits reading by owner.
api_keys = Resource(
    model=ApiKey,
    name="api-keys",
    group="workspace",
    write=(ApiKey.name,),
    hidden=(ApiKey.secret_hash,),
    filters=(ApiKey.member_id, ApiKey.expires_at, ApiKey.last_used_at),
    search=(ApiKey.name, ApiKey.key_id),
    order=(ApiKey.created_at, ApiKey.name, ApiKey.expires_at),
    actions=(create_key, rotate),
    check=check_key,
    access=Access(write=Role.VIEWER),
    replace={"create": Replace(refuse_create)},
)

RESOURCES: tuple[Resource, ...] = (members, invitations, domains, api_keys)

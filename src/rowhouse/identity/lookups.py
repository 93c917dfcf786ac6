"""The statements of the look-ups before a tenant is known. They run as the identity role, each compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, BindParameter, DateTime, LargeBinary, Text, Uuid, any_, bindparam, select

from rowhouse.exchange import Ask, Statement
from rowhouse.identity.models import (
    ApiKey,
    Membership,
    ServiceKey,
    ServiceKeyGrant,
    TenantRow,
    User,
    UserSession,
    UserStatus,
    VerifiedDomain,
)


@dataclass(frozen=True, slots=True, eq=False)
class LookUp:
    """One question; its varying values are named parameters."""

    statement: Statement

    def ask(self, values: Mapping[str, Any]) -> Ask:
        """Return the question with its values."""
        return Ask(self, lambda: self.statement, values)


def _given(name: str, kind: Any) -> BindParameter[Any]:
    return bindparam(name, None, kind)


_NOW = _given("now", DateTime(timezone=True))
_TENANT: Statement = select(
    TenantRow.id,
    TenantRow.slug,
    TenantRow.name,
    TenantRow.status,
    TenantRow.timezone,
    TenantRow.currency,
    TenantRow.open_edit,
)
_PROVEN = select(VerifiedDomain.tenant_id).where(VerifiedDomain.domain == _given("domain", Text()))
_SERVED = TenantRow.status == any_(_given("served", ARRAY(Text())))

TENANT_BY_SLUG = LookUp(_TENANT.where(TenantRow.slug == _given("slug", Text())))
TENANT_BY_ID = LookUp(_TENANT.where(TenantRow.id == _given("tenant_id", Uuid())))
TENANT_BY_DOMAIN = LookUp(_TENANT.where(TenantRow.id == _PROVEN.scalar_subquery()))

SESSION = LookUp(
    select(UserSession.id, UserSession.user_id, UserSession.tenant_id, UserSession.expires_at, UserSession.last_seen_at)
    .join(User, User.id == UserSession.user_id)
    .where(UserSession.secret_hash == _given("secret", LargeBinary()), UserSession.revoked_at.is_(None))
    .where(UserSession.expires_at > _NOW, User.status == UserStatus.ACTIVE.value)
)
PERSONAL_KEYS = LookUp(
    select(
        ApiKey.id,
        ApiKey.tenant_id,
        ApiKey.member_id,
        ApiKey.secret_hash,
        ApiKey.scopes,
        ApiKey.expires_at,
        ApiKey.last_used_at,
    )
    .join(User, User.id == ApiKey.member_id)
    .where(ApiKey.key_id == _given("key_id", Text()), ApiKey.archived_at.is_(None))
    .where(ApiKey.expires_at > _NOW, User.status == UserStatus.ACTIVE.value)
)
SERVICE_KEY = LookUp(
    select(ServiceKey.id, ServiceKey.secret_hash, ServiceKey.scopes, ServiceKey.expires_at, ServiceKey.last_used_at)
    .where(ServiceKey.key_id == _given("key_id", Text()), ServiceKey.revoked_at.is_(None))
    .where(ServiceKey.expires_at > _NOW)
)
_GRANTS = ServiceKeyGrant.service_key_id == _given("service_key_id", Uuid())
GRANTS = LookUp(select(ServiceKeyGrant.tenant_id).where(_GRANTS, ServiceKeyGrant.revoked_at.is_(None)))
GRANT = LookUp(
    select(ServiceKeyGrant.role)
    .where(_GRANTS, ServiceKeyGrant.tenant_id == _given("tenant_id", Uuid()))
    .where(ServiceKeyGrant.revoked_at.is_(None))
)
GRANTED_TENANTS = LookUp(
    select(TenantRow.id).where(_SERVED, TenantRow.id == any_(_given("granted", ARRAY(Uuid())))).order_by(TenantRow.id)
)
_MEMBER = Membership.id == _given("member_id", Uuid())
TENANTS_OF_MEMBER = LookUp(
    select(TenantRow.id)
    .join(Membership, Membership.tenant_id == TenantRow.id)
    .where(_SERVED, _MEMBER, Membership.archived_at.is_(None))
    .order_by(Membership.created_at, TenantRow.id)
)
MEMBER = LookUp(
    select(Membership.id, Membership.tenant_id, Membership.role, Membership.capabilities)
    .where(Membership.tenant_id == _given("tenant_id", Uuid()), _MEMBER)
    .where(Membership.archived_at.is_(None))
)

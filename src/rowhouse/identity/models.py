"""Tables of people, workspaces, credentials."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from partywall import IdentityTable, OperatorTable, tenant_unique, uuid7
from rowhouse.core.db import Base, Record, choice, currency, short_text
from rowhouse.core.permissions import Role

_LOOK_UP = ("SELECT", "INSERT", "UPDATE")


class TenantStatus(StrEnum):
    """Life of a workspace."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    CANCELLED = "CANCELLED"
    PURGED = "PURGED"


class UserStatus(StrEnum):
    """Whether a person may log in."""

    ACTIVE = "ACTIVE"
    LOCKED = "LOCKED"
    DISABLED = "DISABLED"


class DomainStatus(StrEnum):
    """State of a custom domain's proof."""

    PENDING = "PENDING"
    VERIFIED = "VERIFIED"
    FAILED = "FAILED"


class TenantRow(IdentityTable, Base):
    """One customer organisation."""

    __tablename__ = "tenant"
    __reason__ = "the root of all tenants; read by host before a tenant is known"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    slug: Mapped[str] = short_text(50, unique=True)
    name: Mapped[str] = short_text(100)
    status: Mapped[str] = choice("status", TenantStatus, default=TenantStatus.ACTIVE)
    suspension_reason: Mapped[str | None] = short_text(500)
    timezone: Mapped[str] = short_text(64, default="UTC")
    currency: Mapped[str] = currency(default="USD")
    open_edit: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]


class User(IdentityTable, Base):
    """One person, whatever workspaces they belong to.

    email_proven_at: when the operator vouched for the address.  An account with a password and an unproven address may
    belong to whoever wrote that address first, so no workspace adds it without its holder's own consent.
    """

    __tablename__ = "app_user"
    __reason__ = "a person may belong to several tenants; tenants see their memberships only"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    email: Mapped[str] = short_text(254)
    email_norm: Mapped[str] = short_text(254, unique=True)
    name: Mapped[str] = short_text(200)
    password_hash: Mapped[str | None] = short_text(200, info={"secret": True})
    email_proven_at: Mapped[datetime | None]
    status: Mapped[str] = choice("status", UserStatus, default=UserStatus.ACTIVE)
    failed_count: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[datetime | None]
    last_login_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class UserSession(IdentityTable, Base):
    """One log-in. Only a hash of the cookie's secret is stored; a switch of workspace makes a new row."""

    __tablename__ = "user_session"
    __reason__ = "a session is read before its tenant is known"
    __table_args__ = (Index("ix_user_session_user", "user_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    secret_hash: Mapped[bytes] = mapped_column(unique=True, info={"secret": True})
    user_id: Mapped[UUID] = mapped_column(ForeignKey("app_user.id"))
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenant.id"))
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    ip: Mapped[str] = short_text(45, default="")
    user_agent: Mapped[str] = short_text(300, default="")


class LoginAttempt(IdentityTable, Base):
    """Log-in attempts of one address or one network, counted from `window_start` on, shared by all processes."""

    __tablename__ = "login_attempt"
    __reason__ = "throttling happens before a person or tenant is known"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    subject: Mapped[str] = short_text(100, unique=True)
    window_start: Mapped[datetime]
    count: Mapped[int] = mapped_column(default=0)


class ServiceKey(IdentityTable, Base):
    """A key of the platform's own services; it reaches the tenants it is granted, each named."""

    __tablename__ = "service_key"
    __reason__ = "a service key belongs to no single tenant; its grants name them"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    key_id: Mapped[str] = short_text(24, unique=True)
    secret_hash: Mapped[bytes] = mapped_column(info={"secret": True})
    name: Mapped[str] = short_text(100)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ServiceKeyGrant(IdentityTable, Base):
    """One tenant a service key may act for, and as which role."""

    __tablename__ = "service_key_grant"
    __reason__ = "read together with the service key, before a tenant is chosen"

    service_key_id: Mapped[UUID] = mapped_column(ForeignKey("service_key.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    role: Mapped[str] = choice("role", Role, default=Role.MEMBER)
    revoked_at: Mapped[datetime | None]


class Membership(Record, Base):
    """One person in one tenant; `id` is the person's id, so that owners and assignees are provably members.

    Archiving a membership ends it: the row stays as the target of what the person owned.
    """

    __tablename__ = "membership"
    __identity_access__ = _LOOK_UP
    __table_args__ = (Index("ix_membership_person", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-1000)
    name: Mapped[str] = short_text(200)
    email: Mapped[str] = short_text(254)
    role: Mapped[str] = choice("role", Role, default=Role.MEMBER)
    capabilities: Mapped[list[str]] = mapped_column(default=list)
    title: Mapped[str | None] = short_text(100)
    external_id: Mapped[str | None] = short_text(100)


class Invitation(Record, Base):
    """An offer of membership; only a hash of its token is stored."""

    __tablename__ = "invitation"
    __identity_access__ = ("SELECT", "UPDATE")
    __table_args__ = (
        Index(
            "uq_invitation_tenant_id_email_norm",
            "tenant_id",
            "email_norm",
            unique=True,
            postgresql_where="accepted_at IS NULL AND archived_at IS NULL",
        ),
        Index("ix_invitation_token", "token_hash"),
    )

    email: Mapped[str] = short_text(254)
    email_norm: Mapped[str] = short_text(254)
    name: Mapped[str | None] = short_text(200)
    role: Mapped[str] = choice("role", Role, default=Role.MEMBER)
    capabilities: Mapped[list[str]] = mapped_column(default=list)
    token_hash: Mapped[bytes] = mapped_column(info={"secret": True})
    expires_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None]


class TenantDomain(Record, Base):
    """A custom domain. Several tenants may claim one; the first proof by DNS wins (`VerifiedDomain`)."""

    __tablename__ = "tenant_domain"
    __identity_access__ = ("SELECT", "UPDATE")
    __table_args__ = (tenant_unique("domain"), Index("ix_tenant_domain_domain", "domain"))

    domain: Mapped[str] = short_text(253)
    status: Mapped[str] = choice("status", DomainStatus, default=DomainStatus.PENDING)
    is_primary: Mapped[bool] = mapped_column(default=False)
    verify_token: Mapped[str] = short_text(64)
    verified_at: Mapped[datetime | None]
    last_checked_at: Mapped[datetime | None]
    check_failures: Mapped[int] = mapped_column(default=0)


class VerifiedDomain(IdentityTable, Base):
    """Which tenant a proven domain belongs to: one row per domain in the whole deployment."""

    __tablename__ = "verified_domain"
    __reason__ = "the one global look-up from host to tenant; only proof writes it"

    domain: Mapped[str] = short_text(253, primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"))
    verified_at: Mapped[datetime]


class ApiKey(Record, Base):
    """A member's personal key, bound to one tenant; shown once, stored as a hash, scoped, expiring."""

    __tablename__ = "api_key"
    __identity_access__ = ("SELECT", "UPDATE")
    __table_args__ = (Index("ix_api_key_key_id", "key_id"), Index("ix_api_key_member", "tenant_id", "member_id"))

    key_id: Mapped[str] = short_text(24)
    secret_hash: Mapped[bytes] = mapped_column(info={"secret": True})
    name: Mapped[str] = short_text(100)
    scopes: Mapped[list[str]]
    member_id: Mapped[UUID]
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]


class PlatformAudit(OperatorTable, Base):
    """What the operator did across tenants, and why."""

    __tablename__ = "platform_audit"
    __reason__ = "the platform's own acts belong to no tenant"
    __table_args__ = (CheckConstraint("length(reason) >= 3", name="reason_given"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    created_at: Mapped[datetime]
    operation: Mapped[str] = short_text(100)
    reason: Mapped[str] = short_text(500)
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenant.id"))
    about: Mapped[dict[str, Any]] = mapped_column(default=dict)

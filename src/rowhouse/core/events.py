"""The outbox: what happened, written in the transaction in which it happened, delivered after it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from partywall import TenantScoped, tenant_index
from rowhouse.core.db import Base, short_text


class OutboxEvent(TenantScoped, Base):
    """One event; `dispatched_at` is set when its subscribers have been queued."""

    __tablename__ = "outbox_event"
    __table_args__ = (tenant_index("ix_outbox_event_waiting", "created_at", postgresql_where="dispatched_at IS NULL"),)

    name: Mapped[str] = short_text(100)
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    dispatched_at: Mapped[datetime | None] = mapped_column(default=None)
    request_id: Mapped[str] = short_text(64, default="")
    actor_id: Mapped[UUID | None] = mapped_column(default=None)

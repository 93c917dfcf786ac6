"""The tables of the CRM: companies, people, deals in their pipelines, and what was done about them.

Money is whole minor units. `amount_base_minor` and `weighted_minor` are in the tenant's currency, so they may be summed;
every other amount is in the currency beside it. Columns ending in `_norm` hold the form that is compared.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Numeric, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column

from partywall import tenant_index, tenant_reference, tenant_unique
from rowhouse.core.db import Audited, Base, Journal, Part, Record, choice, currency, money, orders, percent, short_text
from rowhouse.modules.crm.states import (
    AccountType,
    ActivityStatus,
    ActivityType,
    AmountSource,
    ContactRole,
    Direction,
    EmployeeBand,
    ForecastCategory,
    LeadSource,
    Lifecycle,
    MergedKind,
    Priority,
    Recurrence,
    StageChange,
    StageType,
)


class Account(Record, Base):
    """A company or organisation we deal with. Scores are written by Customer Success; null means unknown."""

    __tablename__ = "account"
    __table_args__ = (
        tenant_reference("owner_user_id", "membership"),
        tenant_reference("parent_account_id", "account"),
        tenant_reference("merged_into_id", "account"),
        tenant_unique("external_id"),
        tenant_index("ix_account_owner", "owner_user_id"),
        tenant_index("ix_account_parent", "parent_account_id"),
        tenant_index("ix_account_merged_into", "merged_into_id"),
        tenant_index("ix_account_type", "type"),
        tenant_index("ix_account_name_norm", "name_norm"),
        tenant_index("ix_account_domain_norm", "domain_norm"),
        tenant_index("ix_account_phone_norm", "phone_norm"),
        *orders("account", "created_at", "name"),
    )

    name: Mapped[str] = short_text(200)
    name_norm: Mapped[str] = short_text(200, default="")
    type: Mapped[str] = choice("type", AccountType, default=AccountType.PROSPECT)
    website: Mapped[str | None] = short_text(2048)
    domain_norm: Mapped[str | None] = short_text(253)
    phone: Mapped[str | None] = short_text(50)
    phone_norm: Mapped[str | None] = short_text(50)
    industry: Mapped[str | None] = short_text(100)
    employee_band: Mapped[str | None] = choice("employee_band", EmployeeBand)
    employee_count: Mapped[int | None] = mapped_column(info={"minimum": 0})
    annual_revenue_minor: Mapped[int | None] = money("annual_revenue_minor")
    currency: Mapped[str | None] = currency()
    billing_address: Mapped[dict[str, Any] | None]
    shipping_address: Mapped[dict[str, Any] | None]
    description: Mapped[str | None] = short_text(10_000)
    founded_year: Mapped[int | None] = mapped_column(info={"minimum": 1000, "maximum": 2200})
    parent_account_id: Mapped[UUID | None]
    owner_user_id: Mapped[UUID | None]
    external_id: Mapped[str | None] = short_text(200)
    tags: Mapped[list[str]] = mapped_column(default=list)
    health_score: Mapped[int | None] = percent("health_score")
    engagement_score: Mapped[int | None] = percent("engagement_score")
    churn_risk: Mapped[Decimal | None] = mapped_column(
        Numeric(5, 4), CheckConstraint("churn_risk BETWEEN 0 AND 1", name="churn_risk_range")
    )
    last_activity_at: Mapped[datetime | None]
    next_activity_at: Mapped[datetime | None]
    merged_into_id: Mapped[UUID | None]


class CRMContact(Record, Base):
    """A person, from lead to customer. `name` is made of the parts, for lists and search."""

    __tablename__ = "crm_contact"
    __table_args__ = (
        tenant_reference("account_id", "account"),
        tenant_reference("owner_user_id", "membership"),
        tenant_reference("merged_into_id", "crm_contact"),
        tenant_unique("external_id"),
        tenant_index("ix_crm_contact_merged_into", "merged_into_id"),
        tenant_index("uq_crm_contact_email_norm", "email_norm", unique=True, postgresql_where="archived_at IS NULL"),
        # Checked at commit, so that one person may take over from another in one transaction.
        ExcludeConstraint(
            ("tenant_id", "="),
            ("account_id", "="),
            where="is_primary AND archived_at IS NULL",
            using="btree",
            deferrable=True,
            initially="DEFERRED",
            name="ex_crm_contact_primary",
        ),
        tenant_index("ix_crm_contact_account", "account_id"),
        tenant_index("ix_crm_contact_lifecycle", "lifecycle"),
        tenant_index("ix_crm_contact_owner", "owner_user_id"),
        tenant_index("ix_crm_contact_name_norm", "name_norm"),
        tenant_index("ix_crm_contact_phone_norm", "phone_norm"),
        *orders("crm_contact", "created_at", "name"),
    )

    name: Mapped[str] = short_text(254, default="")
    name_norm: Mapped[str] = short_text(254, default="")
    first_name: Mapped[str | None] = short_text(100)
    last_name: Mapped[str | None] = short_text(100)
    email: Mapped[str | None] = short_text(254)
    email_norm: Mapped[str | None] = short_text(254)
    phone: Mapped[str | None] = short_text(50)
    phone_norm: Mapped[str | None] = short_text(50)
    mobile: Mapped[str | None] = short_text(50)
    job_title: Mapped[str | None] = short_text(100)
    department: Mapped[str | None] = short_text(100)
    account_id: Mapped[UUID | None]
    is_primary: Mapped[bool] = mapped_column(default=False)
    lifecycle: Mapped[str] = choice("lifecycle", Lifecycle, default=Lifecycle.LEAD)
    lead_source: Mapped[str | None] = choice("lead_source", LeadSource)
    lead_score: Mapped[int | None] = percent("lead_score")
    lead_score_at: Mapped[datetime | None]
    do_not_contact: Mapped[bool] = mapped_column(default=False)
    consent_email: Mapped[bool] = mapped_column(default=False)
    consent_at: Mapped[datetime | None]
    consent_source: Mapped[str | None] = short_text(100)
    linkedin_url: Mapped[str | None] = short_text(2048)
    twitter_url: Mapped[str | None] = short_text(2048)
    address: Mapped[dict[str, Any] | None]
    description: Mapped[str | None] = short_text(10_000)
    owner_user_id: Mapped[UUID | None]
    external_id: Mapped[str | None] = short_text(200)
    tags: Mapped[list[str]] = mapped_column(default=list)
    last_activity_at: Mapped[datetime | None]
    next_activity_at: Mapped[datetime | None]
    merged_into_id: Mapped[UUID | None]


class Pipeline(Record, Base):
    """A sequence of stages deals go through. One of a tenant's pipelines is its default."""

    __tablename__ = "pipeline"
    __table_args__ = (
        tenant_unique("name"),
        tenant_index("uq_pipeline_default", unique=True, postgresql_where="is_default"),
        CheckConstraint("is_active OR NOT is_default", name="is_default_active"),
    )

    name: Mapped[str] = short_text(100)
    description: Mapped[str | None] = short_text(2000)
    is_default: Mapped[bool] = mapped_column(default=False)
    is_active: Mapped[bool] = mapped_column(default=True)


class PipelineStage(Part, Base):
    """One step of a pipeline. Entering it asks for `required_fields`; a deal goes stale after `rotten_days`."""

    __tablename__ = "pipeline_stage"
    __table_args__ = (
        tenant_reference("pipeline_id", "pipeline", ondelete="CASCADE"),
        tenant_unique("pipeline_id", "id"),
        tenant_unique("pipeline_id", "name"),
        # Checked at commit, so that stages may swap places.
        UniqueConstraint("tenant_id", "pipeline_id", "position", deferrable=True, initially="DEFERRED"),
        CheckConstraint("type <> 'WON' OR probability = 100", name="probability_won"),
        CheckConstraint("type <> 'LOST' OR probability = 0", name="probability_lost"),
    )

    pipeline_id: Mapped[UUID]
    name: Mapped[str] = short_text(100)
    description: Mapped[str | None] = short_text(2000)
    color: Mapped[str | None] = short_text(20)
    position: Mapped[int] = mapped_column(info={"minimum": 0, "maximum": 1000})
    type: Mapped[str] = choice("type", StageType, default=StageType.OPEN)
    probability: Mapped[int] = percent("probability", default=0)
    forecast_category: Mapped[str] = choice("forecast_category", ForecastCategory, default=ForecastCategory.PIPELINE)
    rotten_days: Mapped[int | None] = mapped_column(info={"minimum": 1, "maximum": 3650})
    required_fields: Mapped[list[str]] = mapped_column(default=list)


class Opportunity(Record, Base):
    """A deal. Where it stands is changed by its actions alone, so that its history is complete."""

    __tablename__ = "opportunity"
    __table_args__ = (
        tenant_reference("account_id", "account", ondelete="RESTRICT"),
        tenant_reference("competitor_account_id", "account"),
        tenant_reference("owner_user_id", "membership"),
        tenant_reference("pipeline_id", "pipeline", ondelete="RESTRICT"),
        # One key proves that the stage is of the pipeline and the pipeline of the tenant.
        ForeignKeyConstraint(
            ["tenant_id", "pipeline_id", "stage_id"],
            ["pipeline_stage.tenant_id", "pipeline_stage.pipeline_id", "pipeline_stage.id"],
            ondelete="RESTRICT",
        ),
        CheckConstraint("(status = 'OPEN') = (closed_at IS NULL)", name="closed_at_status"),
        tenant_unique("number"),
        tenant_unique("external_id"),
        tenant_index("ix_opportunity_owner", "owner_user_id", "status"),
        tenant_index("ix_opportunity_account", "account_id", "status"),
        tenant_index("ix_opportunity_competitor", "competitor_account_id"),
        tenant_index("ix_opportunity_stage", "pipeline_id", "stage_id", "board_rank"),
        tenant_index("ix_opportunity_due", "expected_close_date", postgresql_where="status = 'OPEN'"),
        tenant_index("ix_opportunity_closed", "status", "closed_at"),
        *orders("opportunity", "created_at", "name"),
    )

    number: Mapped[int]
    name: Mapped[str] = short_text(200)
    account_id: Mapped[UUID | None]
    pipeline_id: Mapped[UUID]
    stage_id: Mapped[UUID]
    status: Mapped[str] = choice("status", StageType, default=StageType.OPEN)
    amount_minor: Mapped[int | None] = money("amount_minor")
    currency: Mapped[str] = currency()
    amount_source: Mapped[str] = choice("amount_source", AmountSource, default=AmountSource.MANUAL)
    amount_base_minor: Mapped[int | None] = money("amount_base_minor")
    probability: Mapped[int] = percent("probability", default=0)
    probability_overridden: Mapped[bool] = mapped_column(default=False)
    weighted_minor: Mapped[int] = money("weighted_minor", default=0)
    forecast_category: Mapped[str] = choice("forecast_category", ForecastCategory, default=ForecastCategory.PIPELINE)
    expected_close_date: Mapped[date | None]
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    stage_entered_at: Mapped[datetime]
    lead_source: Mapped[str | None] = choice("lead_source", LeadSource)
    lost_reason: Mapped[str | None] = short_text(100)
    lost_detail: Mapped[str | None] = short_text(2000)
    competitor_account_id: Mapped[UUID | None]
    next_step: Mapped[str | None] = short_text(500)
    next_step_due_on: Mapped[date | None]
    description: Mapped[str | None] = short_text(10_000)
    board_rank: Mapped[str] = mapped_column(String(200, collation="C"))
    owner_user_id: Mapped[UUID | None]
    external_id: Mapped[str | None] = short_text(200)
    tags: Mapped[list[str]] = mapped_column(default=list)
    last_activity_at: Mapped[datetime | None]
    next_activity_at: Mapped[datetime | None]


class OpportunityContact(Part, Base):
    """Which person plays which role in a deal; at most one of them is the primary one."""

    __tablename__ = "opportunity_contact"
    __table_args__ = (
        tenant_reference("opportunity_id", "opportunity", ondelete="CASCADE"),
        tenant_reference("contact_id", "crm_contact", ondelete="CASCADE"),
        tenant_unique("opportunity_id", "contact_id"),
        ExcludeConstraint(
            ("tenant_id", "="),
            ("opportunity_id", "="),
            where="is_primary",
            using="btree",
            deferrable=True,
            initially="DEFERRED",
            name="ex_opportunity_contact_primary",
        ),
        tenant_index("ix_opportunity_contact_contact", "contact_id"),
    )

    opportunity_id: Mapped[UUID]
    contact_id: Mapped[UUID]
    role: Mapped[str] = choice("role", ContactRole, default=ContactRole.OTHER)
    role_note: Mapped[str | None] = short_text(200)
    is_primary: Mapped[bool] = mapped_column(default=False)


class OpportunityLineItem(Part, Base):
    """A priced line of a deal. `net_minor` is one period's price, `total_minor` that of the whole term."""

    __tablename__ = "opportunity_line_item"
    __table_args__ = (
        tenant_reference("opportunity_id", "opportunity", ondelete="CASCADE"),
        tenant_index("ix_opportunity_line_item_deal", "opportunity_id", "position"),
        CheckConstraint("quantity > 0", name="quantity_range"),
        CheckConstraint("discount_percent BETWEEN 0 AND 100", name="discount_percent_range"),
    )

    opportunity_id: Mapped[UUID]
    position: Mapped[int] = mapped_column(default=0, info={"minimum": 0})
    name: Mapped[str] = short_text(200)
    product_code: Mapped[str | None] = short_text(100)
    description: Mapped[str | None] = short_text(2000)
    quantity: Mapped[Decimal] = mapped_column(Numeric(12, 3), default=Decimal(1), info={"minimum": Decimal("0.001")})
    unit_price_minor: Mapped[int] = money("unit_price_minor")
    discount_percent: Mapped[Decimal] = mapped_column(Numeric(5, 2), default=Decimal(0), info={"minimum": 0, "maximum": 100})
    discount_minor: Mapped[int] = money("discount_minor", default=0)
    tax_percent: Mapped[Decimal] = mapped_column(Numeric(5, 2), default=Decimal(0), info={"minimum": 0, "maximum": 100})
    recurrence: Mapped[str] = choice("recurrence", Recurrence, default=Recurrence.ONE_TIME)
    term_months: Mapped[int | None] = mapped_column(info={"minimum": 1, "maximum": 1200})
    net_minor: Mapped[int] = money("net_minor", default=0)
    total_minor: Mapped[int] = money("total_minor", default=0)


class OpportunityStageHistory(Journal, Base):
    """Every change of where a deal stands, never altered; `changed_at` is when it counts as having happened."""

    __tablename__ = "opportunity_stage_history"
    __table_args__ = (
        tenant_reference("opportunity_id", "opportunity", ondelete="CASCADE"),
        tenant_reference("from_stage_id", "pipeline_stage", ondelete="RESTRICT"),
        tenant_reference("to_stage_id", "pipeline_stage", ondelete="RESTRICT"),
        tenant_index("ix_opportunity_stage_history_deal", "opportunity_id", "changed_at"),
        tenant_index("ix_opportunity_stage_history_to", "to_stage_id", "changed_at"),
        tenant_index("ix_opportunity_stage_history_from", "from_stage_id"),
        *orders("opportunity_stage_history", "changed_at"),
    )

    opportunity_id: Mapped[UUID]
    kind: Mapped[str] = choice("kind", StageChange)
    from_stage_id: Mapped[UUID | None]
    to_stage_id: Mapped[UUID]
    from_probability: Mapped[int | None] = percent("from_probability")
    to_probability: Mapped[int] = percent("to_probability")
    amount_at: Mapped[int | None] = money("amount_at")
    currency: Mapped[str] = currency()
    changed_by_id: Mapped[UUID | None]
    changed_at: Mapped[datetime]
    seconds_in_previous: Mapped[int | None]
    note: Mapped[str | None] = short_text(2000)


class CRMActivity(Record, Base):
    """A call, mail, meeting, task or note: done, or still to do. It belongs to an account, a person or a deal, or is a task."""

    __tablename__ = "crm_activity"
    __table_args__ = (
        tenant_reference("account_id", "account"),
        tenant_reference("contact_id", "crm_contact"),
        tenant_reference("opportunity_id", "opportunity"),
        tenant_reference("owner_user_id", "membership"),
        CheckConstraint("(status = 'COMPLETED') = (completed_at IS NOT NULL)", name="completed_at_status"),
        tenant_unique("external_source", "external_id"),
        tenant_index("ix_crm_activity_account", "account_id", "status"),
        tenant_index("ix_crm_activity_contact", "contact_id", "status"),
        tenant_index("ix_crm_activity_opportunity", "opportunity_id", "status"),
        tenant_index("ix_crm_activity_owner", "owner_user_id", "status", "due_at"),
        *orders("crm_activity", "created_at", "due_at"),
    )

    type: Mapped[str] = choice("type", ActivityType)
    subject: Mapped[str | None] = short_text(200)
    description: Mapped[str | None] = short_text(10_000)
    outcome: Mapped[str | None] = short_text(2000)
    account_id: Mapped[UUID | None]
    contact_id: Mapped[UUID | None]
    opportunity_id: Mapped[UUID | None]
    direction: Mapped[str | None] = choice("direction", Direction)
    status: Mapped[str] = choice("status", ActivityStatus, default=ActivityStatus.PLANNED)
    priority: Mapped[str] = choice("priority", Priority, default=Priority.NORMAL)
    scheduled_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    duration_minutes: Mapped[int | None] = mapped_column(info={"minimum": 0, "maximum": 1440})
    owner_user_id: Mapped[UUID | None]
    external_source: Mapped[str | None] = short_text(100)
    external_id: Mapped[str | None] = short_text(200)


class ExchangeRate(Record, Base):
    """What one unit of a foreign currency is worth in the tenant's own, from a day on."""

    __tablename__ = "exchange_rate"
    __table_args__ = (tenant_unique("currency", "as_of"), CheckConstraint("rate > 0", name="rate_range"))

    currency: Mapped[str] = currency()
    as_of: Mapped[date]
    rate: Mapped[Decimal] = mapped_column(Numeric(20, 10), info={"minimum": Decimal("0.0000000001")})


class MergeLog(Audited, Base):
    """One merge: what was chosen, how the merged rows looked, and every change it made, so that it can be undone.

    moved: changes in order, each {table, id, column, before, after, version}.  dropped: rows that were removed as double.
    """

    __tablename__ = "merge_log"
    __table_args__ = (tenant_index("ix_merge_log_target", "kind", "target_id"),)

    kind: Mapped[str] = choice("kind", MergedKind)
    target_id: Mapped[UUID]
    source_ids: Mapped[list[Any]]
    choices: Mapped[dict[str, Any]]
    snapshots: Mapped[dict[str, Any]]
    moved: Mapped[list[Any]]
    dropped: Mapped[list[Any]]
    undo_until: Mapped[datetime]
    undone_at: Mapped[datetime | None]
    undone_by_id: Mapped[UUID | None]

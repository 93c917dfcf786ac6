"""What the CRM shows to callers: eleven resources, and which of their columns may be written, filtered, searched, sorted."""

from __future__ import annotations

from rowhouse.core.resource import ADMIN_WRITES, Kind, Replace, Resource
from rowhouse.modules.crm.actions.accounts import check_account
from rowhouse.modules.crm.actions.activities import cancel, check_activity, complete, log, no_show, reschedule, schedule, start
from rowhouse.modules.crm.actions.activities import reopen as reopen_activity
from rowhouse.modules.crm.actions.contacts import change_lifecycle, check_contact
from rowhouse.modules.crm.actions.deal_writes import (
    DealCreate,
    DealExtra,
    check_opportunity_contact,
    create_opportunity,
    update_opportunity,
)
from rowhouse.modules.crm.actions.deals import change_pipeline, lose, move, reassign, win
from rowhouse.modules.crm.actions.deals import reopen as reopen_deal
from rowhouse.modules.crm.actions.merge import merge, merge_preview
from rowhouse.modules.crm.actions.merge_undo import undo
from rowhouse.modules.crm.actions.pipelines import (
    PipelineCreate,
    check_pipeline,
    check_stage,
    create_pipeline,
    make_default,
    reorder_stages,
)
from rowhouse.modules.crm.actions.worth import check_line, check_rate, revalue
from rowhouse.modules.crm.models import (
    Account,
    CRMActivity,
    CRMContact,
    ExchangeRate,
    MergeLog,
    Opportunity,
    OpportunityContact,
    OpportunityLineItem,
    OpportunityStageHistory,
    Pipeline,
    PipelineStage,
)
from rowhouse.modules.crm.reports.accounts import duplicates as account_duplicates
from rowhouse.modules.crm.reports.accounts import hierarchy, timeline
from rowhouse.modules.crm.reports.activities import agenda
from rowhouse.modules.crm.reports.contacts import duplicates as contact_duplicates
from rowhouse.modules.crm.reports.deals import board, closing_soon, journey, overdue, stale, totals
from rowhouse.modules.crm.reports.forecast import forecast
from rowhouse.modules.crm.reports.performance import funnel, win_rate

account = Resource(
    model=Account,
    name="accounts",
    group="crm",
    write=(
        Account.name,
        Account.type,
        Account.website,
        Account.phone,
        Account.industry,
        Account.employee_band,
        Account.employee_count,
        Account.annual_revenue_minor,
        Account.currency,
        Account.billing_address,
        Account.shipping_address,
        Account.description,
        Account.founded_year,
        Account.parent_account_id,
        Account.owner_user_id,
        Account.external_id,
        Account.tags,
    ),
    hidden=(Account.name_norm, Account.domain_norm, Account.phone_norm),
    filters=(
        Account.name,
        Account.type,
        Account.industry,
        Account.employee_band,
        Account.owner_user_id,
        Account.parent_account_id,
        Account.external_id,
        Account.health_score,
        Account.last_activity_at,
        Account.next_activity_at,
        Account.created_at,
    ),
    search=(Account.name, Account.website, Account.industry, Account.phone, Account.description),
    order=(Account.created_at, Account.name, Account.last_activity_at, Account.health_score, Account.updated_at),
    import_key=(Account.external_id, Account.name),
    check=check_account,
    actions=(merge_preview, merge),
    reports=(account_duplicates, timeline, hierarchy),
)

contact = Resource(
    model=CRMContact,
    name="contacts",
    group="crm",
    write=(
        CRMContact.first_name,
        CRMContact.last_name,
        CRMContact.email,
        CRMContact.phone,
        CRMContact.mobile,
        CRMContact.job_title,
        CRMContact.department,
        CRMContact.account_id,
        CRMContact.is_primary,
        CRMContact.lifecycle,
        CRMContact.lead_source,
        CRMContact.do_not_contact,
        CRMContact.consent_email,
        CRMContact.consent_at,
        CRMContact.consent_source,
        CRMContact.linkedin_url,
        CRMContact.twitter_url,
        CRMContact.address,
        CRMContact.description,
        CRMContact.owner_user_id,
        CRMContact.external_id,
        CRMContact.tags,
    ),
    hidden=(CRMContact.name_norm, CRMContact.email_norm, CRMContact.phone_norm),
    filters=(
        CRMContact.name,
        CRMContact.email,
        CRMContact.account_id,
        CRMContact.lifecycle,
        CRMContact.lead_source,
        CRMContact.owner_user_id,
        CRMContact.is_primary,
        CRMContact.do_not_contact,
        CRMContact.external_id,
        CRMContact.lead_score,
        CRMContact.last_activity_at,
        CRMContact.created_at,
    ),
    search=(CRMContact.name, CRMContact.email, CRMContact.job_title, CRMContact.phone, CRMContact.description),
    order=(CRMContact.created_at, CRMContact.name, CRMContact.lead_score, CRMContact.last_activity_at, CRMContact.updated_at),
    import_key=(CRMContact.external_id, CRMContact.email),
    check=check_contact,
    actions=(change_lifecycle, merge_preview, merge),
    reports=(contact_duplicates,),
)

pipeline = Resource(
    model=Pipeline,
    name="pipelines",
    group="crm",
    write=(Pipeline.name, Pipeline.description, Pipeline.is_active),
    filters=(Pipeline.is_active, Pipeline.is_default),
    search=(Pipeline.name,),
    order=(Pipeline.created_at, Pipeline.name),
    import_key=(Pipeline.name,),
    access=ADMIN_WRITES,
    check=check_pipeline,
    actions=(reorder_stages, make_default),
    replace={"create": Replace(create_pipeline, PipelineCreate)},
)

pipeline_stage = Resource(
    model=PipelineStage,
    name="pipeline-stages",
    group="crm",
    kind=Kind.PART,
    parent=PipelineStage.pipeline_id,
    write=(
        PipelineStage.name,
        PipelineStage.description,
        PipelineStage.color,
        PipelineStage.position,
        PipelineStage.type,
        PipelineStage.probability,
        PipelineStage.forecast_category,
        PipelineStage.rotten_days,
        PipelineStage.required_fields,
    ),
    filters=(PipelineStage.pipeline_id, PipelineStage.type),
    search=(PipelineStage.name,),
    order=(PipelineStage.position, PipelineStage.name),
    access=ADMIN_WRITES,
    check=check_stage,
)

opportunity = Resource(
    model=Opportunity,
    name="opportunities",
    group="crm",
    write=(
        Opportunity.name,
        Opportunity.account_id,
        Opportunity.amount_minor,
        Opportunity.expected_close_date,
        Opportunity.lead_source,
        Opportunity.lost_reason,
        Opportunity.lost_detail,
        Opportunity.competitor_account_id,
        Opportunity.next_step,
        Opportunity.next_step_due_on,
        Opportunity.description,
        Opportunity.owner_user_id,
        Opportunity.external_id,
        Opportunity.tags,
    ),
    filters=(
        Opportunity.number,
        Opportunity.account_id,
        Opportunity.pipeline_id,
        Opportunity.stage_id,
        Opportunity.status,
        Opportunity.owner_user_id,
        Opportunity.forecast_category,
        Opportunity.lead_source,
        Opportunity.expected_close_date,
        Opportunity.closed_at,
        Opportunity.amount_base_minor,
        Opportunity.currency,
        Opportunity.external_id,
        Opportunity.stage_entered_at,
    ),
    search=(Opportunity.name, Opportunity.next_step, Opportunity.description),
    order=(
        Opportunity.created_at,
        Opportunity.number,
        Opportunity.name,
        Opportunity.amount_base_minor,
        Opportunity.expected_close_date,
        Opportunity.closed_at,
        Opportunity.stage_entered_at,
        Opportunity.board_rank,
    ),
    import_key=(Opportunity.external_id,),
    actions=(move, win, lose, reopen_deal, change_pipeline, reassign, revalue),
    reports=(board, forecast, funnel, win_rate, totals, closing_soon, overdue, stale, journey),
    replace={"create": Replace(create_opportunity, DealCreate), "update": Replace(update_opportunity, DealExtra)},
)

opportunity_contact = Resource(
    model=OpportunityContact,
    name="opportunity-contacts",
    group="crm",
    kind=Kind.PART,
    parent=OpportunityContact.opportunity_id,
    write=(
        OpportunityContact.contact_id,
        OpportunityContact.role,
        OpportunityContact.role_note,
        OpportunityContact.is_primary,
    ),
    filters=(OpportunityContact.opportunity_id, OpportunityContact.contact_id, OpportunityContact.role),
    order=(OpportunityContact.created_at,),
    check=check_opportunity_contact,
)

line_item = Resource(
    model=OpportunityLineItem,
    name="opportunity-line-items",
    group="crm",
    kind=Kind.PART,
    parent=OpportunityLineItem.opportunity_id,
    write=(
        OpportunityLineItem.position,
        OpportunityLineItem.name,
        OpportunityLineItem.product_code,
        OpportunityLineItem.description,
        OpportunityLineItem.quantity,
        OpportunityLineItem.unit_price_minor,
        OpportunityLineItem.discount_percent,
        OpportunityLineItem.discount_minor,
        OpportunityLineItem.tax_percent,
        OpportunityLineItem.recurrence,
        OpportunityLineItem.term_months,
    ),
    filters=(OpportunityLineItem.opportunity_id, OpportunityLineItem.product_code, OpportunityLineItem.recurrence),
    search=(OpportunityLineItem.name, OpportunityLineItem.product_code),
    order=(OpportunityLineItem.position, OpportunityLineItem.created_at),
    check=check_line,
)

stage_history = Resource(
    model=OpportunityStageHistory,
    name="opportunity-stage-history",
    group="crm",
    kind=Kind.JOURNAL,
    filters=(
        OpportunityStageHistory.opportunity_id,
        OpportunityStageHistory.kind,
        OpportunityStageHistory.to_stage_id,
        OpportunityStageHistory.from_stage_id,
        OpportunityStageHistory.changed_by_id,
        OpportunityStageHistory.changed_at,
    ),
    order=(OpportunityStageHistory.changed_at,),
)

activity = Resource(
    model=CRMActivity,
    name="activities",
    group="crm",
    write=(
        CRMActivity.type,
        CRMActivity.subject,
        CRMActivity.description,
        CRMActivity.outcome,
        CRMActivity.account_id,
        CRMActivity.contact_id,
        CRMActivity.opportunity_id,
        CRMActivity.direction,
        CRMActivity.priority,
        CRMActivity.scheduled_at,
        CRMActivity.due_at,
        CRMActivity.duration_minutes,
        CRMActivity.owner_user_id,
        CRMActivity.external_source,
        CRMActivity.external_id,
    ),
    filters=(
        CRMActivity.type,
        CRMActivity.status,
        CRMActivity.priority,
        CRMActivity.account_id,
        CRMActivity.contact_id,
        CRMActivity.opportunity_id,
        CRMActivity.owner_user_id,
        CRMActivity.direction,
        CRMActivity.scheduled_at,
        CRMActivity.due_at,
        CRMActivity.completed_at,
        CRMActivity.external_source,
        CRMActivity.external_id,
    ),
    search=(CRMActivity.subject, CRMActivity.description, CRMActivity.outcome),
    order=(CRMActivity.created_at, CRMActivity.due_at, CRMActivity.scheduled_at, CRMActivity.completed_at),
    import_key=(CRMActivity.external_id,),
    check=check_activity,
    actions=(log, schedule, complete, start, reschedule, cancel, no_show, reopen_activity),
    reports=(agenda,),
)

exchange_rate = Resource(
    model=ExchangeRate,
    name="exchange-rates",
    group="crm",
    write=(ExchangeRate.currency, ExchangeRate.as_of, ExchangeRate.rate),
    filters=(ExchangeRate.currency, ExchangeRate.as_of),
    order=(ExchangeRate.as_of, ExchangeRate.currency),
    access=ADMIN_WRITES,
    check=check_rate,
)

merges = Resource(
    model=MergeLog,
    name="merges",
    group="crm",
    kind=Kind.JOURNAL,
    hidden=(MergeLog.snapshots, MergeLog.moved, MergeLog.dropped),
    filters=(MergeLog.kind, MergeLog.target_id, MergeLog.undone_at),
    order=(MergeLog.created_at,),
    actions=(undo,),
)

RESOURCES: tuple[Resource, ...] = (
    account,
    contact,
    pipeline,
    pipeline_stage,
    opportunity,
    opportunity_contact,
    line_item,
    stage_history,
    activity,
    exchange_rate,
    merges,
)

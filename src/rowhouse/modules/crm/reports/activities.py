"""What a member has to do."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import func, select

from rowhouse.core.call import Call
from rowhouse.core.errors import Invalid
from rowhouse.core.resource import Input, report
from rowhouse.exchange import one_of
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.models import Account, CRMActivity
from rowhouse.modules.crm.states import ActivityStatus

_MOST = 200


class AgendaParams(Input):
    """How many days ahead, and whose; the caller's own unless named."""

    days: int = Field(7, ge=1, le=90)
    owner_user_id: UUID | None = None


class AgendaItem(BaseModel):
    """One thing to do. at: when it is due, else when it takes place."""

    id: UUID
    type: str
    subject: str | None
    status: str
    priority: str
    at: datetime
    account_id: UUID | None
    account_name: str | None
    contact_id: UUID | None
    opportunity_id: UUID | None


class Agenda(BaseModel):
    """What is late, what is for the rest of today, and what comes in the days after, soonest first."""

    overdue: list[AgendaItem]
    today: list[AgendaItem]
    upcoming: list[AgendaItem]


@report(output=Agenda, params=AgendaParams, many=False)
async def agenda(call: Call, params: AgendaParams) -> Agenda:
    """Return a member's open activities up to some days ahead, days counted in the tenant's zone; at most two hundred.

    Raises Invalid (owner_required) for a key, which has no activities of its own, unless a member is named.
    """
    owner_id = params.owner_user_id or call.member_id
    if owner_id is None:
        raise Invalid("Name the member whose agenda it is.", code="owner_required", field="owner_user_id")
    zone = call.tenant.timezone
    tomorrow = rules.day_start(call.today + timedelta(days=1), zone)
    end = rules.day_start(call.today + timedelta(days=params.days + 1), zone)
    at = func.coalesce(CRMActivity.due_at, CRMActivity.scheduled_at)
    statement = (
        select(CRMActivity, Account.name, at)
        .outerjoin(Account, Account.id == CRMActivity.account_id)
        .where(
            CRMActivity.owner_user_id == owner_id,
            one_of(CRMActivity.status, (ActivityStatus.PLANNED, ActivityStatus.IN_PROGRESS)),
            CRMActivity.archived_at.is_(None),
            at < end,
        )
        .order_by(at, CRMActivity.id)
        .limit(_MOST)
    )
    items = [_item(*row) for row in await call.rows(statement)]
    return Agenda(
        overdue=[item for item in items if item.at < call.now],
        today=[item for item in items if call.now <= item.at < tomorrow],
        upcoming=[item for item in items if item.at >= tomorrow],
    )


def _item(activity: CRMActivity, account_name: str | None, at: datetime) -> AgendaItem:
    return AgendaItem(
        id=activity.id,
        type=activity.type,
        subject=activity.subject,
        status=activity.status,
        priority=activity.priority,
        at=at,
        account_id=activity.account_id,
        account_name=account_name,
        contact_id=activity.contact_id,
        opportunity_id=activity.opportunity_id,
    )

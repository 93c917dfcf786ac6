"""What can be told of one account: what happened, where it stands in its group, what it may be a double of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import and_, func, literal, or_, select
from sqlalchemy.orm import aliased

from rowhouse.core.call import Call
from rowhouse.core.resource import Input, NoInput, report
from rowhouse.exchange import one_of
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.models import Account, CRMActivity, Opportunity, OpportunityStageHistory, PipelineStage
from rowhouse.modules.crm.states import StageType
from rowhouse.values.text import PointInTime


class TimelineParams(Input):
    """Where to go on: before and before_id are next_before and next_before_id of the page before."""

    before: PointInTime | None = None
    before_id: UUID | None = None
    limit: int = Field(50, ge=1, le=200)


class TimelineItem(BaseModel):
    """Something that happened. kind: the activity's type, or the change of stage."""

    id: UUID
    source: Literal["activity", "stage"]
    occurred_at: datetime
    kind: str
    title: str
    detail: str | None
    status: str | None
    actor_id: UUID | None
    contact_id: UUID | None
    opportunity_id: UUID | None


class Timeline(BaseModel):
    """One page, newest first. next_before: null on the last page."""

    items: list[TimelineItem]
    next_before: datetime | None
    next_before_id: UUID | None


class Relative(BaseModel):
    """An account of the group. level: 0 is the account asked about, negative above it, positive below.

    The values are in the tenant's currency: of the account itself, and with all that stands below it.
    """

    id: UUID
    name: str
    parent_account_id: UUID | None
    level: int
    open_minor: int
    won_minor: int
    group_open_minor: int
    group_won_minor: int


class AccountDouble(BaseModel):
    """An account that may be the same. score: 1.0 same domain, 0.9 same name, 0.8 same telephone."""

    id: UUID
    name: str
    website: str | None
    phone: str | None
    owner_user_id: UUID | None
    score: float
    reasons: list[str]


@report(output=Timeline, params=TimelineParams, on="row", many=False)
async def timeline(call: Call, account: Account, params: TimelineParams) -> Timeline:
    """Return what happened with an account and its deals, newest first: activities and changes of stage.

    Changes of fields are in the account's history.  Planned activities that lie ahead are in the agenda.
    """
    before = params.before or call.now
    happened = func.coalesce(CRMActivity.completed_at, CRMActivity.scheduled_at, CRMActivity.due_at, CRMActivity.created_at)
    statement = select(CRMActivity, happened).where(
        CRMActivity.account_id == account.id,
        CRMActivity.archived_at.is_(None),
        _earlier(happened, CRMActivity.id, before, params),
    )
    activities = statement.order_by(happened.desc(), CRMActivity.id.desc()).limit(params.limit + 1)
    done, changes = await call.fetch(activities, _stage_changes(account, before, params))
    items = [*(_activity_item(activity, moment) for activity, moment in done), *(_stage_item(*row) for row in changes)]
    items.sort(key=lambda item: (item.occurred_at, item.id), reverse=True)
    more = len(items) > params.limit
    page = items[: params.limit]
    return Timeline(items=page, next_before=page[-1].occurred_at if more else None, next_before_id=page[-1].id if more else None)


@report(output=Relative, params=NoInput, on="row")
async def hierarchy(call: Call, account: Account, params: NoInput) -> list[Relative]:
    """Return an account's ancestors, itself and all below it, top first, each with its open pipeline and won revenue.

    An ancestor's group value covers what is returned here: the path down to the account, and all below the account.
    """
    above, below = await call.fetch(_line_of(account, up=True), _line_of(account, up=False))
    rows = [*map(tuple, above), *map(tuple, below)]
    sums = await _sums(call, [row_id for row_id, *_ in rows])
    children: dict[UUID | None, list[UUID]] = {}
    for row_id, _, parent_id, _ in rows:
        children.setdefault(parent_id, []).append(row_id)

    def group(row_id: UUID) -> tuple[int, int]:
        own = sums.get(row_id, (0, 0))
        below = [group(child) for child in children.get(row_id, [])]
        return own[0] + sum(opened for opened, _ in below), own[1] + sum(won for _, won in below)

    return [_relative(row, sums.get(row[0], (0, 0)), group(row[0])) for row in sorted(rows, key=lambda row: (row[3], row[1]))]


@report(output=AccountDouble, params=NoInput, on="row")
async def duplicates(call: Call, account: Account, params: NoInput) -> list[AccountDouble]:
    """Return the live accounts that may be the same company, the most alike first; at most fifty."""
    signs = (
        ("domain", Account.domain_norm, account.domain_norm),
        ("name", Account.name_norm, account.name_norm),
        ("phone", Account.phone_norm, account.phone_norm),
    )
    alike = [column == value for _, column, value in signs if value]
    if not alike:
        return []
    statement = select(Account).where(or_(*alike), Account.id != account.id, Account.archived_at.is_(None)).limit(50)
    found = []
    for (row,) in await call.rows(statement):
        reasons = [name for name, column, value in signs if value and getattr(row, column.key) == value]
        found.append(
            AccountDouble(
                id=row.id,
                name=row.name,
                website=row.website,
                phone=row.phone,
                owner_user_id=row.owner_user_id,
                score=rules.likeness(reasons),
                reasons=reasons,
            )
        )
    return sorted(found, key=lambda double: (-double.score, double.name))


def _stage_changes(account: Account, before: datetime, params: TimelineParams) -> Any:
    change = OpportunityStageHistory
    return (
        select(change, Opportunity.name, PipelineStage.name)
        .join(Opportunity, Opportunity.id == change.opportunity_id)
        .join(PipelineStage, PipelineStage.id == change.to_stage_id)
        .where(Opportunity.account_id == account.id, _earlier(change.changed_at, change.id, before, params))
        .order_by(change.changed_at.desc(), change.id.desc())
        .limit(params.limit + 1)
    )


def _earlier(moment: Any, row_id: Any, before: datetime, params: TimelineParams) -> Any:
    if params.before_id is None:
        return moment <= before
    return or_(moment < before, and_(moment == before, row_id < params.before_id))


def _activity_item(activity: CRMActivity, moment: datetime) -> TimelineItem:
    return TimelineItem(
        id=activity.id,
        source="activity",
        occurred_at=moment,
        kind=activity.type,
        title=activity.subject or activity.type.replace("_", " ").capitalize(),
        detail=activity.outcome or activity.description,
        status=activity.status,
        actor_id=activity.owner_user_id,
        contact_id=activity.contact_id,
        opportunity_id=activity.opportunity_id,
    )


def _stage_item(change: OpportunityStageHistory, deal_name: str, stage_name: str) -> TimelineItem:
    return TimelineItem(
        id=change.id,
        source="stage",
        occurred_at=change.changed_at,
        kind=change.kind,
        title=f"{deal_name}: {stage_name}",
        detail=change.note,
        status=None,
        actor_id=change.changed_by_id,
        contact_id=None,
        opportunity_id=change.opportunity_id,
    )


def _line_of(account: Account, *, up: bool) -> Any:
    """Return a SELECT of the ancestors alone (up), or of the account and its subtree, as (id, name, parent, level)."""
    start = Account.id == (account.parent_account_id if up else account.id)
    begin = select(Account.id.label("id"), Account.parent_account_id.label("above"), literal(-1 if up else 0).label("level"))
    tree = begin.where(start, Account.tenant_id == account.tenant_id).cte("tree", recursive=True)
    relative = aliased(Account)
    step = select(relative.id, relative.parent_account_id, tree.c.level + (-1 if up else 1)).join(
        tree, relative.id == tree.c.above if up else relative.parent_account_id == tree.c.id
    )
    bounds = (
        func.abs(tree.c.level) < rules.DEEPEST_HIERARCHY,
        relative.tenant_id == account.tenant_id,
        relative.archived_at.is_(None),
    )
    tree = tree.union_all(step.where(*bounds))
    return select(Account.id, Account.name, Account.parent_account_id, tree.c.level).join(tree, tree.c.id == Account.id)


async def _sums(call: Call, account_ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    value = func.sum(Opportunity.amount_base_minor)
    opened = func.coalesce(value.filter(Opportunity.status == StageType.OPEN), 0)
    won = func.coalesce(value.filter(Opportunity.status == StageType.WON), 0)
    live = (one_of(Opportunity.account_id, account_ids), Opportunity.archived_at.is_(None))
    statement = select(Opportunity.account_id, opened, won).where(*live).group_by(Opportunity.account_id)
    return {account_id: (int(o or 0), int(w or 0)) for account_id, o, w in await call.rows(statement) if account_id}


def _relative(row: tuple[UUID, str, UUID | None, int], own: tuple[int, int], group: tuple[int, int]) -> Relative:
    row_id, name, parent_id, level = row
    return Relative(
        id=row_id,
        name=name,
        parent_account_id=parent_id,
        level=level,
        open_minor=own[0],
        won_minor=own[1],
        group_open_minor=group[0],
        group_won_minor=group[1],
    )

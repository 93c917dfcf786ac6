"""What was done and is to be done: logging, planning, completing, and the two dates this leaves on the records concerned."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import func, select, update
from sqlalchemy.orm.attributes import set_committed_value

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, Invalid
from rowhouse.core.references import references
from rowhouse.core.resource import Change, Input, NoInput, action
from rowhouse.modules.crm.models import Account, CRMActivity, CRMContact, Opportunity
from rowhouse.modules.crm.states import ActivityStatus, ActivityType, Direction, Priority
from rowhouse.values.text import PointInTime

_OPEN = (ActivityStatus.PLANNED, ActivityStatus.IN_PROGRESS)
_PARENTS = ("account_id", "contact_id", "opportunity_id")
_CAN_BE_MISSED = (ActivityType.MEETING, ActivityType.DEMO, ActivityType.CALL)


class _About(Input):
    """What every activity says of itself."""

    type: ActivityType
    subject: str | None = Field(None, max_length=200)
    description: str | None = Field(None, max_length=10_000)
    account_id: UUID | None = None
    contact_id: UUID | None = None
    opportunity_id: UUID | None = None
    owner_user_id: UUID | None = None
    direction: Direction | None = None
    priority: Priority = Priority.NORMAL
    duration_minutes: int | None = Field(None, ge=0, le=1440)
    external_source: str | None = Field(None, max_length=100)
    external_id: str | None = Field(None, max_length=200)


class Log(_About):
    """Something that was done; now, unless said otherwise."""

    outcome: str | None = Field(None, max_length=2000)
    completed_at: PointInTime | None = None


class Schedule(_About):
    """Something to do: when it takes place, or until when."""

    scheduled_at: PointInTime | None = None
    due_at: PointInTime | None = None


class Complete(Input):
    """How it went."""

    outcome: str | None = Field(None, max_length=2000)
    completed_at: PointInTime | None = None
    duration_minutes: int | None = Field(None, ge=0, le=1440)


class Reschedule(Input):
    """The new time; what is not named stays."""

    scheduled_at: PointInTime | None = None
    due_at: PointInTime | None = None


@action(input=Log, on="collection")
async def log(call: Call, data: Log) -> CRMActivity:
    """Record something that was done.  Raises ReferenceNotFound, Invalid (about_nothing, completed_at_range)."""
    moment = _past(call, data.completed_at)
    return await _add(call, data, status=ActivityStatus.COMPLETED, completed_at=moment)


@action(input=Schedule, on="collection")
async def schedule(call: Call, data: Schedule) -> CRMActivity:
    """Plan something.  Raises Invalid (time_required) without a time, ReferenceNotFound, Invalid (about_nothing)."""
    if data.scheduled_at is None and data.due_at is None:
        raise Invalid("Say when it takes place or when it is due.", code="time_required", field="scheduled_at")
    return await _add(call, data, status=ActivityStatus.PLANNED, completed_at=None)


@action(input=Complete)
async def complete(call: Call, activity: CRMActivity, data: Complete) -> CRMActivity:
    """Say that it was done, and how it went.  Raises Conflict (activity_ended)."""
    _must_be_pending(activity)
    activity.status, activity.completed_at = ActivityStatus.COMPLETED, _past(call, data.completed_at)
    activity.outcome = data.outcome or activity.outcome
    activity.duration_minutes = activity.duration_minutes if data.duration_minutes is None else data.duration_minutes
    call.emit("crm.activity_completed", activity_id=str(activity.id), type=str(activity.type))
    _touch(call, activity)
    return activity


@action()
async def start(call: Call, activity: CRMActivity, data: NoInput) -> CRMActivity:
    """Say that it has begun.  Raises Conflict (activity_ended)."""
    _must_be_pending(activity)
    activity.status = ActivityStatus.IN_PROGRESS
    return activity


@action(input=Reschedule)
async def reschedule(call: Call, activity: CRMActivity, data: Reschedule) -> CRMActivity:
    """Give it another time.  Raises Conflict (activity_ended), Invalid (time_required)."""
    _must_be_pending(activity)
    if data.scheduled_at is None and data.due_at is None:
        raise Invalid("Say when it takes place or when it is due.", code="time_required", field="scheduled_at")
    activity.scheduled_at = data.scheduled_at or activity.scheduled_at
    activity.due_at = data.due_at or activity.due_at
    _touch(call, activity)
    return activity


@action()
async def cancel(call: Call, activity: CRMActivity, data: NoInput) -> CRMActivity:
    """Say that it will not take place.  Raises Conflict (activity_ended)."""
    _must_be_pending(activity)
    activity.status = ActivityStatus.CANCELLED
    _touch(call, activity)
    return activity


@action()
async def no_show(call: Call, activity: CRMActivity, data: NoInput) -> CRMActivity:
    """Say that the other side did not appear.  Raises Conflict (activity_ended, not_an_appointment)."""
    _must_be_pending(activity)
    if activity.type not in _CAN_BE_MISSED:
        raise Conflict("Only a meeting, a demo or a call can be missed.", code="not_an_appointment")
    activity.status = ActivityStatus.NO_SHOW
    _touch(call, activity)
    return activity


@action()
async def reopen(call: Call, activity: CRMActivity, data: NoInput) -> CRMActivity:
    """Plan an ended activity again.  Raises Conflict (activity_pending)."""
    if activity.status in _OPEN:
        raise Conflict(f"The activity is {activity.status} already.", code="activity_pending")
    activity.status, activity.completed_at = ActivityStatus.PLANNED, None
    _touch(call, activity)
    return activity


async def check_activity(call: Call, change: Change) -> None:
    """Keep an activity about something, and the dates of what it is about.

    A note is done when it is written.  Raises Invalid (about_nothing, description_required).
    """
    activity: CRMActivity = change.row
    if change.verb == "create" and activity.type == ActivityType.NOTE and activity.status is None:
        activity.status, activity.completed_at = ActivityStatus.COMPLETED, call.now
    if change.verb in {"create", "update"}:
        await _complete(call, activity, is_new=change.verb == "create")
    moved = {"scheduled_at", "due_at", *_PARENTS} & set(change.before)
    if change.verb != "update" or moved:
        _touch(call, activity, former=change.before)


async def _add(call: Call, data: Log | Schedule, **state: Any) -> CRMActivity:
    for name, model in references(CRMActivity).items():
        await call.reference(model, getattr(data, name), name)
    activity = CRMActivity(**data.model_dump(exclude={"completed_at"}), **state)
    call.session.add(activity)
    await _complete(call, activity, is_new=True)
    _touch(call, activity)
    call.emit("crm.crm_activity_created", id=str(activity.id))
    return activity


async def _complete(call: Call, activity: CRMActivity, *, is_new: bool) -> None:
    if activity.type == ActivityType.NOTE and not activity.description:
        raise Invalid("A note needs its text.", code="description_required", field="description")
    if activity.account_id is None:
        activity.account_id = await _account_of(call, activity)
    parents = [getattr(activity, name) for name in _PARENTS]
    if activity.type != ActivityType.TASK and not any(parents):
        raise Invalid("Name the account, the person or the deal it is about.", code="about_nothing", field="account_id")
    if is_new:
        activity.status = activity.status or ActivityStatus.PLANNED
        activity.priority = activity.priority or Priority.NORMAL
        activity.owner_user_id = activity.owner_user_id or call.member_id


async def _account_of(call: Call, activity: CRMActivity) -> UUID | None:
    for row_id, model in ((activity.opportunity_id, Opportunity), (activity.contact_id, CRMContact)):
        row: Any = await call.find(model, row_id) if row_id else None
        if row is not None and row.account_id is not None:
            found: UUID = row.account_id
            return found
    return None


def _touch(call: Call, activity: CRMActivity, former: Any = None) -> None:
    """Have the dates of the account, the person and the deal it is or was about derived anew."""
    for name, dates in (("account_id", _account_dates), ("contact_id", _contact_dates), ("opportunity_id", _deal_dates)):
        for row_id in {getattr(activity, name), (former or {}).get(name)} - {None}:
            call.derive(dates, row_id)


async def _account_dates(call: Call, ids: set[UUID]) -> None:
    await _derive_dates(call, Account, about=CRMActivity.account_id, ids=ids)


async def _contact_dates(call: Call, ids: set[UUID]) -> None:
    await _derive_dates(call, CRMContact, about=CRMActivity.contact_id, ids=ids)


async def _deal_dates(call: Call, ids: set[UUID]) -> None:
    await _derive_dates(call, Opportunity, about=CRMActivity.opportunity_id, ids=ids)


async def _derive_dates(call: Call, model: type[Any], *, about: Any, ids: set[UUID]) -> None:
    """Set when something was last done with some records and when the next thing is planned, from the activities.

    These two are derived, not edited: they leave the version and the audit log of the record alone.
    """
    when = func.coalesce(CRMActivity.scheduled_at, CRMActivity.due_at)
    theirs = (CRMActivity.tenant_id == model.tenant_id, about == model.id, CRMActivity.archived_at.is_(None))
    last = select(func.max(CRMActivity.completed_at)).where(*theirs).correlate(model).scalar_subquery()
    pending = (CRMActivity.status.in_(_OPEN), when >= call.now)
    coming = select(func.min(when)).where(*theirs, *pending).correlate(model).scalar_subquery()
    statement = update(model).where(model.id.in_(ids)).values(last_activity_at=last, next_activity_at=coming)
    found = await call.session.execute(
        statement.returning(model.id, model.last_activity_at, model.next_activity_at).execution_options(synchronize_session=False)
    )
    for row_id, last_at, next_at in found:
        row = call.session.sync_session.known_row(model, row_id)
        if row is not None:
            set_committed_value(row, "last_activity_at", last_at)
            set_committed_value(row, "next_activity_at", next_at)


def _must_be_pending(activity: CRMActivity) -> None:
    if activity.status not in _OPEN:
        raise Conflict(f"The activity is {activity.status}; reopen it first.", code="activity_ended")


def _past(call: Call, moment: datetime | None) -> datetime:
    if moment is not None and moment > call.now:
        raise Invalid("What was done cannot lie in the future.", code="completed_at_range", field="completed_at")
    return moment or call.now

"""What the coming months will bring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import func, select

from rowhouse.core.call import Call
from rowhouse.core.resource import Input, report
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.models import Opportunity
from rowhouse.modules.crm.states import ForecastCategory, StageType


class ForecastParams(Input):
    """How many months, this one included, and whose deals."""

    months: int = Field(6, ge=1, le=24)
    owner_user_id: UUID | None = None
    pipeline_id: UUID | None = None


class Sum(BaseModel):
    """Some open deals together, in the tenant's currency."""

    count: int = 0
    amount_minor: int = 0
    weighted_minor: int = 0


class ForecastRow(BaseModel):
    """One month, in the tenant's currency.

    closed: won in it.  commit, best_case, pipeline: open deals expected in it.  weighted: of best_case and pipeline.
    total: closed, and commit in full, and weighted.
    """

    month: date
    closed_minor: int = 0
    commit_minor: int = 0
    best_case_minor: int = 0
    pipeline_minor: int = 0
    weighted_minor: int = 0
    total_minor: int = 0


class Forecast(BaseModel):
    """The months, and the open deals that belong to none of them.

    slipped: their expected date has passed.  undated: they have none.  later: beyond the last month.
    """

    currency: str
    months: list[ForecastRow]
    slipped: Sum
    undated: Sum
    later: Sum


@report(output=Forecast, params=ForecastParams, many=False)
async def forecast(call: Call, params: ForecastParams) -> Forecast:
    """Return one row per month from this one on, oldest first, empty months included.

    Deals left out of the forecast (OMITTED) are left out here. Amounts in the tenant's currency, minor units.
    """
    starts = rules.month_starts(call.today, params.months)
    rows = {start: ForecastRow(month=start) for start in starts}
    closed, still_open = await call.fetch(_closed(call, params, rows), _open(call, params))
    for month, value in closed:
        rows[month.date()].closed_minor = int(value)
    slipped, undated, later = Sum(), Sum(), Sum()
    for due_month, has_slipped, category, count, value, weighted in map(_plain, still_open):
        apart = undated if due_month is None else slipped if has_slipped else later
        if due_month is None or has_slipped or due_month not in rows:
            apart.count += count
            apart.amount_minor += value
            apart.weighted_minor += weighted
        else:
            _add(rows[due_month], category, value, weighted)
    for row in rows.values():
        row.total_minor = rules.forecast_total_minor(
            closed_minor=row.closed_minor, commit_minor=row.commit_minor, weighted_minor=row.weighted_minor
        )
    return Forecast(currency=call.tenant.currency, months=list(rows.values()), slipped=slipped, undated=undated, later=later)


def _closed(call: Call, params: ForecastParams, rows: Iterable[date]) -> Any:
    starts = sorted(rows)
    zone = call.tenant.timezone
    begin, end = rules.day_start(starts[0], zone), rules.day_start(rules.add_months(starts[-1], 1), zone)
    month = func.date_trunc("month", func.timezone(zone, Opportunity.closed_at)).label("month")
    chosen = (Opportunity.status == StageType.WON, Opportunity.closed_at >= begin, Opportunity.closed_at < end, *_chosen(params))
    return select(month, func.coalesce(func.sum(Opportunity.amount_base_minor), 0)).where(*chosen).group_by(month)


def _open(call: Call, params: ForecastParams) -> Any:
    due = Opportunity.expected_close_date
    month, has_slipped = func.date_trunc("month", due).label("month"), (due < call.today).label("has_slipped")
    return (
        select(
            month,
            has_slipped,
            Opportunity.forecast_category,
            func.count(Opportunity.id),
            func.coalesce(func.sum(Opportunity.amount_base_minor), 0),
            func.coalesce(func.sum(Opportunity.weighted_minor), 0),
        )
        .where(Opportunity.status == StageType.OPEN, Opportunity.forecast_category != ForecastCategory.OMITTED, *_chosen(params))
        .group_by(month, has_slipped, Opportunity.forecast_category)
    )


def _plain(row: Sequence[Any]) -> tuple[date | None, bool, str, int, int, int]:
    month, late, category, count, value, weighted = row
    return month.date() if month else None, bool(late), category, count, int(value), int(weighted)


def _add(row: ForecastRow, category: str, value: int, weighted: int) -> None:
    if category == ForecastCategory.COMMIT:
        row.commit_minor += value
    elif category == ForecastCategory.BEST_CASE:
        row.best_case_minor += value
    else:
        row.pipeline_minor += value
    if category != ForecastCategory.COMMIT:
        row.weighted_minor += weighted


def _chosen(params: ForecastParams) -> list[Any]:
    chosen: list[Any] = [Opportunity.archived_at.is_(None)]
    if params.owner_user_id is not None:
        chosen.append(Opportunity.owner_user_id == params.owner_user_id)
    if params.pipeline_id is not None:
        chosen.append(Opportunity.pipeline_id == params.pipeline_id)
    return chosen

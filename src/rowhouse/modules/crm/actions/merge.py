"""Merging accounts, and people: every reference in the database follows, and the merge can be undone for thirty days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Index, UniqueConstraint, inspect, select

from partywall import TenantScoped
from rowhouse.core.call import Call
from rowhouse.core.db import Base
from rowhouse.core.errors import Conflict, Invalid, ReferenceNotFound
from rowhouse.core.permissions import Role
from rowhouse.core.resource import Input, action
from rowhouse.modules.crm.actions.accounts import check_depth, derived_of_account
from rowhouse.modules.crm.actions.contacts import derived_of_contact
from rowhouse.modules.crm.models import Account, CRMContact, MergeLog, OpportunityContact
from rowhouse.modules.crm.rules import DEEPEST_HIERARCHY
from rowhouse.modules.crm.states import MergedKind
from rowhouse.values.jsonable import jsonable

UNDO_DAYS = 30
_MOST_SOURCES = 10
# What a merge leaves as the target has it; compared forms and names are derived afresh.
_KEPT_TEXT = (
    "tenant_id id created_at created_by_id updated_at updated_by_id version archived_at archived_by_id merged_into_id "
    "external_id name_norm email_norm domain_norm phone_norm health_score engagement_score churn_risk lead_score "
    "lead_score_at is_primary parent_account_id last_activity_at next_activity_at"
)
_KEPT = frozenset(_KEPT_TEXT.split())


class Merge(Input):
    """The records that go into this one. choices: by column, the id whose value is kept, or "target"."""

    source_ids: list[UUID] = Field(min_length=1, max_length=_MOST_SOURCES)
    choices: dict[str, str] = Field(default={}, max_length=100)


class MergeResult(BaseModel):
    """What a merge does, or did. values: the target's columns that change.  merge_id: None for a preview.

    moved: rows that follow, by table.  dropped: rows that would be there twice.  kept: rows that stay with the archived
    source, because the target has one of the same key.
    """

    target_id: UUID
    source_ids: list[UUID]
    values: dict[str, Any]
    moved: dict[str, int]
    dropped: dict[str, int]
    kept: dict[str, int]
    merge_id: UUID | None = None


@dataclass(slots=True)
class _Plan:
    """A merge in the making: each change is noted before it is done."""

    target: Any
    sources: list[Any]
    changes: list[tuple[Any, str, Any, Any]] = field(default_factory=list)
    dropped: list[Any] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    def change(self, row: Any, name: str, value: Any) -> None:
        """Note a change of one column; the last word on a column counts."""
        self.changes = [change for change in self.changes if change[0] is not row or change[1] != name]
        if getattr(row, name) != value:
            self.changes.append((row, name, getattr(row, name), value))

    def values(self) -> dict[str, Any]:
        """Return the target's columns as they will be."""
        columns = inspect(type(self.target)).column_attrs
        planned = {name: value for row, name, _, value in self.changes if row is self.target}
        return {a.key: planned.get(a.key, getattr(self.target, a.key)) for a in columns}

    def moved(self) -> dict[str, int]:
        """Return how many rows beside the merged ones change, by table."""
        own = {self.target.id, *(source.id for source in self.sources)}
        return _count({(table_of(row), row.id) for row, *_ in self.changes if row.id not in own})


@action(input=Merge, output=MergeResult, role=Role.ADMIN, reads=True)
async def merge_preview(call: Call, target: Any, data: Merge) -> MergeResult:
    """Say what a merge would do, without doing it.  Raises as the merge does."""
    return _result(await _plan(call, target, data, lock=False))


@action(input=Merge, output=MergeResult, role=Role.ADMIN)
async def merge(call: Call, target: Any, data: Merge) -> MergeResult:
    """Bring the sources into the target: its gaps are filled, every reference follows, the sources are archived.

    Raises ReferenceNotFound, Invalid (own_source, unknown_choice), Conflict (merged, archived).
    """
    plan = await _plan(call, target, data, lock=True)
    snapshots = {str(row.id): snapshot(row) for row in (target, *plan.sources)}
    dropped = [{"table": table_of(row), "row": snapshot(row)} for row in plan.dropped]
    for row in plan.dropped:
        await call.session.delete(row)
    # A unique value leaves its old row before the target takes it over.
    for of_target in (False, True):
        for row, name, _, value in plan.changes:
            if (row is target) == of_target:
                setattr(row, name, value)
        await call.flush()
    if isinstance(target, Account):
        await check_depth(call, target)
    record = _record(call, plan, data)
    record.snapshots, record.dropped = snapshots, dropped
    call.session.add(record)
    call.emit(f"crm.{table_of(target)}_merged", target_id=str(target.id), source_ids=[str(row.id) for row in plan.sources])
    return _result(plan, merge_id=record.id)


def table_of(row: Any) -> str:
    """Return the name of the table a row or a model is of."""
    return str(row.__table__.name)


def snapshot(row: Any) -> dict[str, Any]:
    """Return every column of a row in JSON values."""
    return {attribute.key: jsonable(getattr(row, attribute.key)) for attribute in inspect(type(row)).column_attrs}


def models_referring_to(model: type[TenantScoped]) -> Iterator[tuple[type[Any], str]]:
    """Yield every class and its column that refers to a model, in any module; append-only tables are left as they are."""
    name = table_of(model)
    models: list[Any] = [mapper.class_ for mapper in Base.registry.mappers]
    for cls in sorted(models, key=table_of):
        if not issubclass(cls, TenantScoped) or cls.__append_only__:
            continue
        for key in cls.__table__.foreign_key_constraints:
            for element in key.elements:
                if element.column.table.name == name and element.column.name == "id":
                    yield cls, element.parent.name


async def _plan(call: Call, target: Any, data: Merge, *, lock: bool) -> _Plan:
    plan = _Plan(target, await _sources(call, target, data.source_ids, lock=lock))
    _fill(plan, data.choices)
    if isinstance(target, Account):
        await _detach(call, plan)
    for model, column in models_referring_to(type(target)):
        await _follow(call, plan, model, getattr(model, column))
    for source in plan.sources:
        plan.change(source, "archived_at", source.archived_at or call.now)
        plan.change(source, "archived_by_id", source.archived_by_id or call.principal.subject_id)
        plan.change(source, "merged_into_id", target.id)
    _fill_dates(call, plan)
    if isinstance(target, CRMContact):
        _keep_primary(plan)
    return plan


async def _sources(call: Call, target: Any, source_ids: Sequence[UUID], *, lock: bool) -> list[Any]:
    if target.id in source_ids:
        raise Invalid("A record cannot be merged into itself.", code="own_source", field="source_ids")
    if target.archived_at is not None:
        raise Conflict("The record is archived; restore it before merging into it.", code="archived")
    rows = []
    # Locked in the order of their ids, so that two merges of the same sources wait for each other and do not block.
    for source_id in sorted(set(source_ids)):
        row: Any = await call.find(type(target), source_id, lock=lock)
        if row is None:
            raise ReferenceNotFound("source_ids")
        if row.merged_into_id is not None:
            raise Conflict(f"{row.name} was merged already; undo that first.", code="merged", field="source_ids")
        rows.append(row)
    return sorted(rows, key=lambda row: row.updated_at, reverse=True)


def _fill(plan: _Plan, choices: dict[str, str]) -> None:
    """Take what the target lacks from the sources, the one changed last first; tags are united; choices decide."""
    names = [a.key for a in inspect(type(plan.target)).column_attrs if a.key not in _KEPT]
    by_id = {str(row.id): row for row in plan.sources}
    unknown = [n for n, chosen in choices.items() if n not in names or (chosen != "target" and chosen not in by_id)]
    if unknown:
        message = 'A choice names a column and one of the sources, or "target".'
        raise Invalid(message, code="unknown_choice", field=f"choices.{unknown[0]}")
    for name in names:
        giver = by_id.get(choices.get(name, ""))
        if giver is None and name not in choices and getattr(plan.target, name) is None:
            giver = next((row for row in plan.sources if getattr(row, name) is not None), None)
        if giver is not None:
            plan.change(plan.target, name, getattr(giver, name))
    rows = (plan.target, *plan.sources)
    if "tags" not in choices:
        plan.change(plan.target, "tags", list(dict.fromkeys(tag for row in rows for tag in row.tags))[:50])
    if isinstance(plan.target, CRMContact):
        # Whoever asked to be left alone under one of the records stays so.
        plan.change(plan.target, "do_not_contact", any(row.do_not_contact for row in rows))
    derived = derived_of_account if isinstance(plan.target, Account) else derived_of_contact
    for name, value in derived(SimpleNamespace(**plan.values())).items():
        plan.change(plan.target, name, value)


def _fill_dates(call: Call, plan: _Plan) -> None:
    rows = (plan.target, *plan.sources)
    done = [row.last_activity_at for row in rows if row.last_activity_at is not None]
    planned = [row.next_activity_at for row in rows if row.next_activity_at is not None and row.next_activity_at >= call.now]
    plan.change(plan.target, "last_activity_at", max(done, default=None))
    plan.change(plan.target, "next_activity_at", min(planned, default=None))


def _keep_primary(plan: _Plan) -> None:
    """Plan that the person is the primary one of the account it ends up in, if it was so under one of its records."""
    account_id = plan.values()["account_id"]
    primaries = [row.account_id for row in (plan.target, *plan.sources) if row.is_primary]
    for source in plan.sources:
        plan.change(source, "is_primary", False)
    plan.change(plan.target, "is_primary", account_id in primaries)


async def _detach(call: Call, plan: _Plan) -> None:
    """Keep the tree free of cycles: a target below a source moves up to where its topmost merged ancestor stood."""
    sources = {source.id for source in plan.sources}
    above, new_parent = plan.target.parent_account_id, plan.target.parent_account_id
    for _ in range(DEEPEST_HIERARCHY):
        if above is None:
            break
        ancestor = await call.load(Account, above)
        if ancestor.id in sources:
            new_parent = ancestor.parent_account_id
        above = ancestor.parent_account_id
    plan.change(plan.target, "parent_account_id", new_parent)


async def _follow(call: Call, plan: _Plan, model: type[Any], column: Any) -> None:
    """Plan that a table's rows refer to the target; a row that would be there twice is dropped or stays behind."""
    own = {plan.target.id, *(source.id for source in plan.sources)}
    rows = list((await call.session.scalars(select(model).where(column.in_(own)).order_by(model.id))).all())
    taken = {
        key for row in rows if getattr(row, column.key) == plan.target.id for key in _unique_keys(row, column.key, plan.target.id)
    }
    for row in rows:
        if getattr(row, column.key) == plan.target.id or row.id in own:
            continue
        keys = set(_unique_keys(row, column.key, plan.target.id))
        if not keys & taken:
            taken |= keys
            plan.change(row, column.key, plan.target.id)
        elif model is OpportunityContact:
            _drop(plan, row, rows)
        else:
            plan.kept.append(row)
    if model is CRMContact and column.key == "account_id":
        _one_primary(plan, rows)


def _drop(plan: _Plan, row: OpportunityContact, rows: Sequence[OpportunityContact]) -> None:
    plan.dropped.append(row)
    twins = [r for r in rows if r is not row and r.opportunity_id == row.opportunity_id and r not in plan.dropped]
    if row.is_primary and twins:
        plan.change(twins[0], "is_primary", True)


def _one_primary(plan: _Plan, rows: Sequence[CRMContact]) -> None:
    primaries = [row for row in rows if row.is_primary and row.archived_at is None]
    for row in sorted(primaries, key=lambda row: row.account_id != plan.target.id)[1:]:
        plan.change(row, "is_primary", False)


def _unique_keys(row: Any, column: str, value: UUID) -> Iterator[tuple[Any, ...]]:
    """Yield the unique keys of a row in which a column takes part, as they would read with another value there."""
    table = inspect(type(row)).local_table
    uniques: list[Any] = [rule for rule in table.constraints if isinstance(rule, UniqueConstraint)]
    uniques += [rule for rule in table.indexes if isinstance(rule, Index) and rule.unique]
    for unique in uniques:
        names = [found.name for found in unique.columns]
        if column in names:
            values = [value if name == column else getattr(row, name) for name in names]
            if None not in values:
                yield (tuple(names), *values)


def _record(call: Call, plan: _Plan, data: Merge) -> MergeLog:
    moved = [
        {
            "table": table_of(row),
            "id": str(row.id),
            "column": name,
            "before": jsonable(before),
            "after": jsonable(after),
            "version": getattr(row, "version", None),
        }
        for row, name, before, after in plan.changes
    ]
    return MergeLog(
        kind=MergedKind.ACCOUNT if isinstance(plan.target, Account) else MergedKind.CONTACT,
        target_id=plan.target.id,
        source_ids=[str(row.id) for row in plan.sources],
        choices=dict(data.choices),
        moved=moved,
        undo_until=call.now + timedelta(days=UNDO_DAYS),
    )


def _result(plan: _Plan, *, merge_id: UUID | None = None) -> MergeResult:
    return MergeResult(
        target_id=plan.target.id,
        source_ids=[row.id for row in plan.sources],
        values={name: jsonable(after) for row, name, _, after in plan.changes if row is plan.target},
        moved=plan.moved(),
        dropped=_count({(table_of(row), row.id) for row in plan.dropped}),
        kept=_count({(table_of(row), row.id) for row in plan.kept}),
        merge_id=merge_id,
    )


def _count(rows: set[tuple[str, UUID]]) -> dict[str, int]:
    tables = [table for table, _ in rows]
    return {table: tables.count(table) for table in sorted(set(tables))}

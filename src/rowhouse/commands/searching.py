"""`rowhouse reindex`: fill the search index from the records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import delete, exists, func, select

from partywall import Tenant, system_scope
from rowhouse.commands.session import Program, console, run
from rowhouse.core.call import Call
from rowhouse.core.resource import Registry, Resource
from rowhouse.core.search.index import SearchPosting, SearchWord, add_postings, forget_words, indexed
from rowhouse.identity import tenants

_BATCH = 1000
_REASON = "command line: reindex"
_FIRST = UUID(int=0)


def reindex(
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Slug of one workspace; all when left out.")] = "",
    afresh: Annotated[bool, typer.Option("--afresh", help="Empty the index first; search finds less until it is full.")] = False,
) -> None:
    """Fill the search index. What is there stays; stopped, it can be run again; records can be changed meanwhile."""

    async def work(program: Program) -> int:
        some = [await program.tenant(tenant)] if tenant else await _all_tenants(program)
        with _progress() as progress:
            return sum([await _reindex(program, each, progress, afresh=afresh) for each in some])

    console.print(f"{run(work)} records indexed")


async def fill_empty(program: Program) -> int:
    """Index every workspace that has records and no index, as after an upgrade; return how many records that were."""
    done = 0
    for tenant in await _all_tenants(program):
        async with program.call(tenant, reason=_REASON) as call:
            is_due = not await _has_any(call, SearchPosting) and any(
                [await _has_any(call, resource.model) for resource in _searched(program.registry)]
            )
        if is_due:
            with _progress() as progress:
                done += await _reindex(program, tenant, progress, afresh=False)
    return done


async def index_rows(call: Call, resource: Resource, *, after: UUID = _FIRST, size: int = _BATCH) -> list[UUID]:
    """Index up to `size` rows of a resource whose ids come after one, and return their ids in order."""
    source = indexed(resource)
    assert source is not None, f"{resource.name} is not searched"
    model: Any = resource.model
    names = ["id", *sorted(source.names.intersection(resource.table.columns.keys()))]
    statement = select(*(getattr(model, name) for name in names)).where(model.id > after).order_by(model.id).limit(size)
    # A row that is being changed is waited for, and cannot change before its words are written.
    rows = (await call.session.execute(statement.with_for_update(read=True))).all()
    postings = [posting for row in rows for posting in source.postings(dict(zip(names, row, strict=True)))]
    await call.session.run_sync(lambda _: add_postings(call.session.sync_session, postings))
    return [row[0] for row in rows]


async def _reindex(program: Program, tenant: Tenant, progress: Progress, *, afresh: bool) -> int:
    if afresh:
        async with program.call(tenant, reason=_REASON) as call:
            for model in (SearchPosting, SearchWord):
                await call.session.execute(delete(model).execution_options(synchronize_session=False))
        forget_words()
    done = 0
    for resource in _searched(program.registry):
        async with program.call(tenant, reason=_REASON) as call:
            total = await call.session.scalar(select(func.count(resource.model.id)))
        bar = progress.add_task(f"{tenant.slug} {resource.name}", total=total)
        done += await _fill(program, tenant, resource, lambda more, bar=bar: progress.advance(bar, more))  # type: ignore[misc]
    return done


async def _fill(program: Program, tenant: Tenant, resource: Resource, on_progress: Callable[[int], None]) -> int:
    done, after = 0, _FIRST
    while True:
        # Each batch is a transaction of its own: locks are short, and what is done stays done.
        async with program.call(tenant, reason=_REASON) as call:
            ids = await index_rows(call, resource, after=after)
        if not ids:
            return done
        done, after = done + len(ids), ids[-1]
        on_progress(len(ids))


async def _has_any(call: Call, model: Any) -> bool:
    return bool(await call.session.scalar(select(exists(select(model.id)))))


def _searched(registry: Registry) -> list[Resource]:
    return [resource for resource in registry if resource.search]


async def _all_tenants(program: Program) -> list[Tenant]:
    with system_scope(reason=_REASON):
        return [summary.tenant for summary in await tenants.list_tenants(program.database)]


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)

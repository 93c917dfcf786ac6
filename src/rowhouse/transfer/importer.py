"""Importing rows through the operations: in batches, each its own transaction, so that what is done stays done.

A batch whose writes fail together is repeated in halves until only the guilty rows are left out; a dry run does the same
and rolls every batch back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from partywall import uuid7
from rowhouse.core import operations
from rowhouse.core.call import Call
from rowhouse.core.errors import Invalid, RowhouseError
from rowhouse.core.resource import Resource
from rowhouse.transfer.attempts import Attempt, Link, Outcome, match_of
from rowhouse.transfer.batches import BatchState, advance_batch, begin_batch, finish_batch
from rowhouse.transfer.halving import OpenCall, in_halves
from rowhouse.transfer.mapping import Plan
from rowhouse.transfer.references import References
from rowhouse.transfer.sources import RowFault, SourceRow

ROWS_PER_BATCH = 500
MOST_ERRORS = 1000
Mode = Literal["create", "update", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an import treats records. mode: make new ones, change existing ones, or both.  batch_id: names it for undo."""

    mode: Mode = "both"
    dry_run: bool = False
    filename: str = ""
    batch_id: UUID = field(default_factory=uuid7)


@dataclass(slots=True)
class ImportReport:
    """What an import did, in rows. left_out: by the mapping's `only`.  errors: the first 1,000; failed counts rows.

    unlinked: rows that were imported without a record of the same kind they name, each with an error.
    """

    batch_id: UUID
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    left_out: int = 0
    unlinked: int = 0
    errors: list[RowFault] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Return how many rows have been dealt with."""
        return self.created + self.updated + self.unchanged + self.failed + self.left_out

    def add(self, faults: Iterable[RowFault]) -> None:
        """Keep errors, up to the most."""
        self.errors.extend(islice(faults, MOST_ERRORS - len(self.errors)))


class _RollBack(Exception):
    """Ends a call whose writes are not to stay."""


async def run_import(
    open_call: OpenCall,
    resource: Resource,
    *,
    rows: Iterable[SourceRow | RowFault],
    plan: Plan,
    options: Options,
    on_progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Import rows and return what was done; importing the same rows again changes nothing.

    open_call: opens one transaction of the tenant each time it is called.  on_progress: called after each batch.
    Interrupted, complete batches stay and the import is marked as stopped; repeating it does what is left.
    Raises Forbidden without the import permission, Invalid for a resource or a match that cannot be imported.
    """
    run = _Run(open_call, resource, plan, options)
    await run.begin()
    try:
        for batch in _batches(rows):
            await run.rows(batch)
            if on_progress is not None:
                on_progress(run.report)
        await run.links()
    except BaseException:
        await asyncio.shield(run.stop())
        raise
    await run.finish(BatchState.DONE)
    return run.report


class _Run:
    """One import: its report, and what is remembered from batch to batch."""

    def __init__(self, open_call: OpenCall, resource: Resource, plan: Plan, options: Options) -> None:
        self._open_call, self._resource, self._options = open_call, resource, options
        self._plan = replace(plan, match=plan.match or match_of(resource, plan))
        self.report = ImportReport(options.batch_id)
        self._links: list[Link] = []
        # Hashes of the names and keys of rows a dry run has rolled back, so that later rows may refer to them.
        self._seen: set[int] = set()

    async def begin(self) -> None:
        if "import" not in self._resource.verbs:
            raise Invalid(f"{self._resource.name} cannot be imported.", code="not_importable", field="resource")
        absent = [name for name in self._plan.match if name not in self._plan.fields]
        if absent:
            raise Invalid(
                f"Records are to be recognised by {absent[0]}, which no column fills.", code="match_missing", field="match"
            )
        async with self._open_call() as call:
            operations.require(call, self._resource, "import")
            if not self._options.dry_run:
                await begin_batch(
                    call,
                    self._options.batch_id,
                    resource=self._resource,
                    filename=self._options.filename,
                    mode=self._options.mode,
                )

    async def stop(self) -> None:
        """Note that the import was stopped; the first connection taken may be the one whose statement was cut off."""
        for attempt in range(4):
            try:
                await self.finish(BatchState.STOPPED)
                return
            except (DBAPIError, RuntimeError):
                if attempt == 3:
                    raise

    async def finish(self, state: BatchState) -> None:
        if not self._options.dry_run:
            async with self._open_call() as call:
                await finish_batch(call, self._options.batch_id, state=state, report=self.report)

    async def rows(self, batch: Sequence[SourceRow | RowFault]) -> None:
        """Import one batch of rows."""
        self._fail([row] for row in batch if isinstance(row, RowFault))
        await in_halves([row for row in batch if isinstance(row, SourceRow)], self._attempt, self._give_up)

    async def _attempt(self, rows: Sequence[SourceRow]) -> None:
        """Import rows in one transaction; those an operation refuses are left out of a repeated one."""
        refused: dict[int, list[RowFault]] = {}
        while True:
            left = [row for row in rows if row.line not in refused]
            outcome = await self._transaction(left)
            if not outcome.refused:
                break
            refused |= outcome.refused
        self._count(outcome)
        self._fail([*outcome.faults.values(), *refused.values()])

    async def _transaction(self, rows: Sequence[SourceRow]) -> Outcome:
        outcome = Outcome()
        try:
            async with self._open_call() as call:
                call.batch_id = self._options.batch_id
                attempt = Attempt(call, self._resource, self._plan, self._options.mode, self._seen)
                async with call.deferred():
                    outcome = await attempt.run(rows)
                    call.operation = f"{self._resource.name}:import"
                    if outcome.refused:
                        raise _RollBack
                if self._options.dry_run:
                    raise _RollBack
                await advance_batch(call, self._options.batch_id, outcome)
        except _RollBack:
            pass
        return outcome

    def _count(self, outcome: Outcome) -> None:
        self.report.created += outcome.created
        self.report.updated += outcome.updated
        self.report.unchanged += outcome.unchanged
        self.report.left_out += outcome.left_out
        self._links += outcome.links
        if self._options.dry_run:
            self._seen |= outcome.keys

    def _fail(self, faults: Iterable[list[RowFault]]) -> None:
        for of_row in faults:
            self.report.failed += 1
            self.report.add(of_row)

    def _give_up(self, row: SourceRow, error: RowhouseError) -> None:
        faults = error.faults or ()
        if faults:
            self._fail([[RowFault(row.line, fault.field, fault.code, fault.message) for fault in faults]])
        else:
            self._fail([[RowFault(row.line, "", error.code, error.message)]])

    async def links(self) -> None:
        """Give rows the records of their own kind that came later in the file."""
        if self._options.dry_run:
            for link in self._links:
                if hash(link.text) not in self._seen:
                    self._unlinked(link, _NOT_FOUND)
            return
        for start in range(0, len(self._links), ROWS_PER_BATCH):
            await in_halves(self._links[start : start + ROWS_PER_BATCH], self._link, self._unlinked)

    async def _link(self, links: Sequence[Link]) -> None:
        failed: list[tuple[Link, RowhouseError]] = []
        async with self._open_call() as call:
            call.batch_id = self._options.batch_id
            rows = await _held(call, self._resource, [link.row_id for link in links])
            known = References(call)
            await known.load((self._resource.model, link.text) for link in links)
            async with call.deferred():
                for link in links:
                    found = known.find(self._resource.model, link.text, {})
                    if len(found) != 1 or link.row_id not in rows:
                        failed.append((link, _AMBIGUOUS if found else _NOT_FOUND))
                    else:
                        await operations.update(call, self._resource, link.row_id, {link.field: found[0].id})
                call.operation = f"{self._resource.name}:import"
        for link, error in failed:
            self._unlinked(link, error)

    def _unlinked(self, link: Link, error: RowhouseError) -> None:
        self.report.unlinked += 1
        message = f"The record was imported without it. {error.message}"
        self.report.add([RowFault(link.line, link.field, error.code, message)])


_NOT_FOUND = Invalid("The name is that of no record, neither here nor in the file.", code="reference_not_found")
_AMBIGUOUS = Invalid("The name is that of several records; use the id or an external id.", code="ambiguous_reference")


async def _held(call: Call, resource: Resource, ids: Sequence[UUID]) -> dict[UUID, Any]:
    statement = select(resource.model).where(resource.model.id.in_(ids))
    return {row.id: row for row in await call.session.scalars(statement)}


def _batches(rows: Iterable[SourceRow | RowFault]) -> Iterator[list[SourceRow | RowFault]]:
    rest = iter(rows)
    while batch := list(islice(rest, ROWS_PER_BATCH)):
        yield batch

"""What the tests of imports share: a workspace, a file, one line to import it, and a look at what is there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from partywall import Tenant
from rowhouse.core.audit import AuditEntry
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database
from rowhouse.core.permissions import Principal
from rowhouse.core.resource import Registry
from rowhouse.transfer.drafts import fields_of
from rowhouse.transfer.importer import ImportReport, Options, run_import
from rowhouse.transfer.mapping import Plan, load_mapping, plan_by_guess, plan_of
from rowhouse.transfer.sources import open_source


@dataclass(frozen=True)
class House:
    """One workspace and who works in it."""

    database: Database
    registry: Registry
    tenant: Tenant
    principal: Principal
    folder: Path

    def call(self) -> AbstractAsyncContextManager[Call]:
        return open_call(self.database, self.registry, self.tenant, self.principal)

    def plan(self, name: str, header: tuple[str, ...], columns: Mapping[str, str] | None = None) -> Plan:
        resource = self.registry[name]
        return plan_by_guess(header, fields_of(resource), singular=resource.singular, columns=columns)

    async def load(
        self, name: str, text: str, options: Options | None = None, *, columns: Mapping[str, str] | None = None
    ) -> ImportReport:
        """Import CSV text with guessed headers."""
        path = self.folder / f"{name}.csv"
        path.write_text(text, encoding="utf-8")
        source = open_source(path)
        plan = self.plan(name, source.header, columns)
        return await run_import(
            self.call, self.registry[name], rows=source.rows(), plan=plan, options=options or Options(filename=path.name)
        )

    async def load_mapped(self, name: str, file: Path, mapping: Path, **variables: str) -> ImportReport:
        """Import a file with a mapping file."""
        source = open_source(file)
        plan = plan_of(
            load_mapping(mapping, variables=variables), source.header, fields_of(self.registry[name]), folder=file.parent
        )
        return await run_import(
            self.call, self.registry[name], rows=source.rows(), plan=plan, options=Options(filename=file.name)
        )

    async def rows(self, model: Any) -> list[Any]:
        async with self.call() as call:
            return list((await call.session.scalars(select(model).order_by(model.id))).all())

    async def count(self, model: Any) -> int:
        async with self.call() as call:
            return await call.session.scalar(select(func.count(model.id))) or 0

    async def audited(self) -> int:
        """Return how many audit entries there are, those about the list of imports itself left out."""
        async with self.call() as call:
            statement = select(func.count(AuditEntry.id)).where(AuditEntry.entity != "import_batch")
            return await call.session.scalar(statement) or 0


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    return report.created, report.updated, report.unchanged, report.failed

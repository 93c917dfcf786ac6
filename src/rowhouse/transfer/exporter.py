"""Writing a resource to a CSV or XLSX file that a later import recognises as what it has already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from openpyxl import Workbook

from rowhouse.core import operations
from rowhouse.core.call import Call
from rowhouse.core.reads import Query, names_of
from rowhouse.core.resource import Resource
from rowhouse.values.csv_lines import csv_cell, csv_file

_EVERY = 500


async def write_file(
    call: Call, resource: Resource, query: Query, *, path: Path, on_progress: Callable[[int], None] | None = None
) -> int:
    """Write the matching rows to a new file and return how many there are; a name ending in .xlsx makes a workbook.

    Raises FileExistsError rather than overwrite a file.
    """
    write = _write_workbook if path.suffix.lower() == ".xlsx" else _write_csv
    count = 0
    async for count in write(call, resource, query, path):
        if on_progress is not None and count % _EVERY == 0:
            on_progress(count)
    return count


async def _write_csv(call: Call, resource: Resource, query: Query, path: Path) -> AsyncIterator[int]:
    with path.open("xb") as file:
        count = -1
        async for line in csv_file(names_of(resource, query), operations.export(call, resource, query)):
            file.write(line)
            count += 1
            yield max(count, 0)


async def _write_workbook(call: Call, resource: Resource, query: Query, path: Path) -> AsyncIterator[int]:
    # The name is taken first, so that no finished work meets a file that is there already.
    _claim(path)
    book = Workbook(write_only=True)
    sheet = book.create_sheet(resource.name[:31])
    names = names_of(resource, query)
    sheet.append(names)
    count = 0
    async for row in operations.export(call, resource, query):
        sheet.append([csv_cell(row[name]) for name in names])
        count += 1
        yield count
    book.save(path)


def _claim(path: Path) -> None:
    path.touch(exist_ok=False)

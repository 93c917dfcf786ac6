"""Exports, and their way back."""

import pytest
from imports import House, counts
from openpyxl import load_workbook

from rowhouse.core.reads import Query
from rowhouse.modules.crm.models import Account
from rowhouse.transfer.exporter import write_file
from rowhouse.transfer.importer import Options, run_import
from rowhouse.transfer.sources import open_source

ACCOUNTS = (
    "External ID,Name,Sector,Annual revenue,Phone,Tags,Description,Billing address\n"
    '1,=cmd()|x,software,1200.50,+49 30 1,a;b,"two\nlines","{""country"": ""Kenya""}"\n'
    '2,"-Minus, Inc.",@home,,,,"he said ""no""",\n'
    "3,'quoted,ретейл,0,,東京,,\n"
)


async def exported(house: House, name: str, file: str) -> int:
    async with house.call() as call:
        return await write_file(call, house.registry[name], Query(), path=house.folder / file)


@pytest.mark.parametrize("file", ["out.csv", "out.xlsx"])
async def test_an_exported_file_changes_nothing_when_imported(house, file):
    assert counts(await house.load("accounts", ACCOUNTS))[0] == 3
    assert await exported(house, "accounts", file) == 3
    before = await house.audited()
    source = open_source(house.folder / file)
    plan = house.plan("accounts", source.header)
    report = await run_import(house.call, house.registry["accounts"], rows=source.rows(), plan=plan, options=Options())
    assert counts(report) == (0, 0, 3, 0), report.errors
    assert await house.audited() == before
    assert [row.version for row in await house.rows(Account)] == [1, 1, 1]


async def test_formulas_are_escaped(house):
    await house.load("accounts", ACCOUNTS)
    await exported(house, "accounts", "out.csv")
    text = (house.folder / "out.csv").read_text(encoding="utf-8")
    assert ",'=cmd()|x," in text
    assert "'+49 30 1" in text


async def test_a_workbook_has_the_same_cells(house):
    await house.load("accounts", ACCOUNTS)
    await exported(house, "accounts", "out.xlsx")
    book = load_workbook(house.folder / "out.xlsx", read_only=True)
    names = [row[1] for row in book.worksheets[0].iter_rows(values_only=True)]
    book.close()
    assert set(names) == {"name", "'=cmd()|x", "'-Minus, Inc.", "'quoted"}


async def test_an_existing_file_is_not_overwritten(house):
    (house.folder / "out.csv").write_text("mine")
    with pytest.raises(FileExistsError):
        await exported(house, "accounts", "out.csv")
    assert (house.folder / "out.csv").read_text() == "mine"

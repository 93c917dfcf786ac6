"""Imports: what is made, what is changed, what is refused and by which line."""

from dataclasses import replace
from pathlib import Path

import pytest
from imports import House, counts

from rowhouse.core.errors import Forbidden, Invalid
from rowhouse.core.permissions import Principal, Role
from rowhouse.modules.crm.models import Account, CRMContact, Opportunity
from rowhouse.transfer.batches import BatchState, ImportBatch
from rowhouse.transfer.importer import Options, run_import
from rowhouse.transfer.sources import open_source

SAMPLES = Path(__file__).resolve().parents[2] / "examples" / "csv"
ACCOUNTS = "External ID,Name,Sector,Employees\n1,Acme,software,12\n2,Bolt,retail,\n"


async def test_rows_become_records(house):
    report = await house.load("accounts", ACCOUNTS)
    assert counts(report) == (2, 0, 0, 0)
    found = {row.name: (row.external_id, row.industry, row.employee_count) for row in await house.rows(Account)}
    assert found == {"Acme": ("1", "software", 12), "Bolt": ("2", "retail", None)}


async def test_importing_twice_changes_nothing(house):
    await house.load("accounts", ACCOUNTS)
    before = await house.audited()
    report = await house.load("accounts", ACCOUNTS)
    assert counts(report) == (0, 0, 2, 0)
    assert await house.audited() == before
    assert [row.version for row in await house.rows(Account)] == [1, 1]


async def test_only_what_differs_is_changed(house):
    await house.load("accounts", ACCOUNTS)
    report = await house.load("accounts", ACCOUNTS.replace("retail", "trade"))
    assert counts(report) == (0, 1, 1, 0)
    assert {row.industry for row in await house.rows(Account)} == {"software", "trade"}


async def test_an_empty_cell_keeps_what_is_there(house):
    await house.load("accounts", ACCOUNTS)
    await house.load("accounts", "External ID,Name,Sector\n1,Acme,\n")
    assert {row.industry for row in await house.rows(Account)} == {"software", "retail"}


@pytest.mark.parametrize(("mode", "code"), [("create", "duplicate"), ("update", "match_not_found")])
async def test_the_mode_says_what_may_happen(house, mode, code):
    await house.load("accounts", ACCOUNTS)
    report = await house.load("accounts", "External ID,Name\n1,Acme AG\n3,New\n", Options(mode=mode))
    assert report.failed == 1
    assert [error.code for error in report.errors] == [code]


async def test_a_dry_run_reports_everything_and_writes_nothing(house):
    before = await house.audited()
    report = await house.load("accounts", f"{ACCOUNTS}3,,x,many\n", Options(dry_run=True))
    assert counts(report) == (2, 0, 0, 1)
    assert [(error.line, error.field) for error in report.errors] == [(4, "employee_count")]
    assert (await house.count(Account), await house.count(ImportBatch), await house.audited()) == (0, 0, before)


async def test_faulty_rows_are_left_out_and_told_by_line_and_field(house):
    text = "External ID,Name,Website,Employees\n1,Good,,5\n2,,,5\n3,Bad site,ftp://x,5\n4,Bad number,,many\nragged\n5,Fine,,\n"
    report = await house.load("accounts", text)
    assert counts(report) == (2, 0, 0, 4)
    assert sorted((error.line, error.field, error.code) for error in report.errors) == [
        (3, "name", "required"),
        (4, "website", "invalid_website"),
        (5, "employee_count", "invalid_value"),
        (6, "", "too_few_cells"),
    ]
    assert {row.name for row in await house.rows(Account)} == {"Good", "Fine"}


async def test_only_the_guilty_row_of_a_failed_batch_is_left_out(house):
    lines = [f"{n},First{n},Last,p{n}@x.example" for n in range(20)]
    lines[13] = "13,First13,Last,p4@x.example"
    report = await house.load("contacts", "\n".join(["External ID,First name,Last name,Email", *lines]) + "\n")
    assert counts(report) == (19, 0, 0, 1)
    assert [error.code for error in report.errors] == ["duplicate"]
    assert await house.count(CRMContact) == 19


async def test_references_are_found_by_name_and_id_whatever_their_case(house):
    await house.load("accounts", ACCOUNTS)
    acme = next(row for row in await house.rows(Account) if row.name == "Acme")
    deals = f"External ID,Name,Account,Stage,Amount\n1,A,Acme,Lead,10\n2,B,{acme.id},lead,20.50\n3,C,aCME,,\n"
    report = await house.load("opportunities", deals)
    assert counts(report) == (3, 0, 0, 0), report.errors
    rows = await house.rows(Opportunity)
    assert {row.account_id for row in rows} == {acme.id}
    assert {row.amount_minor for row in rows} == {1000, 2050, None}


async def test_unknown_and_ambiguous_references_are_refused(house):
    await house.load("accounts", "External ID,Name\n1,Twin\n2,Twin\n")
    report = await house.load("opportunities", "External ID,Name,Account\n1,A,Twin\n2,B,Nobody\n")
    assert [(error.line, error.field, error.code) for error in report.errors] == [
        (2, "account_id", "ambiguous_reference"),
        (3, "account_id", "reference_not_found"),
    ]
    assert await house.count(Opportunity) == 0


async def test_another_workspaces_record_is_no_reference(house, database, registry, make_tenant, tmp_path):
    other = House(database, registry, *await make_tenant("other"), tmp_path)
    await other.load("accounts", ACCOUNTS)
    foreign = (await other.rows(Account))[0]
    report = await house.load("opportunities", f"External ID,Name,Account\n1,A,{foreign.id}\n2,B,{foreign.name}\n")
    assert [error.code for error in report.errors] == ["reference_not_found"] * 2


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_parent_further_down_the_file_is_found(house, dry_run):
    text = "Name,Parent\nChild,Mother\nMother,\nLost,Nowhere\n"
    report = await house.load("accounts", text, Options(dry_run=dry_run))
    assert (report.created, report.failed, report.unlinked) == (3, 0, 1)
    assert [(error.line, error.field, error.code) for error in report.errors] == [(4, "parent_account_id", "reference_not_found")]
    if not dry_run:
        rows = {row.name: row for row in await house.rows(Account)}
        assert rows["Child"].parent_account_id == rows["Mother"].id


async def test_rows_of_the_same_key_are_one_record(house):
    report = await house.load("accounts", "External ID,Name\n1,Acme\n1,Acme AG\n")
    assert counts(report) == (1, 1, 0, 0)
    assert [row.name for row in await house.rows(Account)] == ["Acme AG"]


async def test_a_file_without_a_recognising_column_is_refused(house):
    with pytest.raises(Invalid, match="external_id or name"):
        await house.load("accounts", "Sector\nsoftware\n")


async def test_members_of_a_viewer_role_may_not_import(house):
    viewer = Principal("session", house.principal.member_id, house.principal.member_id, Role.VIEWER)
    with pytest.raises(Forbidden):
        await House(house.database, house.registry, house.tenant, viewer, house.folder).load("accounts", ACCOUNTS)


async def test_a_stopped_import_keeps_its_complete_batches_and_can_be_repeated(house):
    text = "External ID,Name\n" + "".join(f"{n},Company {n}\n" for n in range(1200))
    (house.folder / "a.csv").write_text(text)
    source = open_source(house.folder / "a.csv")

    def stop(report):
        if report.done >= 500:
            raise KeyboardInterrupt

    plan = house.plan("accounts", source.header)
    with pytest.raises(KeyboardInterrupt):
        await run_import(
            house.call, house.registry["accounts"], rows=source.rows(), plan=plan, options=Options(), on_progress=stop
        )
    assert await house.count(Account) == 500
    batch = (await house.rows(ImportBatch))[0]
    assert (batch.status, batch.created_count) == (BatchState.STOPPED, 500)
    assert counts(await house.load("accounts", text)) == (700, 0, 500, 0)


async def test_an_import_is_listed_with_its_counts_and_errors(house):
    report = await house.load("accounts", f"{ACCOUNTS}3,,x,1\n")
    batch = (await house.rows(ImportBatch))[0]
    assert batch.id == report.batch_id
    assert (batch.status, batch.resource_name, batch.filename) == (BatchState.DONE, "accounts", "accounts.csv")
    assert (batch.created_count, batch.failed_count) == (2, 1)
    assert batch.errors[0]["line"] == 4


async def test_a_match_field_that_no_column_fills_is_refused(house):
    source_plan = replace(house.plan("accounts", ("Name",)), match=("external_id",))
    with pytest.raises(Invalid, match="external_id"):
        await run_import(house.call, house.registry["accounts"], rows=[], plan=source_plan, options=Options())


async def test_the_sample_files_import_without_a_word(house):
    for name, rows in (("accounts", 4), ("contacts", 3), ("opportunities", 3)):
        text = (SAMPLES / f"{name}.csv").read_text(encoding="utf-8")
        report = await house.load(name, text)
        assert (report.created, report.errors) == (rows, [])
        assert counts(await house.load(name, text)) == (0, 0, rows, 0)

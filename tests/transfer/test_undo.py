"""Taking an import back."""

import pytest
from imports import House
from sqlalchemy import select

from rowhouse.core import operations
from rowhouse.core.audit import AuditEntry
from rowhouse.core.errors import Conflict, Forbidden, NotFound
from rowhouse.core.permissions import Principal, Role
from rowhouse.modules.crm.models import Account, Opportunity, OpportunityLineItem, OpportunityStageHistory
from rowhouse.transfer.batches import IMPORTS, BatchState, ImportBatch, undo, undo_import

ACCOUNTS = "External ID,Name,Sector,Parent\n1,Acme,software,Bolt\n2,Bolt,retail,\n"
DEALS = """External ID,Name,Account,Stage,Line name,Price,Opened,Closed
1,A,Acme,Closed Won,Box,10,2026-01-01,2026-02-01
2,B,,Lead,Box,5,2026-01-02,
"""
COLUMNS = {"Line name": "lines.name", "Price": "lines.unit_price_minor", "Opened": "opened_at", "Closed": "closed_at"}


async def update(house: House, name: str, row, **values):
    async with house.call() as call:
        await operations.update(call, house.registry[name], row.id, values)


async def test_undo_leaves_nothing_behind(house):
    accounts = await house.load("accounts", ACCOUNTS)
    deals = await house.load("opportunities", DEALS, columns=COLUMNS)
    assert (accounts.created, deals.created, deals.errors) == (2, 2, [])
    undone = await undo_import(house.call, deals.batch_id)
    assert (undone.removed, undone.left) == (2, 0)
    # Winning the deal had made its account a customer; undoing the win takes that back too.
    assert {row.type for row in await house.rows(Account)} == {"PROSPECT"}
    undone = await undo_import(house.call, accounts.batch_id)
    assert (undone.removed, undone.left) == (2, 0)
    for model in (Account, Opportunity, OpportunityLineItem, OpportunityStageHistory):
        assert await house.count(model) == 0


async def test_changed_records_get_their_old_values_back(house):
    await house.load("accounts", ACCOUNTS)
    before = {row.name: row.industry for row in await house.rows(Account)}
    changed = await house.load("accounts", "External ID,Name,Sector\n1,Acme SE,steel\n")
    undone = await undo_import(house.call, changed.batch_id)
    assert (undone.removed, undone.restored, undone.left) == (0, 1, 0)
    assert {row.name: row.industry for row in await house.rows(Account)} == before


async def test_what_was_changed_since_stays_and_is_reported(house):
    await house.load("accounts", ACCOUNTS)
    changed = await house.load("accounts", "External ID,Name,Sector\n1,Acme,steel\n2,Bolt,tools\n3,New,x\n4,Newer,x\n")
    rows = {row.name: row for row in await house.rows(Account)}
    await update(house, "accounts", rows["Acme"], industry="glass")
    await update(house, "accounts", rows["New"], industry="wood")
    undone = await undo_import(house.call, changed.batch_id)
    assert (undone.removed, undone.restored, undone.left) == (1, 1, 2)
    assert {conflict.entity_id for conflict in undone.conflicts} == {rows["Acme"].id, rows["New"].id}
    assert {row.name: row.industry for row in await house.rows(Account)} == {"Acme": "glass", "Bolt": "retail", "New": "wood"}


async def test_a_change_that_was_taken_back_is_no_change(house):
    report = await house.load("accounts", ACCOUNTS)
    row = next(row for row in await house.rows(Account) if row.name == "Acme")
    await update(house, "accounts", row, industry="glass")
    await update(house, "accounts", row, industry="software")
    assert (await undo_import(house.call, report.batch_id)).removed == 2


async def test_a_record_others_refer_to_stays(house):
    report = await house.load("accounts", ACCOUNTS)
    await house.load("opportunities", "External ID,Name,Account\n1,A,Acme\n")
    undone = await undo_import(house.call, report.batch_id)
    assert (undone.removed, undone.left) == (1, 1)
    assert [conflict.code for conflict in undone.conflicts] == ["has_dependents"]
    assert [row.name for row in await house.rows(Account)] == ["Acme"]


async def test_a_deal_with_lines_added_since_stays(house):
    report = await house.load("opportunities", "External ID,Name\n1,A\n")
    deal = (await house.rows(Opportunity))[0]
    async with house.call() as call:
        part = house.registry["opportunity-line-items"]
        await operations.create(call, part, {"name": "Box", "unit_price_minor": 0}, parent_id=deal.id)
    undone = await undo_import(house.call, report.batch_id)
    assert (undone.removed, undone.left) == (0, 1)


async def test_undo_is_repeatable_and_its_entries_remain(house):
    report = await house.load("accounts", ACCOUNTS)
    await undo_import(house.call, report.batch_id)
    again = await undo_import(house.call, report.batch_id)
    assert (again.removed, again.restored, again.left) == (0, 0, 0)
    batch = (await house.rows(ImportBatch))[0]
    assert (batch.status, batch.undone_at is not None) == (BatchState.UNDONE, True)
    async with house.call() as call:
        statement = select(AuditEntry.verb).where(AuditEntry.operation == "imports:undo", AuditEntry.entity == "account")
        assert sorted(await call.session.scalars(statement)) == ["delete", "delete", "update"]


async def test_after_an_undo_the_file_can_be_imported_again(house):
    await undo_import(house.call, (await house.load("accounts", ACCOUNTS)).batch_id)
    assert (await house.load("accounts", ACCOUNTS)).created == 2


async def test_undo_is_an_action_of_the_list_of_imports(house):
    report = await house.load("accounts", ACCOUNTS)
    async with house.call() as call:
        undone = await operations.act(call, IMPORTS, undo, {}, row_id=report.batch_id)
    assert (undone.removed, undone.left) == (2, 0)


async def test_a_member_may_not_undo(house):
    report = await house.load("accounts", ACCOUNTS)
    member = Principal("session", house.principal.member_id, house.principal.member_id, Role.MEMBER)
    with pytest.raises(Forbidden):
        await undo_import(House(house.database, house.registry, house.tenant, member, house.folder).call, report.batch_id)


async def test_another_workspaces_import_is_not_found(house, database, registry, make_tenant, tmp_path):
    other = House(database, registry, *await make_tenant("other"), tmp_path)
    report = await other.load("accounts", ACCOUNTS)
    with pytest.raises(NotFound):
        await undo_import(house.call, report.batch_id)
    assert await other.count(Account) == 2


async def test_a_running_import_is_not_undone(house):
    report = await house.load("accounts", ACCOUNTS)
    async with house.call() as call:
        batch = await call.load(ImportBatch, report.batch_id)
        batch.status = BatchState.RUNNING
    with pytest.raises(Conflict, match="still running"):
        await undo_import(house.call, report.batch_id)

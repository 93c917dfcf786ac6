"""The main job on real input: public sales data into three workspaces, read back through the reports."""

import os
from pathlib import Path

import pytest
from imports import House, counts

from rowhouse.core import operations
from rowhouse.core.reads import Cursors, Query
from rowhouse.identity.models import Membership
from rowhouse.modules.crm.models import Account, Opportunity, OpportunityLineItem, OpportunityStageHistory
from rowhouse.transfer.batches import undo_import

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "crm-sales"
MAPPINGS = ROOT / "examples" / "crm-sales"
FILES = (("members", "sales_teams.csv"), ("accounts", "accounts.csv"), ("opportunities", "sales_pipeline.csv"))
TOTALS = {"Central": (11, 3512, 3_346_293), "East": (12, 2291, 3_090_594), "West": (12, 2997, 3_568_647)}
MODELS = (Account, Opportunity, OpportunityLineItem, OpportunityStageHistory)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def data_present():
    if not DATA.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{DATA} is missing; CI must run the import of the real data")
        pytest.skip(f"{DATA} is not here")


async def load_all(house: House, office: str):
    return [await house.load_mapped(name, DATA / file, MAPPINGS / f"{name}.toml", office=office) for name, file in FILES]


async def total(house: House, name: str, **params: str) -> int:
    query = Query(limit=1, total=True, params=tuple((field, "eq", value) for field, value in params.items()))
    async with house.call() as call:
        page = await operations.list_(call, house.registry[name], query, Cursors(b"x" * 32))
    return page.total or 0


@pytest.mark.parametrize("office", TOTALS)
async def test_the_control_totals_hold_and_importing_twice_changes_nothing(house, office):
    members, deals, won = TOTALS[office]
    reports = await load_all(house, office)
    assert [report.errors for report in reports] == [[], [], []]
    assert [report.created for report in reports] == [members, 85, deals]
    assert await total(house, "opportunities") == deals
    accounts = await house.rows(Account)
    assert (len(accounts), sum(row.parent_account_id is not None for row in accounts)) == (85, 15)
    assert await won_value(house) == won * 100
    before = await house.audited()
    again = await load_all(house, office)
    assert [counts(report) for report in again] == [(0, 0, members, 0), (0, 0, 85, 0), (0, 0, deals, 0)]
    assert await house.audited() == before


async def test_faults_are_cleaned_and_history_is_dated_as_in_the_data(house):
    await load_all(house, "East")
    assert {row.industry for row in await house.rows(Account)} >= {"technology"}
    assert "technolgy" not in {row.industry for row in await house.rows(Account)}
    lines = await house.rows(OpportunityLineItem)
    assert {line.name for line in lines} & {"GTX Pro", "GTXPro"} == {"GTX Pro"}
    deals = await house.rows(Opportunity)
    assert {(line.opportunity_id, line.total_minor) for line in lines} == {(deal.id, deal.amount_minor) for deal in deals}
    history = await house.rows(OpportunityStageHistory)
    closed = {deal.id: deal.closed_at for deal in deals if deal.closed_at}
    assert {row.opportunity_id: row.changed_at for row in history if row.kind in {"WON", "LOST"}} == closed
    assert {moment.year for moment in closed.values()} == {2017}


async def test_undo_leaves_nothing_behind(house):
    members = await house.count(Membership)
    reports = await load_all(house, "East")
    for report in reversed(reports):
        undone = await undo_import(house.call, report.batch_id)
        assert (undone.removed, undone.left) == (report.created, 0)
    assert [await house.count(model) for model in MODELS] == [0, 0, 0, 0]
    assert await house.count(Membership) == members


async def won_value(house: House) -> int:
    """Return the won value in minor units, as the report of totals has it."""
    resource = house.registry["opportunities"]
    declared = next(report for report in resource.reports if report.name == "totals")
    async with house.call() as call:
        found = await operations.report(call, resource, declared, {})
    return int(found.won_minor)

"""The main job on real input: public sales data into three workspaces, read back through the reports."""

import asyncio
import json
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from imports import House

from cast import PASSWORD, Command
from rowhouse.identity.members import system_principal
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
    """Import as the operator, who vouches for addresses that other workspaces of this database have too."""
    operator = replace(house, principal=system_principal())
    reports = [await operator.load_mapped(name, DATA / file, MAPPINGS / f"{name}.toml", office=office) for name, file in FILES]
    assert [report.errors for report in reports] == [[], [], []]
    return reports


def run_office(command: Command, office: str) -> tuple[str, str, list[list[int]]]:
    """Open a workspace, import one office's files twice through the command line; return slug, key and both counts."""
    slug = f"{office.lower()}-{secrets.token_hex(3)}"
    command("tenant", "create", slug, "--name", office, "--owner-email", f"o@{slug}.example", "--password", PASSWORD)
    runs = []
    for _ in range(2):
        for name, file in FILES:
            words = ("--tenant", slug, "--mapping", MAPPINGS / f"{name}.toml", "--var", f"office={office}", "--json")
            found = json.loads(command("import", DATA / file, *words).stdout.splitlines()[-1])
            assert found["errors"] == []
            runs.append([found[key] for key in ("created", "updated", "unchanged", "failed")])
    key = command("key", "create", "--tenant", slug, "--member", f"o@{slug}.example").stdout.strip()
    return slug, key, runs


@pytest.mark.parametrize("office", TOTALS)
async def test_the_control_totals_hold_and_importing_twice_changes_nothing(command: Command, app: Any, office: str) -> None:
    members, deals, won = TOTALS[office]
    # The commands run loops of their own, so they run beside this one.
    slug, key, runs = await asyncio.to_thread(run_office, command, office)
    assert runs[:3] == [[members, 0, 0, 0], [85, 0, 0, 0], [deals, 0, 0, 0]]
    assert runs[3:] == [[0, 0, members, 0], [0, 0, 85, 0], [0, 0, deals, 0]]
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url=f"http://{slug}.localhost/api/v1", headers=headers
    ) as client:
        totals = (await client.get("/opportunities/reports/totals")).json()
        accounts = (await client.get("/accounts", params={"total": "true", "limit": 1})).json()
        parents = {"total": "true", "limit": 1, "parent_account_id.is_null": "false"}
        subsidiaries = (await client.get("/accounts", params=parents)).json()
    assert (totals["count"], totals["won_minor"], totals["currency"]) == (deals, won * 100, "USD")
    assert (accounts["total"], subsidiaries["total"]) == (85, 15)


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

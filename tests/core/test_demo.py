"""The demo: a seeded story that holds together, and its writing through the operations."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from cast import TenantMaker
from partywall import Tenant
from rowhouse.commands import demo
from rowhouse.commands.demo import Made
from rowhouse.commands.demo_companies import minor
from rowhouse.commands.demo_data import WORKSPACES, plan_workspace
from rowhouse.commands.demo_deals import STAGES
from rowhouse.commands.demo_plans import HISTORY_DAYS, DealPlan, WorkspacePlan
from rowhouse.commands.demo_writing import chapters, group_steps, steps_of, write_workspace
from rowhouse.core.audit import AuditEntry
from rowhouse.core.call import open_call
from rowhouse.core.db import Database
from rowhouse.core.resource import Registry
from rowhouse.identity.members import system_principal
from rowhouse.identity.models import Membership
from rowhouse.identity.provided import provide
from rowhouse.migrate import find_addresses, migrate
from rowhouse.modules.crm.models import (
    Account,
    CRMActivity,
    CRMContact,
    ExchangeRate,
    Opportunity,
    OpportunityLineItem,
    OpportunityStageHistory,
)
from rowhouse.settings import Settings
from server import database_name, drop_database, fresh_database, test_server

TODAY = date(2026, 5, 29)
SLUGS = [known.slug for known in WORKSPACES]
SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "CJK", "HIRAGANA", "HANGUL", "ARABIC", "HEBREW", "DEVANAGARI", "THAI")


@pytest.fixture(scope="module")
def plans() -> dict[str, WorkspacePlan]:
    return {slug: plan_workspace(slug, TODAY) for slug in SLUGS}


def texts(plan: WorkspacePlan) -> Iterable[str]:
    for row in (*plan.accounts, *plan.contacts, *plan.deals, *plan.activities):
        yield from (value for value in row.values.values() if isinstance(value, str))
    yield from (member.name for member in plan.members)


def scripts(names: Iterable[str]) -> Counter[str]:
    """Count the names in which each script occurs."""
    found: Counter[str] = Counter()
    for name in names:
        words = {unicodedata.name(letter).split()[0] for letter in name if letter.isalpha()}
        found.update(words)
    return found


@pytest.mark.no_database
def test_the_same_seed_and_day_give_the_same_story() -> None:
    assert plan_workspace("east", TODAY) == plan_workspace("east", TODAY)


@pytest.mark.no_database
def test_another_seed_gives_another_story() -> None:
    first, second = plan_workspace("east", TODAY), plan_workspace("east", TODAY, seed=1)
    assert [deal.values["name"] for deal in first.deals] != [deal.values["name"] for deal in second.deals]


@pytest.mark.no_database
@pytest.mark.parametrize("slug", SLUGS)
def test_a_workspace_has_the_size_of_a_sales_team(plans: dict[str, WorkspacePlan], slug: str) -> None:
    plan = plans[slug]
    assert 900 <= len(plan.deals) <= 1_100
    assert 120 <= len(plan.accounts) <= 190
    assert 330 <= len(plan.contacts) <= 480
    assert 2_700 <= len(plan.activities) <= 3_500
    assert 8 <= len(plan.members) <= 12
    roles = [member.role for member in plan.members]
    assert roles[0] == "OWNER"
    assert (roles.count("OWNER"), roles.count("ADMIN"), roles.count("VIEWER")) == (1, 2, 1)


@pytest.mark.no_database
@pytest.mark.parametrize("slug", SLUGS)
def test_a_third_of_the_closed_deals_is_won_and_sellers_differ(plans: dict[str, WorkspacePlan], slug: str) -> None:
    status = Counter(deal.status for deal in plans[slug].deals)
    assert 0.24 <= status["WON"] / (status["WON"] + status["LOST"]) <= 0.37
    won = Counter(deal.owner for deal in plans[slug].deals if deal.status == "WON")
    closed = Counter(deal.owner for deal in plans[slug].deals if deal.status != "OPEN")
    rates = [won[owner] / closed[owner] for owner in closed]
    assert max(rates) - min(rates) > 0.05


@pytest.mark.no_database
@pytest.mark.parametrize("slug", SLUGS)
def test_open_deals_stand_in_every_stage_and_some_are_overdue(plans: dict[str, WorkspacePlan], slug: str) -> None:
    open_deals = [deal for deal in plans[slug].deals if deal.status == "OPEN"]
    assert min(Counter(deal.stage for deal in open_deals)[stage] for stage in STAGES) >= 15
    expected = [expected_close(deal) for deal in open_deals]
    assert 5 <= sum(day < TODAY for day in expected) <= len(open_deals) // 3
    assert sum(TODAY < day < TODAY + timedelta(days=120) for day in expected) > len(open_deals) // 2
    assert sum("reopen" in {move.verb for move in deal.moves} for deal in plans[slug].deals) >= 5


def expected_close(deal: DealPlan) -> date:
    days = [deal.values, *(revision.values for revision in deal.revisions)]
    found = [values["expected_close_date"] for values in days if "expected_close_date" in values]
    assert isinstance(found[-1], date)
    return found[-1]


@pytest.mark.no_database
def test_more_deals_begin_in_the_second_year(plans: dict[str, WorkspacePlan]) -> None:
    middle = datetime.combine(TODAY - timedelta(days=365), datetime.min.time(), UTC)
    later = sum(deal.opened_at > middle for deal in plans["central"].deals)
    assert later > 0.55 * len(plans["central"].deals)


@pytest.mark.no_database
@pytest.mark.parametrize("slug", SLUGS)
def test_what_was_done_lies_in_the_two_years_before_today(plans: dict[str, WorkspacePlan], slug: str) -> None:
    calendar = plans[slug].calendar
    for step in steps_of(plans[slug]):
        assert calendar.start <= step.at < calendar.end, step
    assert calendar.end - calendar.start >= timedelta(days=HISTORY_DAYS - 1)


@pytest.mark.no_database
@pytest.mark.parametrize("slug", SLUGS)
def test_a_deals_history_goes_forward_and_ends_when_it_is_closed(plans: dict[str, WorkspacePlan], slug: str) -> None:
    for deal in plans[slug].deals:
        moments = [deal.opened_at, *(move.at for move in deal.moves)]
        assert moments == sorted(set(moments)), deal.external_id
        standing = "Lead"
        for move in deal.moves:
            assert (standing in STAGES) != (move.verb == "reopen"), deal.external_id
            assert move.stage != standing, deal.external_id
            assert move.verb != "lose" or move.reason, deal.external_id
            standing = move.stage


@pytest.mark.no_database
@pytest.mark.parametrize("slug", SLUGS)
def test_nobody_is_named_before_they_are_known(plans: dict[str, WorkspacePlan], slug: str) -> None:
    plan = plans[slug]
    known = {row.external_id: row.created_at for row in (*plan.accounts, *plan.contacts)}
    known |= {deal.external_id: deal.opened_at for deal in plan.deals}
    for step in steps_of(plan):
        for name in set(step.names()) & set(known):
            assert known[name] <= step.at, (step.plan.external_id, name)


@pytest.mark.no_database
def test_the_three_workspaces_share_the_names_of_their_accounts(plans: dict[str, WorkspacePlan]) -> None:
    names = [{account.name for account in plan.accounts} for plan in plans.values()]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == len(plans["east"].accounts)


@pytest.mark.no_database
@pytest.mark.parametrize("slug", SLUGS)
def test_accounts_form_groups_of_up_to_three_levels_parents_first(plans: dict[str, WorkspacePlan], slug: str) -> None:
    levels: dict[str | None, int] = {None: 0}
    for account in plans[slug].accounts:
        levels[account.external_id] = levels[account.parent] + 1
    assert Counter(levels.values())[2] >= 25
    assert Counter(levels.values())[3] >= 5
    assert max(levels.values()) == 3


@pytest.mark.no_database
@pytest.mark.parametrize("slug", SLUGS)
def test_names_come_in_ten_scripts_without_direction_marks(plans: dict[str, WorkspacePlan], slug: str) -> None:
    found = scripts(account.name for account in plans[slug].accounts)
    assert all(found[script] >= 3 for script in SCRIPTS), found
    assert all(scripts(person.first_name for person in plans[slug].contacts)[script] >= 2 for script in SCRIPTS)
    for text in texts(plans[slug]):
        assert not any(unicodedata.category(letter) in {"Cf", "Cc"} for letter in text), text
        assert "{" not in text
        assert unicodedata.is_normalized("NFC", text)


@pytest.mark.no_database
@pytest.mark.parametrize(
    ("usd", "currency", "expected"),
    [
        (67.0, "JPY", 10_000),
        (100.0, "USD", 10_000),
        (3_250.0, "KWD", 1_000_000),
        (730.0, "KRW", 1_000_000),
        (109.0, "EUR", 10_000),
    ],
)
def test_money_is_whole_minor_units_of_its_currency(usd: float, currency: str, expected: int) -> None:
    assert minor(usd, currency) == expected


@pytest.mark.no_database
@pytest.mark.parametrize("slug", SLUGS)
def test_every_foreign_currency_has_a_rate_before_its_first_deal(plans: dict[str, WorkspacePlan], slug: str) -> None:
    plan = plans[slug]
    first = {rate.currency: rate.as_of for rate in reversed(plan.rates)}
    foreign = {str(deal.values["currency"]) for deal in plan.deals} - {plan.currency}
    assert len(foreign) >= 5
    assert "JPY" in foreign
    assert all(first[currency] <= plan.calendar.first for currency in foreign)


@pytest.mark.no_database
def test_no_step_is_lost_in_the_groups_and_none_touches_a_record_twice(plans: dict[str, WorkspacePlan]) -> None:
    groups = [group for chapter in chapters(steps_of(plans["west"])) for group in group_steps(chapter)]
    assert sum(map(len, groups)) == len(list(steps_of(plans["west"])))
    for group in groups:
        assert len({step.plan.external_id for step in group}) == len(group)


@pytest.fixture(scope="module")
def small() -> WorkspacePlan:
    """A workspace of sixty deals."""
    return plan_workspace("central", TODAY, most_deals=60)


@pytest.fixture(scope="module")
async def written(database: Database, registry: Registry, make_tenant: TenantMaker, small: WorkspacePlan) -> Tenant:
    tenant, _ = await make_tenant("demo")
    await write_workspace(database, registry, tenant, small, report=lambda done, total: None)
    return tenant


async def test_everything_planned_is_written(
    database: Database, registry: Registry, written: Tenant, small: WorkspacePlan
) -> None:
    async with open_call(database, registry, written, system_principal()) as call:
        counts = [
            await call.session.scalar(select(func.count(model.id))) for model in (Account, CRMContact, CRMActivity, ExchangeRate)
        ]
        deals = {deal.external_id: deal for deal in await call.session.scalars(select(Opportunity))}
        history = await call.session.scalar(select(func.count(OpportunityStageHistory.id)))
        lines = await call.session.scalar(select(func.count(OpportunityLineItem.id)))
    assert counts == [len(small.accounts), len(small.contacts), len(small.activities), len(small.rates)]
    assert {name: deal.status for name, deal in deals.items()} == {deal.external_id: deal.status for deal in small.deals}
    assert history == sum(1 + len(deal.moves) for deal in small.deals)
    assert lines == sum(len(deal.lines) for deal in small.deals)


async def test_each_person_acts_under_their_own_name_and_in_their_time(
    database: Database, registry: Registry, written: Tenant, small: WorkspacePlan
) -> None:
    plan = next(deal for deal in small.deals if deal.status == "WON")
    async with open_call(database, registry, written, system_principal()) as call:
        deal = (await call.session.scalars(select(Opportunity).where(Opportunity.external_id == plan.external_id))).one()
        owner = await call.load(Membership, deal.owner_user_id)
        entries = (
            await call.session.scalars(select(AuditEntry).where(AuditEntry.entity_id == deal.id).order_by(AuditEntry.id))
        ).all()
        history = select(OpportunityStageHistory.changed_at).where(OpportunityStageHistory.opportunity_id == deal.id)
        changed = sorted((await call.session.scalars(history)).all())
    assert owner.email == small.members[plan.owner].email
    assert {entry.actor_id for entry in entries} == {owner.id}
    assert (entries[0].operation, deal.created_at) == ("opportunities:create", plan.opened_at)
    assert "opportunities:win" in {entry.operation for entry in entries}
    assert changed == [plan.opened_at, *(move.at for move in plan.moves)]


async def test_writing_again_changes_nothing(
    database: Database, registry: Registry, written: Tenant, small: WorkspacePlan
) -> None:
    assert await write_workspace(database, registry, written, small, report=lambda done, total: None) == 0


async def test_an_interrupted_writing_goes_on_without_doubles(
    database: Database, registry: Registry, make_tenant: TenantMaker, small: WorkspacePlan
) -> None:
    tenant, _ = await make_tenant("broken")

    def stop_halfway(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await write_workspace(database, registry, tenant, small, report=stop_halfway)
    written = await write_workspace(database, registry, tenant, small, report=lambda done, total: None)
    assert 0 < written < sum(map(len, chapters(steps_of(small))))
    async with open_call(database, registry, tenant, system_principal()) as call:
        assert await call.session.scalar(select(func.count(Opportunity.id))) == len(small.deals)
        assert await call.session.scalar(select(func.count(CRMActivity.id))) == len(small.activities)


@pytest.fixture
def alone(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """An installation without workspaces, and writers that write nothing."""

    async def write_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(demo, "_fill", write_nothing)
    server, name = test_server(), database_name("demo")
    url = fresh_database(server, name).set(drivername="postgresql").render_as_string(hide_password=False)
    found = Settings(DATABASE_URL=url, secret_key=settings.secret_key, data_dir=tmp_path)
    migrate(found, find_addresses(found))
    yield found
    provide(settings)
    drop_database(server, name)


async def test_a_second_start_shows_the_same_credentials(alone: Settings) -> None:
    first = await demo.ensure_demo(alone)
    assert [made.slug for made in first] == SLUGS
    assert len({made.password for made in first} | {made.key for made in first}) == 6
    assert (alone.data_dir / "demo.json").stat().st_mode & 0o777 == 0o600
    assert await demo.ensure_demo(alone) == first


async def test_a_workspace_of_somebody_else_is_left_alone(alone: Settings) -> None:
    await demo.ensure_demo(alone)
    (alone.data_dir / "demo.json").unlink()
    assert await demo.ensure_demo(alone) == []


async def test_a_start_that_broke_off_before_the_filling_is_completed(alone: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    filling = demo._fill
    monkeypatch.setattr(demo, "_fill", break_off)
    with pytest.raises(KeyboardInterrupt):
        await demo.ensure_demo(alone)
    monkeypatch.setattr(demo, "_fill", filling)
    assert [made.slug for made in await demo.ensure_demo(alone)] == SLUGS


@pytest.mark.no_database
def test_the_welcome_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    made = Made("central", "Meridian Central", "ada@central.example", "aaaa-bbbb", "rh_pk_" + "k" * 60)
    demo.print_welcome(Settings(port=8301), [made])
    shown = capsys.readouterr().out
    url = "http://central.localhost:8301/api/v1/opportunities/reports/win-rate"
    assert f'curl -s -H "Authorization: Bearer {made.key}" {url}\n' in shown
    assert "ada@central.example  aaaa-bbbb" in shown

"""The search path: what is found, in which order, and an index that is true after any series of operations."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text

from cast import Command, TenantMaker
from partywall import Tenant, reviewed
from rowhouse.commands.searching import fill_empty, index_rows
from rowhouse.commands.session import Program
from rowhouse.core import operations
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database
from rowhouse.core.errors import Invalid
from rowhouse.core.permissions import Principal, Role
from rowhouse.core.resource import Registry
from rowhouse.core.search.index import Posting, SearchPosting, SearchWord, indexed
from rowhouse.core.search.query import Hit, find, narrow
from rowhouse.migrate import Addresses
from rowhouse.settings import Settings

Opener = Callable[[], AbstractAsyncContextManager[Call]]


@pytest.fixture
async def house(database: Database, registry: Registry, make_tenant: TenantMaker) -> tuple[Tenant, Principal]:
    """A workspace of the test's own, its owner's membership indexed."""
    tenant, owner = await make_tenant("searched")
    async with open_call(database, registry, tenant, owner) as call:
        await index_rows(call, registry["members"])
    return tenant, owner


@pytest.fixture
def opened(database: Database, registry: Registry, house: tuple[Tenant, Principal]) -> Opener:
    return partial(open_call, database, registry, *house)


async def make(opened: Opener, resource: str, /, **values: Any) -> Any:
    async with opened() as call:
        return await operations.create(call, call.registry[resource], values)


async def look(opened: Opener, q: str, *names: str, limit: int = 10) -> list[Hit]:
    async with opened() as call:
        return await find(call, [call.registry[name] for name in names] or list(call.registry), q, limit=limit)


async def titles(opened: Opener, q: str, *names: str) -> list[str]:
    return [hit.title for hit in await look(opened, q, *names)]


async def listed(opened: Opener, name: str, q: str) -> list[str]:
    async with opened() as call:
        model: Any = call.registry[name].model
        (rows,) = await call.fetch(select(model.name).where(await narrow(call, call.registry[name], q)).order_by(model.name))
        return [row[0] for row in rows]


async def in_index(opened: Opener) -> list[Posting]:
    async with opened() as call:
        columns = (SearchPosting.token, SearchPosting.entity, SearchPosting.weight, SearchPosting.id)
        return sorted(tuple(row) for row in (await call.session.execute(select(*columns))).all())  # type: ignore[misc]


async def as_it_should_be(opened: Opener) -> list[Posting]:
    expected: set[Posting] = set()
    async with opened() as call:
        for resource in call.registry:
            source = indexed(resource)
            for row in await call.session.scalars(select(resource.model)) if source is not None else ():
                expected |= source.postings({name: getattr(row, name, None) for name in (*source.names, "id")})
    return sorted(expected)


CONTACT = {"first_name": "Zoë", "last_name": "Østergård", "email": "Zoe.O@Fjord-Foods.example", "phone": "+45 (33) 123-4567"}


@pytest.mark.parametrize(
    "q",
    [
        "Zoë Østergård",
        "zoe",
        "ostergard zoe",
        "OSTERGARD",
        "oster",
        "zoe o",
        "z",
        "zoe.o@fjord-foods.example",
        "ZOE.O@fjord",
        "fjord-foods.example",
        "fjord",
        "foods zoe",
        "1234567",
        "4533123",
        "+45 33 123 4567",
        "(33) 123-4567",
        "ostergrd",
        "ostergaard",
        "ostergxrd",
        "ostegrard",
        "purchaising zoe",
    ],
)
async def test_a_person_is_found(opened: Opener, q: str) -> None:
    await make(opened, "contacts", **CONTACT, job_title="Head of Purchasing")
    await make(opened, "contacts", first_name="Bruno", last_name="Unrelated")
    assert await titles(opened, q) == ["Zoë Østergård"]
    assert await listed(opened, "contacts", q) == ["Zoë Østergård"]


@pytest.mark.parametrize("q", ["zoe bruno", "xylophone", "zoe xylophone", "?!", "%", "_", "e"])
async def test_what_does_not_match_is_not_found(opened: Opener, q: str) -> None:
    await make(opened, "contacts", **CONTACT)
    await make(opened, "contacts", first_name="Bruno", last_name="Unrelated")
    assert await titles(opened, q, "contacts") == []
    assert await listed(opened, "contacts", q) == []


async def test_a_hit_says_what_it_is(opened: Opener) -> None:
    account = await make(opened, "accounts", name="Northwind", industry="Trading")
    assert await look(opened, "northwind") == [Hit("accounts", account.id, "Northwind", "Trading", None, None)]


async def test_a_deal_is_found_by_its_number(opened: Opener) -> None:
    deal = await make(opened, "opportunities", name="Roof renewal")
    line = None
    async with opened() as call:
        line = await operations.create(
            call, call.registry["opportunity-line-items"], {"name": "Slate tiles", "unit_price_minor": 100}, parent_id=deal.id
        )
    for q in (str(deal.number), f"#{deal.number}", f"OPP-{deal.number}", f"opp-{deal.number} roof"):
        hits = await look(opened, q, "opportunities", "opportunity-line-items")
        assert hits == [Hit("opportunities", deal.id, "Roof renewal", "", deal.number, None)], q
    assert await look(opened, "slate") == [Hit("opportunity-line-items", line.id, "Slate tiles", "", None, deal.id)]


async def test_notes_are_found_after_titles_and_exact_words_before_begun_ones(opened: Opener) -> None:
    names = ["Harborside", "Harbor", "Old Harbor"]
    for name in names:
        await make(opened, "accounts", name=name)
    await make(opened, "accounts", name="Quay", industry="Harbor")
    await make(opened, "activities", type="TASK", subject="Call", description="They moved to the harbor.")
    assert await titles(opened, "harbor") == ["Old Harbor", "Harbor", "Quay", "Call", "Harborside"]
    assert await titles(opened, "harbour") == ["Old Harbor", "Harbor", "Quay", "Call"]


async def test_at_most_so_many_of_each_resource(opened: Opener) -> None:
    for place in range(7):
        await make(opened, "accounts", name=f"Mill {place}")
        await make(opened, "contacts", last_name=f"Mill {place}")
    hits = await look(opened, "mill", limit=3)
    assert [hit.title for hit in hits if hit.resource == "accounts"] == ["Mill 6", "Mill 5", "Mill 4"]
    assert [hit.title for hit in hits if hit.resource == "contacts"] == ["Mill 6", "Mill 5", "Mill 4"]


async def many(opened: Opener, *names: str) -> None:
    async with opened() as call, call.deferred():
        for name in names:
            await operations.create(call, call.registry["accounts"], {"name": name})


async def test_two_frequent_words_that_never_meet_and_one_pair_that_does(opened: Opener) -> None:
    # The one that has both is the oldest, behind every record that is looked at first.
    await many(opened, "Both: alpha omega", *(f"{'alpha' if n % 2 else 'omega'} {n}" for n in range(2500)))
    assert await titles(opened, "alpha omega") == ["Both: alpha omega"]
    assert await listed(opened, "accounts", "alpha omega") == ["Both: alpha omega"]
    assert (await titles(opened, "alpha 77"))[:2] == ["alpha 77", "alpha 779"]
    assert "omega 77" not in await titles(opened, "omega 77")
    assert len(await listed(opened, "accounts", "alpha")) == 1251
    assert len(await titles(opened, "alpha")) == 10


async def test_many_that_match_are_all_listed(opened: Opener) -> None:
    await many(opened, *(f"alpha omega {n}" for n in range(2100)), "alpha alone")
    assert len(await listed(opened, "accounts", "alpha omega")) == 2100
    assert len(await listed(opened, "accounts", "omega alph")) == 2100
    assert len(await listed(opened, "accounts", "alphq")) == 2101


async def test_archived_records_are_listed_and_not_found(opened: Opener, registry: Registry) -> None:
    row = await make(opened, "accounts", name="Lighthouse")
    async with opened() as call:
        await operations.archive(call, registry["accounts"], row.id)
    assert await titles(opened, "lighthouse") == []
    assert await listed(opened, "accounts", "lighthouse") == ["Lighthouse"]
    async with opened() as call:
        await operations.restore(call, registry["accounts"], row.id)
    assert await titles(opened, "lighthouse") == ["Lighthouse"]


async def test_a_renamed_record_is_found_by_its_new_name_alone(opened: Opener, registry: Registry) -> None:
    row = await make(opened, "accounts", name="Before Works", industry="Steel")
    async with opened() as call:
        await operations.update(call, registry["accounts"], row.id, {"name": "After Works"})
    assert await titles(opened, "before") == []
    for q in ("after", "works", "steel"):
        assert await titles(opened, q) == ["After Works"]


async def test_a_call_finds_what_it_has_just_written(opened: Opener) -> None:
    async with opened() as call:
        await operations.create(call, call.registry["accounts"], {"name": "Fresh Paint"})
        hits = await find(call, list(call.registry), "fresh pai", limit=5)
        assert [hit.title for hit in hits] == ["Fresh Paint"]


async def test_what_is_rolled_back_is_not_found_and_its_words_can_be_learnt_again(opened: Opener) -> None:
    async with opened() as call:
        await operations.create(call, call.registry["accounts"], {"name": "Vanishing"})
        await call.session.rollback()
    assert await titles(opened, "vanishing") == []
    async with opened() as call:
        items = [{"name": "Vanishing"}, {"name": "x" * 300}, {"name": "Staying"}]
        await operations.bulk(call, call.registry["accounts"], "create", items)
    assert await titles(opened, "vanishng") == ["Vanishing"]
    assert await titles(opened, "stayign") == ["Staying"]


async def test_only_what_the_caller_may_list_is_found(
    opened: Opener, database: Database, registry: Registry, house: tuple[Tenant, Principal]
) -> None:
    await make(opened, "accounts", name="Secretive")
    await make(opened, "contacts", last_name="Secretive")
    await make(opened, "contacts", last_name="Secretory")
    tenant, owner = house
    narrow_key = Principal("personal_key", owner.subject_id, owner.member_id, Role.OWNER, scopes=frozenset({"accounts:list"}))
    async with open_call(database, registry, tenant, narrow_key) as call:
        hits = await find(call, list(registry), "secretive", limit=5)
        assert [hit.resource for hit in hits] == ["accounts"]
        # A word that stands only where the caller may not look does not even hint at itself.
        assert await find(call, list(registry), "secretory", limit=5) == []
        assert await find(call, list(registry), "secretoyr", limit=5) == []
    nobody = Principal("personal_key", owner.subject_id, owner.member_id, Role.OWNER, scopes=frozenset())
    async with open_call(database, registry, tenant, nobody) as call:
        assert await find(call, list(registry), "secretive", limit=5) == []


async def test_a_list_that_is_not_searched_says_so(opened: Opener, registry: Registry) -> None:
    async with opened() as call:
        with pytest.raises(Invalid, match="cannot be searched"):
            await narrow(call, registry["exchange-rates"], "x")
        with pytest.raises(Invalid):
            await narrow(call, registry["accounts"], "a\0b")


async def test_a_blank_query_matches_everything_and_punctuation_nothing(opened: Opener) -> None:
    await make(opened, "accounts", name="Any")
    assert await listed(opened, "accounts", "  ") == ["Any"]
    assert await listed(opened, "accounts", "...") == []


async def step(call: Call, chance: random.Random, ids: dict[str, list[Any]]) -> None:
    """Do one random thing to a random record."""
    words = ["amber", "birch", "cedar", "dune", "ember", "fjord"]
    name = chance.choice(["accounts", "contacts", "opportunities"])
    resource, field = call.registry[name], "last_name" if name == "contacts" else "name"
    title = " ".join(chance.sample(words, 2))
    verb = chance.choice(["create", "create", "update", "archive", "restore", "delete", "merge"])
    if verb == "create" or not ids[name]:
        values = {
            field: title,
            **({"email": f"{title.replace(' ', '.')}{chance.random()}@x.example"} if name == "contacts" else {}),
        }
        row = await operations.create(call, resource, values)
        ids[name].append(row.id)
        if name == "opportunities":
            line = {"name": title, "unit_price_minor": 5}
            await operations.create(call, call.registry["opportunity-line-items"], line, parent_id=row.id)
        return
    row_id = chance.choice(ids[name])
    if verb == "update":
        await operations.update(call, resource, row_id, {field: title})
    elif verb == "delete":
        await operations.delete(call, resource, row_id)
        ids[name].remove(row_id)
    elif verb == "merge":
        if name != "opportunities":
            merge = next(action for action in resource.actions if action.name == "merge")
            done = await operations.act(call, resource, merge, {"source_ids": [str(chance.choice(ids[name]))]}, row_id=row_id)
            if chance.random() < 0.5:
                merges = call.registry["merges"]
                await operations.act(call, merges, merges.actions[0], {}, row_id=done.merge_id)
    else:
        await getattr(operations, verb)(call, resource, row_id)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_index_is_true_after_any_series_of_operations(opened: Opener, seed: int) -> None:
    chance = random.Random(seed)
    ids: dict[str, list[Any]] = {"accounts": [], "contacts": [], "opportunities": []}
    done = 0
    for _ in range(80):
        before = {name: list(found) for name, found in ids.items()}
        try:
            async with opened() as call:
                await step(call, chance, ids)
            done += 1
        except operations.RowhouseError:
            ids = before
    assert done > 50
    index = await in_index(opened)
    assert index == await as_it_should_be(opened)
    assert {entity for _, entity, _, _ in index} >= {"account", "account~"}


async def test_a_removed_deal_takes_the_words_of_its_parts_along(opened: Opener, registry: Registry) -> None:
    before = await in_index(opened)
    deal = await make(opened, "opportunities", name="Bridge")
    async with opened() as call:
        line = {"name": "Steel girder", "unit_price_minor": 5}
        await operations.create(call, registry["opportunity-line-items"], line, parent_id=deal.id)
    assert await titles(opened, "girder") == ["Steel girder"]
    async with opened() as call:
        await operations.delete(call, registry["opportunities"], deal.id)
    assert await in_index(opened) == before


async def test_indexing_again_changes_nothing_and_fills_what_is_missing(opened: Opener, registry: Registry) -> None:
    await many(opened, *(f"Batch {n}" for n in range(30)))
    before = await in_index(opened)
    for _ in range(2):
        async with opened() as call:
            first = await index_rows(call, registry["accounts"], size=20)
        # Stopped here, it can go on from where it was, or begin again.
        async with opened() as call:
            rest = await index_rows(call, registry["accounts"], after=first[-1], size=20)
            assert (len(first), len(rest)) == (20, 10)
            assert await index_rows(call, registry["accounts"], after=rest[-1]) == []
        assert await in_index(opened) == before
        async with opened() as call:
            await call.session.execute(delete(SearchPosting).where(SearchPosting.entity == "account"))
        assert await in_index(opened) != before


async def test_a_word_is_learnt_once(opened: Opener) -> None:
    for _ in range(3):
        await make(opened, "accounts", name="Repetition")
    async with opened() as call:
        count = await call.session.scalar(
            select(func.count()).select_from(SearchWord).where(SearchWord.word == "repetition", SearchWord.variant == "repetit")
        )
    assert count == 1


@pytest.mark.parametrize(
    "rest",
    [
        "AND token = 'plan' AND entity = 'account' ORDER BY weight DESC, id DESC LIMIT 10",
        "AND token = 'plan' AND entity = 'account' AND weight = 3 AND id = :tenant_id",
        "AND token >= 'pl' AND token < 'pm' ORDER BY token LIMIT 1",
    ],
)
async def test_look_ups_run_in_the_key_under_the_policies(opened: Opener, house: tuple[Tenant, Principal], rest: str) -> None:
    given, reason = {"tenant_id": house[0].id}, "the plan of a look-up, whatever the size of the table"
    async with opened() as call:
        # A small table is read as a whole; what matters is that the policies do not keep the words out of the key.
        for method in ("seqscan", "bitmapscan", "sort"):
            await call.session.execute(reviewed(text(f"SET LOCAL enable_{method} = off"), reason=reason), given)
        sql = f"EXPLAIN SELECT id FROM search_posting WHERE tenant_id = :tenant_id {rest}"
        plan = "\n".join(await call.session.scalars(reviewed(text(sql), reason=reason), given))
    assert "using pk_search_posting" in plan, plan
    assert re.search(r"Index Cond: .*token", plan), plan
    assert not re.search(r"^ *(Filter|Sort)", plan, re.MULTILINE), plan


async def test_a_workspace_without_an_index_is_filled_once(
    opened: Opener, settings: Settings, addresses: Addresses, database: Database, registry: Registry
) -> None:
    program = Program(settings, addresses, database, registry)
    await many(opened, "Northwind", "Southwind")
    before = await in_index(opened)
    async with opened() as call:
        await call.session.execute(delete(SearchPosting).execution_options(synchronize_session=False))
    assert await fill_empty(program) >= len({posting[3] for posting in before})
    assert await in_index(opened) == before
    assert await titles(opened, "nortwind") == ["Northwind"]
    assert await fill_empty(program) == 0


def test_reindex_says_how_much_it_did_and_can_be_repeated(command: Command) -> None:
    slug = f"reindexed-{secrets.token_hex(3)}"
    command("tenant", "create", slug, "--name", "Reindexed", "--owner-email", f"owner@{slug}.example")
    first = command("reindex", "--tenant", slug).output.splitlines()[-1]
    assert re.fullmatch(r"[1-9]\d* records indexed", first)
    assert command("reindex", "--tenant", slug, "--afresh").output.splitlines()[-1] == first

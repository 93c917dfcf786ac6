"""Lists and records as PostgreSQL builds them: the same through an exchange, through a transaction, and for anybody else."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from cast import CallMaker, Person
from partywall import GuardRefusal, TenantMismatch, tenant_scope
from rowhouse.core import operations
from rowhouse.core.errors import NotFound
from rowhouse.core.reads import Query
from rowhouse.core.resource import Registry
from rowhouse.exchange import ask_of, one_of
from rowhouse.modules.crm.models import Account
from rowhouse.values.cursors import Cursors
from rows import Rows

CURSORS = Cursors(b"the secret of these tests alone, thirty-two")
NAMES = ["Ähre & Söhne", 'Quote "Inc"', "Back\\slash", "Acme", "acme", "100 %", "under_score", "~0", ',"~0":', "Zoë"]
_VALUES: dict[str, Any] = {
    "name": st.sampled_from(NAMES),
    "industry": st.sampled_from(["Software", "Retail", "x'y"]),
    "health_score": st.integers(0, 100),
    "created_at": st.sampled_from(["today", "-30d", "2020-01-01T00:00:00Z"]),
}
_PARAMS = st.one_of(
    st.tuples(st.sampled_from(["name", "industry"]), st.sampled_from(["eq", "ne", "lt", "gte"]), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(["name", "industry"]), st.sampled_from(["contains", "starts_with"]), st.sampled_from(NAMES)),
    st.tuples(st.just("name"), st.sampled_from(["in", "not_in"]), st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)),
    st.tuples(st.just("health_score"), st.sampled_from(["eq", "lte", "gt", "ne"]), st.integers(0, 100)),
    st.tuples(st.just("health_score"), st.just("between"), st.tuples(st.integers(0, 50), st.integers(50, 100)).map(list)),
    st.tuples(st.sampled_from(["health_score", "industry"]), st.just("is_null"), st.booleans()),
    st.tuples(st.just("created_at"), st.sampled_from(["gte", "lt"]), _VALUES["created_at"]),
    st.tuples(st.just("created_at"), st.just("within"), st.sampled_from(["today", "this_year", "last_30_days"])),
)
_LEAF = _PARAMS.map(lambda found: {"field": found[0], "op": found[1], "value": found[2]})
_TREE = st.recursive(
    _LEAF,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"or": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=4,
)
QUERIES = st.builds(
    Query,
    filter=st.none() | _TREE,
    params=st.lists(_PARAMS, max_size=2).map(tuple),
    sort=st.sampled_from([(), ("name",), ("-health_score", "name"), ("-created_at",), ("health_score",)]),
    fields=st.sampled_from([(), ("name",), ("id", "name", "created_at"), ("churn_risk", "tags", "billing_address")]),
    limit=st.sampled_from([1, 3, 10, 26]),
    archived=st.sampled_from(["exclude", "only", "all"]),
    total=st.booleans(),
)


@pytest.fixture(scope="session")
async def named(world: Any, registry: Registry) -> None:
    """Give both tenants the same odd names, so that nothing but the tenant tells their rows apart."""
    for person in (world.people["owner_a"], world.people["owner_b"]):
        for place, name in enumerate(NAMES):
            body = {
                "name": name,
                "industry": [None, "Software", "x'y"][place % 3],
                "billing_address": {"~0": name},
                "tags": [name],
            }
            answer = await person.client.post("/api/v1/accounts", json=body)
            assert answer.status_code == 201, answer.text
            if place % 4 == 3:
                assert (await person.client.post(f"/api/v1/accounts/{answer.json()['id']}/archive")).status_code == 200


async def listed(call_as: CallMaker, person: Person, registry: Registry, query: Query, *, in_transaction: bool) -> list[Any]:
    """Return all pages of a list, each as (rows, total), read alone or through the call's transaction."""
    pages: list[Any] = []
    cursor = ""
    while True:
        async with call_as(person) as call:
            if in_transaction:
                await call.session.execute(select(Account.id).limit(1))
            step = Query(**{**{f: getattr(query, f) for f in Query.__dataclass_fields__}, "cursor": cursor})
            page = await operations.list_(call, registry["accounts"], step, CURSORS)
        pages.append((page.rows, page.total))
        cursor = page.next_cursor
        if not cursor:
            return pages


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=QUERIES)
async def test_a_list_is_the_same_through_an_exchange_and_through_a_transaction(
    query: Query, call_as: CallMaker, owner_a: Person, owner_b: Person, registry: Registry, named: None
) -> None:
    # The other tenant asks first, so that whatever is kept of a shape was made for somebody else.
    foreign = await listed(call_as, owner_b, registry, query, in_transaction=False)
    alone = await listed(call_as, owner_a, registry, query, in_transaction=False)
    assert alone == await listed(call_as, owner_a, registry, query, in_transaction=True)
    assert foreign == await listed(call_as, owner_b, registry, query, in_transaction=True)


async def test_the_rows_of_two_tenants_of_the_same_names_are_apart(
    call_as: CallMaker, owner_a: Person, owner_b: Person, registry: Registry, named: None
) -> None:
    query = Query(fields=("id", "name"), limit=100, archived="all")
    pages = [await listed(call_as, person, registry, query, in_transaction=False) for person in (owner_a, owner_b)]
    own, others = ({json.loads(row)["id"] for rows, _ in found for row in rows} for found in pages)
    assert len(own) >= len(NAMES)
    assert len(others) >= len(NAMES)
    assert own.isdisjoint(others)


MADE = ["accounts", "contacts", "opportunities", "activities", "opportunity-line-items", "exchange-rates"]


@pytest.mark.parametrize("name", MADE)
async def test_a_create_answers_what_a_get_answers(
    name: str, rows_a: Rows, registry: Registry, owner_a: Person, call_as: CallMaker
) -> None:
    resource = registry[name]
    async with call_as(owner_a) as call:
        document = json.loads(await operations.get(call, resource, UUID(rows_a.id_of(name))))
    made = rows_a.by_name[name]
    moving = {"updated_at", "version", "last_activity_at", "next_activity_at", "updated_by_id"}
    same = {key for key in made if key not in moving and document["version"] == made["version"]}
    assert {key: document[key] for key in same} == {key: made[key] for key in same}
    assert list(document) == list(made)


async def test_an_account_just_made_is_the_same_to_the_byte(owner_a: Person) -> None:
    made = await owner_a.client.post("/api/v1/accounts", json={"name": "Byte for byte", "tags": ["b", "a"], "founded_year": 1999})
    found = await owner_a.client.get(f"/api/v1/accounts/{made.json()['id']}")
    assert made.json() == found.json()
    assert list(made.json()) == list(found.json())


async def test_a_call_that_has_written_reads_what_it_wrote(owner_a: Person, registry: Registry, call_as: CallMaker) -> None:
    async with call_as(owner_a) as call:
        row = await operations.create(call, registry["accounts"], {"name": "Not yet committed"})
        document = json.loads(await operations.get(call, registry["accounts"], row.id))
        page = await operations.list_(call, registry["accounts"], Query(params=(("name", "eq", "Not yet committed"),)), CURSORS)
        assert document["name"] == "Not yet committed"
        assert [item["id"] for item in page.items] == [str(row.id)]


async def test_a_call_reads_for_no_other_tenant(owner_a: Person, owner_b: Person, registry: Registry, call_as: CallMaker) -> None:
    async with call_as(owner_a) as call:
        call.tenant = owner_b.tenant
        with pytest.raises(TenantMismatch):
            await operations.list_(call, registry["accounts"], Query(), CURSORS)
        call.tenant = owner_a.tenant
        with pytest.raises(NotFound):
            await operations.get(call, registry["accounts"], uuid4())


async def test_a_list_of_values_must_be_one_parameter(owner_a: Person, call_as: CallMaker) -> None:
    async with call_as(owner_a) as call:
        with pytest.raises(GuardRefusal, match="one_of"):
            await call.rows(select(Account.name).where(Account.name.in_(["a", "b"])))
        with pytest.raises(GuardRefusal):
            await call.rows(select(Account.__table__.c.name))
        named = await call.rows(select(Account.name).where(one_of(Account.name, ["Acme", "acme"])))
    assert {name for (name,) in named} <= {"Acme", "acme"}
    with tenant_scope(owner_a.tenant):
        assert ask_of(select(Account.name)).values is None

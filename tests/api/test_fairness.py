"""Fair shares: who runs, who waits, who is refused; and that no place is ever lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url, select, text

from cast import Person
from partywall.asgi import TenantMiddleware
from partywall.resolve import Credential, Member, Resolution
from rowhouse.api.fairness import Fairness, Group, Slots
from rowhouse.api.rates import WINDOW_S, Rate, RateReached
from rowhouse.api.system import REFUSED, WAITED
from rowhouse.app import create_app
from rowhouse.core.call import open_call
from rowhouse.core.db import Database, open_database
from rowhouse.core.errors import TooMany
from rowhouse.core.resource import Registry
from rowhouse.migrate import Addresses
from rowhouse.modules.crm.models import Account
from rowhouse.settings import Settings
from rows import Rows

Send = Callable[[dict[str, Any]], Any]


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def entered(slots: Slots, group: Group) -> float:
    mark = slots.enter(group)
    assert mark is not None
    return mark


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


# --- places -------------------------------------------------------------------------------------------------------------


async def test_a_group_holds_at_most_its_share() -> None:
    slots = Slots(4, share=0.5)
    group = slots.group("a")
    entered(slots, group), entered(slots, group)
    assert slots.enter(group) is None
    assert slots.running == 2


async def test_a_share_is_never_less_than_one_place() -> None:
    slots = Slots(2, share=0.01)
    entered(slots, slots.group("a"))
    entered(slots, slots.group("b"))
    assert slots.running == 2


async def test_places_go_round_the_groups_and_in_order_within_one() -> None:
    clock = Clock()
    slots, served = Slots(1, share=1.0, clock=clock), []
    first = entered(slots, slots.group("x"))

    async def ask(name: str, number: int) -> None:
        group = slots.group(name)
        mark = await slots.wait(group)
        served.append(f"{name}{number}")
        slots.leave(group, mark)

    tasks = [asyncio.create_task(ask(name, number)) for name in "abc" for number in (1, 2)]
    await settled()
    slots.leave(slots.group("x"), first)
    await asyncio.gather(*tasks)
    assert served == ["a1", "b1", "c1", "a2", "b2", "c2"]


async def test_a_flood_starts_one_at_a_time_while_a_neighbour_is_active() -> None:
    clock = Clock()
    slots = Slots(8, share=1.0, clock=clock)
    flood, neighbour = slots.group("flood"), slots.group("neighbour")
    slots.leave(neighbour, entered(slots, neighbour))
    entered(slots, flood)
    assert slots.enter(flood) is None
    clock.now += 0.3
    entered(slots, flood)
    clock.now += 11
    entered(slots, flood)
    assert slots.enter(flood) is not None


async def test_a_flood_rests_as_long_as_it_worked_and_a_page_does_not() -> None:
    clock = Clock()
    slots = Slots(8, share=1.0, clock=clock)
    group, neighbour = slots.group("a"), slots.group("neighbour")
    slots.leave(neighbour, entered(slots, neighbour))
    mark = entered(slots, group)
    waiting = [asyncio.create_task(slots.wait(group)) for _ in range(4)]
    await settled()
    clock.now += 0.01
    slots.leave(group, mark)
    mark = await waiting[0]
    clock.now += 1.5
    slots.leave(group, mark)
    await settled()
    assert not waiting[1].done()
    clock.now += 0.06
    slots._serve()
    assert clock.now == await waiting[1]
    for task in waiting[2:]:
        task.cancel()
    await asyncio.gather(*waiting[2:], return_exceptions=True)
    slots.leave(group, clock.now)
    assert (slots.running, slots._groups) == (0, {})


async def test_a_group_that_is_forgotten_and_comes_again_is_no_neighbour_of_itself() -> None:
    slots = Slots(8, share=1.0)
    for _ in range(3):
        group = slots.group("a")
        slots.leave(group, entered(slots, group))
    group = slots.group("a")
    entered(slots, group), entered(slots, group)
    assert slots.running == 2


async def test_a_full_queue_refuses() -> None:
    slots = Slots(1, queue=2)
    group = slots.group("a")
    entered(slots, group)
    waiting = [asyncio.create_task(slots.wait(group)) for _ in range(2)]
    await settled()
    with pytest.raises(TooMany) as refused:
        await slots.wait(group)
    assert refused.value.retry_after_s == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_waited_too_long_is_refused_and_takes_no_place_along() -> None:
    slots = Slots(1, wait_s=0)
    group = slots.group("a")
    mark = entered(slots, group)
    with pytest.raises(TooMany):
        await slots.wait(group)
    slots.leave(group, mark)
    assert (slots.running, len(slots._groups), len(slots._turns)) == (0, 0, 0)


async def test_a_place_given_in_the_moment_of_cancelling_is_given_back() -> None:
    slots = Slots(1)
    group = slots.group("a")
    mark = entered(slots, group)
    waiting = asyncio.create_task(slots.wait(group))
    await settled()
    slots.leave(group, mark)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert slots.running == 0
    entered(slots, slots.group("b"))


STEPS = st.lists(st.tuples(st.sampled_from(["ask", "end", "cancel", "turn"]), st.integers(0, 3), st.integers(0, 20)), max_size=80)


@given(steps=STEPS, size=st.integers(1, 4), share=st.sampled_from([0.3, 0.5, 1.0]))
def test_no_schedule_loses_a_place_or_breaks_a_share(steps: list[tuple[str, int, int]], size: int, share: float) -> None:
    asyncio.run(_play(Slots(size, share=share, queue=5, clock=Clock()), steps))


async def _play(slots: Slots, steps: list[tuple[str, int, int]]) -> None:
    running: dict[asyncio.Task[None], asyncio.Event] = {}
    tasks: list[asyncio.Task[None]] = []
    outcomes: Counter[str] = Counter()

    async def request(name: int, end: asyncio.Event) -> None:
        group = slots.group(name)
        try:
            mark = slots.enter(group)
            mark = await slots.wait(group) if mark is None else mark
        except TooMany:
            outcomes["refused"] += 1
            return
        try:
            await end.wait()
            outcomes["ran"] += 1
        finally:
            slots.leave(group, mark)

    for step, name, which in steps:
        if step == "ask":
            end = asyncio.Event()
            task = asyncio.create_task(request(name, end))
            running[task] = end
            tasks.append(task)
        elif tasks and step == "end":
            running[tasks[which % len(tasks)]].set()
        elif tasks and step == "cancel":
            tasks[which % len(tasks)].cancel()
        else:
            await settled()
        held = [len(group.started) for group in slots._groups.values()]
        assert sum(held) == slots.running <= slots.size
        assert all(number <= slots.most for number in held)
    for end in running.values():
        end.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = sum(task.cancelled() for task in tasks)
    assert outcomes["ran"] + outcomes["refused"] + cancelled == len(tasks)
    assert (slots.running, slots._groups, len(slots._turns)) == (0, {}, 0)


# --- rates --------------------------------------------------------------------------------------------------------------


def test_the_last_sixty_seconds_count_and_refusals_do_not() -> None:
    clock = Clock()
    rate = Rate("caller", 10, clock=clock)
    for _ in range(10):
        rate.count("a")
    for _ in range(5):
        with pytest.raises(RateReached):
            rate.count("a")
    rate.count("b")
    clock.now += WINDOW_S + 30
    for _ in range(5):
        rate.count("a")
    with pytest.raises(RateReached):
        rate.count("a")
    clock.now += 3 * WINDOW_S
    rate.count("c")
    assert len(rate) == 1


@pytest.mark.parametrize(("earlier", "now", "at"), [(0, 10, 0.0), (10, 0, 0.0), (10, 4, 31.0), (7, 10, 59.5), (10, 1, 5.0)])
def test_the_seconds_to_wait_are_enough_and_not_many_more(earlier: int, now: int, at: float) -> None:
    clock = Clock()
    rate = Rate("tenant", 10, clock=clock)
    rate._before, rate._now = {"a": earlier}, {"a": now}
    rate._ends_at = clock.now + WINDOW_S - at
    for _ in range(20):
        with suppress(RateReached):
            rate.count("a")
    with pytest.raises(RateReached) as refused:
        rate.count("a")
    wait_s = refused.value.retry_after_s
    clock.now += wait_s - 2
    if wait_s > 2:
        with pytest.raises(RateReached):
            rate.count("a")
    clock.now += 2
    rate.count("a")


def test_no_limit_keeps_nothing() -> None:
    rate = Rate("caller", 0)
    for number in range(100):
        rate.count(number)
    assert len(rate) == 0


# --- the layer ----------------------------------------------------------------------------------------------------------


def request_of(tenant: int | None, *, method: str = "GET", host: str = "203.0.113.7") -> dict[str, Any]:
    subject = UUID(int=7)
    found = None
    if tenant is not None:
        credential = Credential("personal_key", subject, UUID(int=1000 + tenant), None)
        found = Resolution("x", False, None, "header", credential, Member(subject, UUID(int=tenant), "MEMBER"))
    return {"type": "http", "method": method, "client": (host, 1), **({"partywall": found} if found else {})}


class Gate:
    """An application whose requests end when told; it counts what runs."""

    def __init__(self, *, pieces: bool = False) -> None:
        self.open = asyncio.Event()
        self.running = 0
        self.pieces = pieces

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        self.running += 1
        if self.pieces:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await self.open.wait()
        self.running -= 1


def answers() -> tuple[list[dict[str, Any]], Send]:
    seen: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        seen.append(message)

    return seen, send


async def nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def test_strangers_have_places_of_their_own_and_share_them_by_network() -> None:
    gate = Gate()
    fairness = Fairness(gate, slots=8, share=1.0)
    tasks = [asyncio.create_task(fairness(request_of(1), nothing, answers()[1])) for _ in range(12)]
    tasks += [asyncio.create_task(fairness(request_of(None, host="203.0.113.9"), nothing, answers()[1])) for _ in range(9)]
    await settled()
    assert (fairness.members.running, fairness.strangers.running) == (8, 1)
    tasks.append(asyncio.create_task(fairness(request_of(None, host="203.0.113.10"), nothing, answers()[1])))
    await settled()
    assert fairness.strangers.running == 2
    gate.open.set()
    await asyncio.gather(*tasks)
    assert (fairness.members.running, fairness.strangers.running) == (0, 0)


async def test_a_sender_that_is_slow_holds_no_place() -> None:
    gate = Gate()
    gate.open.set()
    fairness = Fairness(gate, slots=2)
    arriving = asyncio.Event()

    async def slow() -> dict[str, Any]:
        await arriving.wait()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    task = asyncio.create_task(fairness(request_of(1, method="POST"), slow, answers()[1]))
    await settled()
    assert (gate.running, fairness.members.running, fairness.members.group(UUID(int=1)).reading) == (0, 0, 1)
    arriving.set()
    await task
    assert fairness.members._groups == {}


async def test_a_body_that_never_comes_is_refused_with_408() -> None:
    fairness = Fairness(Gate(), slots=2)
    fairness.body_limit_s = 0
    seen, send = answers()

    async def never() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    await fairness(request_of(1, method="POST"), never, send)
    assert seen[0]["status"] == 408
    assert b"body_too_slow" in seen[1]["body"]
    assert fairness.members._groups == {}


async def test_a_client_that_leaves_while_sending_never_runs() -> None:
    gate = Gate()
    fairness = Fairness(gate, slots=2)
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    seen, send = answers()

    async def leaving() -> dict[str, Any]:
        return next(parts)

    await fairness(request_of(1, method="POST"), leaving, send)
    assert (seen[0]["status"], gate.running, fairness.members._groups) == (400, 0, {})


async def test_the_body_arrives_whole_and_the_disconnect_after_it() -> None:
    heard: list[dict[str, Any]] = []

    async def listening(scope: Any, receive: Any, send: Send) -> None:
        heard.extend([await receive(), await receive()])

    parts = iter([{"type": "http.request", "body": part, "more_body": part != b"c"} for part in (b"a", b"b", b"c")])

    async def receive() -> dict[str, Any]:
        return next(parts, {"type": "http.disconnect"})

    await Fairness(listening, slots=2)(request_of(1, method="PUT"), receive, answers()[1])
    assert heard == [{"type": "http.request", "body": b"abc", "more_body": False}, {"type": "http.disconnect"}]


async def test_a_streamed_answer_gives_its_place_back_once() -> None:
    gate = Gate(pieces=True)
    fairness = Fairness(gate, slots=2)
    task = asyncio.create_task(fairness(request_of(1), nothing, answers()[1]))
    await settled()
    assert (gate.running, fairness.members.running) == (1, 0)
    gate.open.set()
    await task
    assert fairness.members.running == 0


async def test_a_defect_gives_its_place_back() -> None:
    async def broken(scope: Any, receive: Any, send: Send) -> None:
        raise ZeroDivisionError

    fairness = Fairness(broken, slots=2)
    with pytest.raises(ZeroDivisionError):
        await fairness(request_of(1), nothing, answers()[1])
    assert (fairness.members.running, fairness.members._groups) == (0, {})


async def test_who_is_refused_waits_for_the_answer_and_holds_no_place() -> None:
    gate = Gate()
    fairness = Fairness(gate, slots=1)
    fairness.members.queue, fairness.hold_s = 0, 3600
    running = asyncio.create_task(fairness(request_of(1), nothing, answers()[1]))
    seen, send = answers()
    refused = asyncio.create_task(fairness(request_of(1), nothing, send))
    await settled()
    assert (gate.running, seen, refused.done()) == (1, [], False)
    gate.open.set()
    await running
    assert (fairness.members.running, fairness.members._groups) == (0, {})
    refused.cancel()
    with pytest.raises(asyncio.CancelledError):
        await refused
    assert fairness._held == 0


async def test_waiting_and_refusals_are_counted() -> None:
    waited, refused = WAITED.labels("member")._value.get(), REFUSED.labels("too_many_requests")._value.get()
    gate = Gate()
    fairness = Fairness(gate, slots=1)
    fairness.members.wait_s = fairness.hold_s = 0
    running = asyncio.create_task(fairness(request_of(1), nothing, answers()[1]))
    await settled()
    seen, send = answers()
    await fairness(request_of(1), nothing, send)
    assert seen[0]["status"] == 429
    assert (b"retry-after", b"1") in seen[0]["headers"]
    assert WAITED.labels("member")._value.get() == waited + 1
    assert REFUSED.labels("too_many_requests")._value.get() == refused + 1
    gate.open.set()
    await running


# --- over HTTP ----------------------------------------------------------------------------------------------------------


def fairness_of(app: Any) -> Fairness:
    found = app.app.app.app
    assert isinstance(found, Fairness)
    return found


def client_of(app: Any, person: Person) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {person.key}"}
    return httpx.AsyncClient(transport=transport, base_url=f"http://{person.tenant.slug}.localhost", headers=headers)


@pytest.mark.parametrize(
    ("setting", "kind"), [("caller_requests_per_minute", "caller"), ("tenant_requests_per_minute", "tenant")]
)
async def test_a_limit_of_its_own_for_each_caller_and_workspace(
    setting: str, kind: str, settings: Settings, database: Database, registry: Registry, world: Any
) -> None:
    limited = settings.model_copy(update={setting: 6, "web_processes": 2})
    app = create_app(limited, database, registry)
    fairness_of(app).hold_s = 0
    people = world.people
    async with client_of(app, people["member_a"]) as one, client_of(app, people["owner_a"]) as colleague:
        statuses = [(await one.get("/api/v1/session")).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        refused = await one.get("/api/v1/session")
        assert refused.json()["code"] == "rate_reached"
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["ratelimit-policy"] == f'"{kind}";q=3;w=60'
        assert refused.headers["ratelimit"].startswith(f'"{kind}";r=0;t=')
        assert (await colleague.get("/api/v1/session")).status_code == (200 if kind == "caller" else 429)
    async with client_of(app, people["member_b"]) as neighbour:
        answer = await neighbour.get("/api/v1/session")
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers


async def test_a_slow_upload_leaves_the_workspace_its_places(
    settings: Settings, database: Database, registry: Registry, owner_a: Person
) -> None:
    app = create_app(settings.model_copy(update={"pool_size": 1, "tenant_share_pct": 1}), database, registry)
    begun, arriving = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"name": '
        begun.set()
        await arriving.wait()
        yield b'"Slow Ltd"}'

    async with client_of(app, owner_a) as client:
        headers = {"content-type": "application/json"}
        slow = asyncio.create_task(client.post("/api/v1/accounts", content=body(), headers=headers))
        await begun.wait()
        assert fairness_of(app).members.group(owner_a.tenant.id).reading == 1
        assert (await client.get("/api/v1/accounts")).status_code == 200
        assert not slow.done()
        arriving.set()
        assert (await slow).status_code == 201


async def test_the_roles_are_limited_in_the_database(database: Database) -> None:
    wanted = {
        "statement_timeout": "30s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "10min",
        "TimeZone": "UTC",
    }
    for engine in (database.app, database.identity):
        async with engine.connect() as connection:
            found = {name: (await connection.execute(text(f"SHOW {name}"))).scalar_one() for name in wanted}
            assert found == wanted
    async with database.operator.connect() as connection:
        assert (await connection.execute(text("SHOW statement_timeout"))).scalar_one() == "0"


@pytest.mark.parametrize(
    ("limit", "status", "code"), [("lock_timeout=50ms", 409, "try_again"), ("statement_timeout=50ms", 503, "too_slow")]
)
async def test_a_statement_that_runs_out_of_time_is_an_answer(
    limit: str, status: int, code: str, settings: Settings, addresses: Addresses, registry: Registry, rows_a: Rows
) -> None:
    impatient = (
        make_url(addresses.urls["app"]).update_query_dict({"options": f"-c {limit}"}).render_as_string(hide_password=False)
    )
    patient = open_database(addresses.urls, addresses.roles, pool_size=1)
    hurried = open_database({**addresses.urls, "app": impatient}, addresses.roles, pool_size=1)
    account = rows_a.id_of("accounts")
    person = rows_a.person
    try:
        app = create_app(settings, hurried, registry)
        async with open_call(patient, registry, person.tenant, person.principal) as call, client_of(app, person) as client:
            await call.session.scalar(select(Account).where(Account.id == UUID(account)).with_for_update())
            answer = await client.patch(f"/api/v1/accounts/{account}", json={"name": "Held Ltd"})
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert int(answer.headers["retry-after"]) >= 1
            # The connection goes on working.
            assert (await client.get(f"/api/v1/accounts/{account}")).status_code == 200
    finally:
        await patient.close()
        await hurried.close()


def test_the_layer_stands_inside_the_tenant_middleware(app: Any) -> None:
    assert isinstance(app.app, TenantMiddleware)
    assert fairness_of(app).members.size == 8

"""The middleware: what the app sees, what a refused caller sees, and that no scope outlives its request."""

import asyncio
import json
from dataclasses import replace

import pytest
from directory import (
    CONFIG,
    MEMBER_A,
    MEMBER_AB,
    MEMBER_B,
    PROXY,
    SINGLE,
    STRANGER,
    SUSPENDED,
    TENANT_A,
    TENANT_B,
    MemoryDirectory,
    town,
)

from partywall.asgi import Refusal, TenantMiddleware, request_facts
from partywall.context import current_tenant, has_tenant_context, system_scope, tenant_scope
from partywall.errors import NoTenant, PartywallError, ResolutionError, TenantMismatch
from partywall.ids import uuid7
from partywall.resolve import REFUSALS

BASE = "rowhouse.example"
HOST_A = "acme.rowhouse.example"
HOST_B = "birch.rowhouse.example"
CALLERS = {b"a": MEMBER_A, b"b": MEMBER_B, b"ab": MEMBER_AB, b"stranger": STRANGER}
OK = {"type": "http.response.start", "status": 200, "headers": []}


def scope_of(host=HOST_A, *, caller=None, tenant=None, path="/", kind="http", headers=(), peer="203.0.113.9"):
    pairs = [(b"host", host.encode())]
    pairs += [(b"authorization", caller)] if caller else []
    pairs += [(b"x-tenant-id", str(tenant).encode())] if tenant is not None else []
    return {
        "type": kind,
        "method": "GET",
        "path": path,
        "scheme": "https",
        "client": (peer, 4711),
        "headers": [*pairs, *headers],
    }


async def authenticate(scope):
    return CALLERS.get(dict(scope["headers"]).get(b"authorization"))


class House:
    """A product in small: keeps what its app saw, what was sent, and what was reported."""

    def __init__(self, directory=None, config=CONFIG, **options):
        self.seen, self.sent, self.refusals = [], [], []
        options = {"authenticate": authenticate, "on_refusal": self.refusals.append, **options}
        self.middleware = TenantMiddleware(self.app, directory=directory or town(), config=config, **options)

    async def app(self, scope, receive, send):
        tenant = current_tenant() if has_tenant_context() else None
        self.seen.append((scope.get("partywall"), tenant))
        await send(OK if scope["type"] == "http" else {"type": "websocket.accept"})

    async def get(self, scope):
        async def receive():
            return {"type": "http.request"}

        async def send(message):
            self.sent.append(message)

        self.sent.clear()
        await self.middleware(scope, receive, send)
        return self.sent


def document(sent):
    return json.loads(sent[1]["body"])


# What the app sees


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(("caller", "subject"), [(b"a", MEMBER_A), (None, None)])
async def test_the_app_runs_in_the_scope_of_the_resolved_tenant(kind, caller, subject):
    house = House()
    await house.get(scope_of(HOST_A, caller=caller, kind=kind))
    [(resolution, active)] = house.seen
    assert active == resolution.tenant == TENANT_A
    assert resolution.credential == subject
    assert house.refusals == []
    assert not has_tenant_context()


async def test_a_base_domain_without_a_tenant_runs_outside_every_scope():
    house = House()
    await house.get(scope_of(BASE, caller=b"ab"))
    [(resolution, active)] = house.seen
    assert (resolution.tenant, resolution.credential, active) == (None, MEMBER_AB, None)


async def test_a_header_selects_the_tenant_of_the_scope():
    house = House()
    await house.get(scope_of(BASE, caller=b"ab", tenant=TENANT_B.id))
    assert house.seen[0][1] == TENANT_B


async def test_an_open_path_is_neither_resolved_nor_given_a_tenant():
    directory = town()
    house = House(directory, open_paths=frozenset({"/healthz"}))
    sent = await house.get(scope_of("[bad", path="/healthz", tenant="birch") | {"partywall": "forged"})
    assert sent == [OK]
    assert house.seen == [(None, None)]
    assert directory.look_ups == []


@pytest.mark.parametrize("path", ["/healthz/", "/healthz/x", "/HEALTHZ", "//healthz", "/x/../healthz", "/healthz;a"])
async def test_an_open_path_is_exact(path):
    house = House(open_paths=frozenset({"/healthz"}))
    assert (await house.get(scope_of("evil.test", path=path)))[0]["status"] == 404
    assert house.seen == []


async def test_the_scope_of_the_caller_is_left_as_it_was():
    house, scope = House(), scope_of(HOST_A)
    await house.get(scope)
    assert house.seen[0][0] is not None
    assert "partywall" not in scope


async def test_lifespan_passes_through():
    house, scope = House(), {"type": "lifespan"}
    await house.get(scope)
    assert house.seen == [(None, None)]


async def test_an_unknown_kind_of_connection_is_refused():
    with pytest.raises(PartywallError, match="type webtransport"):
        await House().get(scope_of(kind="webtransport"))


def test_facts_keep_every_value_in_order_and_survive_odd_bytes():
    headers = [
        (b"Host", b"a.test"),
        (b"host", b"\xff.test"),
        (b"X-Tenant-ID", "bücher".encode()),
        (b"x-forwarded-host", b"b.test"),
        (b"x_tenant_id", b"acme"),
    ]
    facts = request_facts({"type": "http", "headers": headers, "client": None})
    assert facts.hosts == ("a.test", "\\xff.test")
    assert facts.tenant_header == ("bücher",)
    assert (facts.forwarded_hosts, facts.forwarded_protos, facts.peer, facts.scheme) == (("b.test",), (), None, "http")


# No scope outlives its request


async def test_an_error_in_the_app_is_not_caught_and_leaves_no_scope():
    async def broken(scope, receive, send):
        raise ResolutionError("own", f"of {current_tenant().slug}")

    house = House()
    house.middleware.app = broken
    with pytest.raises(ResolutionError, match="of acme"):
        await house.get(scope_of(HOST_A))
    assert (house.sent, house.refusals) == ([], [])
    assert not has_tenant_context()


async def test_a_cancelled_request_leaves_no_scope():
    seen = []

    async def waiting(scope, receive, send):
        seen.append(current_tenant())
        await asyncio.Event().wait()

    house = House()
    house.middleware.app = waiting
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await house.get(scope_of(HOST_A))
    assert seen == [TENANT_A]
    assert not has_tenant_context()


async def test_a_stream_keeps_its_tenant_to_the_last_chunk_while_others_are_served():
    # Each stream waits for the other before every chunk, so that the two take turns.
    barrier, chunks = asyncio.Barrier(2), []

    async def streaming(scope, receive, send):
        for _ in range(5):
            await barrier.wait()
            chunks.append((scope["partywall"].tenant, current_tenant()))
            await send({"type": "http.response.body", "body": b".", "more_body": True})

    a, b = House(), House()
    a.middleware.app = b.middleware.app = streaming
    await asyncio.gather(a.get(scope_of(HOST_A, caller=b"a")), b.get(scope_of(HOST_B, caller=b"b")))
    assert sorted(expected.slug for expected, _ in chunks) == ["acme"] * 5 + ["birch"] * 5
    assert all(expected == active for expected, active in chunks)
    assert not has_tenant_context()


async def test_requests_that_follow_each_other_in_one_task_do_not_share_a_tenant():
    house = House()
    for host in (HOST_A, HOST_B, BASE, HOST_A):
        await house.get(scope_of(host))
    assert [tenant for _, tenant in house.seen] == [TENANT_A, TENANT_B, None, TENANT_A]


async def test_a_scope_left_open_around_the_server_is_refused():
    house = House(open_paths=frozenset({"/healthz"}))
    for host, path in ((BASE, "/"), (HOST_B, "/"), (HOST_B, "/healthz")):
        with tenant_scope(TENANT_A), pytest.raises(TenantMismatch):
            await house.get(scope_of(host, path=path))
        with system_scope(reason="serving"), pytest.raises(TenantMismatch):
            await house.get(scope_of(host, path=path))
    assert house.seen == []


# What a refused caller sees


async def test_a_refusal_is_a_problem_document_that_nobody_may_cache():
    house = House()
    start, body = await house.get(scope_of(HOST_B, caller=b"a"))
    assert start["status"] == 404
    assert dict(start["headers"]) == {
        b"content-type": b"application/problem+json",
        b"content-length": str(len(body["body"])).encode(),
        b"cache-control": b"no-store",
        b"vary": b"Authorization, Cookie, X-Tenant-ID",
    }
    assert document([start, body]) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "code": "tenant_not_found",
        "detail": REFUSALS["tenant_not_found"][1],
    }
    assert house.seen == []


async def test_every_way_to_miss_a_tenant_gives_the_same_bytes():
    house, answers = House(), []
    for host, tenant in ((BASE, "birch"), (BASE, "nobody"), (BASE, TENANT_B.id), (BASE, uuid7()), (BASE, "")):
        answers.append(list(await house.get(scope_of(host, caller=b"a", tenant=tenant))))
    answers.append(list(await house.get(scope_of(HOST_B, caller=b"a"))))
    answers.append(list(await house.get(scope_of(HOST_A, caller=b"ab", tenant="birch"))))
    answers.append(list(await house.get(scope_of("sleepy.test", caller=b"a"))))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0]["status"] == 404


async def test_forwarded_headers_from_a_stranger_change_no_byte():
    spoof = [(b"x-forwarded-host", HOST_B.encode()), (b"x-forwarded-proto", b"gopher"), (b"forwarded", b"host=x")]
    house = House()
    for host, caller in ((HOST_A, b"a"), (HOST_B, b"a"), ("evil.test", None), (BASE, b"ab")):
        plain = list(await house.get(scope_of(host, caller=caller)))
        assert await house.get(scope_of(host, caller=caller, headers=spoof)) == plain
    assert [tenant for _, tenant in house.seen] == [TENANT_A, TENANT_A, None, None]


async def test_a_trusted_proxy_sets_host_and_scheme():
    house = House()
    proxied = [(b"x-forwarded-host", HOST_B.encode()), (b"x-forwarded-proto", b"http")]
    await house.get(scope_of("app:8000", headers=proxied, peer=PROXY))
    resolution, active = house.seen[0]
    assert (active, resolution.scheme) == (TENANT_B, "http")


async def test_nothing_of_the_request_is_echoed():
    house = House()
    markers = (b"marker-host", b"marker-tenant", b"marker-path", str(MEMBER_A.subject_id).encode())
    scope = scope_of("marker-host.test", caller=b"a", tenant="marker-tenant", path="/marker-path")
    for odd in (scope, scope | scope_of(BASE, caller=b"a", tenant="marker-tenant", path="/marker-path")):
        start, body = await house.get(odd)
        assert start["status"] == 404
        assert not any(marker in repr((start, body)).encode() for marker in markers)


async def test_an_unauthenticated_selection_is_challenged():
    house = House()
    start, _ = sent = await house.get(scope_of(HOST_A, tenant="acme"))
    assert (start["status"], document(sent)["code"]) == (401, "authentication_required")
    assert (b"www-authenticate", b"Bearer") in start["headers"]


async def test_a_member_of_a_suspended_tenant_is_told():
    directory = town()
    directory.join(MEMBER_A, SUSPENDED)
    sent = await House(directory).get(scope_of("sleepy.test", caller=b"a"))
    assert (sent[0]["status"], document(sent)["title"], document(sent)["code"]) == (423, "Locked", "tenant_suspended")


async def test_an_answer_to_head_has_no_body():
    sent = await House().get(scope_of("evil.test") | {"method": "HEAD"})
    assert (sent[0]["status"], sent[1]["body"]) == (404, b"")


async def test_the_product_may_make_its_own_answer():
    def page(error, scope):
        return error.status, [(b"content-type", b"text/html")], b"<h1>No such house</h1>"

    sent = await House(problem=page).get(scope_of("evil.test"))
    assert sent[0] == {"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/html")]}
    assert sent[1]["body"] == b"<h1>No such house</h1>"


@pytest.mark.parametrize(
    ("scope", "code"),
    [
        (scope_of("evil.test", kind="websocket"), 4404),
        (scope_of(HOST_B, caller=b"a", kind="websocket"), 4404),
        (scope_of(HOST_A, tenant="acme", kind="websocket"), 4401),
        (scope_of("[bad", kind="websocket"), 4400),
    ],
)
async def test_a_refused_socket_is_closed_before_it_is_accepted(scope, code):
    house = House()
    [message] = await house.get(scope)
    assert (message["type"], message["code"]) == ("websocket.close", code)
    assert house.seen == []
    assert len(house.refusals) == 1


# What is reported


async def test_a_refusal_is_reported_once_with_the_sources_that_disagree():
    house = House()
    scope = scope_of(HOST_A, caller=b"ab", tenant="birch", path="/deals")
    await house.get(scope)
    assert house.refusals == [Refusal("tenant_not_found", 404, "host/header", "/deals", request_facts(scope), MEMBER_AB)]


async def test_a_refusal_without_a_reporter_is_answered_all_the_same():
    assert (await House(on_refusal=None).get(scope_of("evil.test")))[0]["status"] == 404


async def test_a_directory_that_contradicts_itself_is_reported_and_raised():
    class Confused(MemoryDirectory):
        async def tenant_by_slug(self, slug):
            return TENANT_B

    house = House(Confused())
    with pytest.raises(TenantMismatch):
        await house.get(scope_of(HOST_A))
    assert [(refusal.code, refusal.status) for refusal in house.refusals] == [("tenant_mismatch", 500)]
    assert (house.seen, house.sent) == ([], [])


# The product's authenticator


async def test_a_credential_the_product_refuses_is_answered_without_its_words():
    async def expired(scope):
        raise ResolutionError("session_expired", "session 0198 of ann@acme.test ended", status=401)

    house = House(authenticate=expired)
    sent = await house.get(scope_of(HOST_A))
    assert (sent[0]["status"], document(sent)["code"]) == (401, "session_expired")
    assert document(sent)["detail"] == "Unauthorized"
    assert house.refusals[0].code == "session_expired"


async def test_a_malformed_host_costs_no_look_up():
    calls, directory = [], town()

    async def counting(scope):
        calls.append(scope)

    house = House(directory, authenticate=counting)
    assert (await house.get(scope_of("a b")))[0]["status"] == 400
    assert (calls, directory.look_ups) == ([], [])


async def test_an_authenticator_that_breaks_lets_nobody_in():
    async def broken(scope):
        raise RuntimeError("no database")

    house = House(authenticate=broken, config=SINGLE)
    with pytest.raises(RuntimeError):
        await house.get(scope_of(HOST_A))
    assert (house.seen, house.sent) == ([], [])


async def test_authenticator_and_directory_run_before_any_scope_is_open():
    seen = []

    class Watching(MemoryDirectory):
        async def tenant_by_slug(self, slug):
            with pytest.raises(NoTenant):
                current_tenant()
            seen.append(slug)
            return await super().tenant_by_slug(slug)

    house = House(Watching(tenants=town().tenants))
    await house.get(scope_of(HOST_A))
    assert seen == ["acme"]
    assert house.seen[0][1] == replace(TENANT_A)

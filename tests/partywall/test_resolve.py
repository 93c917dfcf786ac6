"""Resolution: host x header x credential x membership x status of the tenant."""

from dataclasses import replace
from itertools import product
from uuid import UUID

import pytest
from directory import (
    CLOSED,
    CONFIG,
    MEMBER_A,
    MEMBER_AB,
    MEMBER_B,
    PROXY,
    ROBOT,
    SINGLE,
    STRANGER,
    SUSPENDED,
    TENANT_A,
    TENANT_B,
    MemoryDirectory,
    at,
    town,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.provisional import domains

from partywall.context import Tenant
from partywall.errors import ResolutionError, TenantMismatch
from partywall.ids import uuid7
from partywall.resolve import (
    REFUSALS,
    Credential,
    Member,
    Refused,
    RequestFacts,
    ResolverConfig,
    normalise_host,
    request_host,
    resolve,
)

BASE = "rowhouse.example"
HOST_A = "acme.rowhouse.example"
HOST_B = "birch.rowhouse.example"
BOUND_A = replace(MEMBER_AB, tenant_id=TENANT_A.id)
ALL_GRANTS = replace(ROBOT, grants=frozenset({TENANT_A.id, TENANT_B.id}))


async def refusal(facts, credential=None, directory=None, config=CONFIG) -> Refused:
    with pytest.raises(Refused) as caught:
        await resolve(facts, credential, directory or town(), config)
    return caught.value


# L0: the host


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("acme.rowhouse.example", "acme.rowhouse.example"),
        ("ACME.RowHouse.Example", "acme.rowhouse.example"),
        ("acme.rowhouse.example:8443", "acme.rowhouse.example"),
        ("acme.rowhouse.example.", "acme.rowhouse.example"),
        ("acme.rowhouse.example.:443", "acme.rowhouse.example"),
        ("127.0.0.1:8000", "127.0.0.1"),
        ("localhost", "localhost"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("BÜCHER.test", "xn--bcher-kva.test"),
        ("XN--BCHER-KVA.test", "xn--bcher-kva.test"),
        ("a" * 63 + ".test", "a" * 63 + ".test"),
    ],
)
def test_a_host_is_normalised(host, normal):
    assert normalise_host(host) == normal


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "..",
        ".rowhouse.example",
        "acme..rowhouse.example",
        "acme.rowhouse.example..",
        ":8000",
        "acme.rowhouse.example:",
        "acme.rowhouse.example:0",
        "acme.rowhouse.example:65536",
        "acme.rowhouse.example:+80",
        "acme.rowhouse.example:８０",
        "acme.rowhouse.example:80:80",
        "acme.rowhouse.example:80@evil.test",
        "evil@acme.rowhouse.example",
        "http://acme.rowhouse.example",
        "acme.rowhouse.example/",
        "acme.rowhouse.example?x",
        "acme.rowhouse.example#x",
        "acme.rowhouse.example\\evil.test",
        "acme.rowhouse.example,birch.rowhouse.example",
        "acme.rowhouse.example, birch.rowhouse.example",
        " acme.rowhouse.example",
        "acme.rowhouse.example ",
        "acme.rowhouse.example\t",
        "acme.rowhouse.example\n",
        "acme\r\nX-Tenant-ID: x.rowhouse.example",
        "acme\x00.rowhouse.example",
        "acme\u0085.rowhouse.example",
        "acme\u00a0.rowhouse.example",
        "acme%2erowhouse.example",
        "ac_me.rowhouse.example",
        "ä_b.rowhouse.example",
        "-acme.rowhouse.example",
        "acme-.rowhouse.example",
        "[::1]",
        "[::1]:8000",
        "::1",
        "[acme.rowhouse.example]",
        "acme。rowhouse.example",
        "ü。acme.rowhouse.example",
        "ａｃｍｅ.rowhouse.example",
        "straße.test",
        "\u212aey.test",
        "bu\u0308cher.test",
        "xn--ü.test",
        "\ud800.test",
        "a" * 64 + ".test",
        "ü" * 63 + ".test",
        ".".join(["a" * 60] * 5),
        "*.rowhouse.example",
        ".".join(["ü" * 20] * 10),
        ".".join(["a" * 63] * 3 + ["b" * 62]),
    ],
)
async def test_a_malformed_host_is_refused(host):
    error = await refusal(at(host), MEMBER_A)
    assert (error.code, error.status) == ("bad_host", 400)


@given(st.one_of(st.text(), st.text(alphabet="aA1-._:@[]ßüÜ。\u200d\u212a\ud800xn"), st.from_regex(r"[a-z.:0-9]*")))
def test_any_text_is_a_host_or_refused_and_normalising_twice_changes_nothing(text):
    try:
        host = normalise_host(text)
    except ResolutionError as error:
        assert error.code == "bad_host"  # noqa: PT017 - the text decides which of the two happens
        return
    assert normalise_host(host) == host
    assert host == host.lower()
    assert host.isascii()


@given(domains())
def test_a_real_domain_survives_case_port_and_root_dot(domain):
    assert normalise_host(f"{domain.upper()}.:443") == domain.lower()


@pytest.mark.parametrize("hosts", [(), (HOST_A, HOST_A), (HOST_A, HOST_B)])
async def test_exactly_one_host_header_is_required(hosts):
    assert (await refusal(RequestFacts(hosts=hosts), MEMBER_A)).code == "bad_host"


@pytest.mark.parametrize("domain", ["Rowhouse.example", "rowhouse.example:8000", "rowhouse.example.", "", "a b"])
def test_a_base_domain_must_be_normalised(domain):
    with pytest.raises(ValueError, match="is not normalised"):
        ResolverConfig((domain,))


@pytest.mark.parametrize(
    "host",
    [
        "nobody.rowhouse.example",
        "www.rowhouse.example",
        "x.acme.rowhouse.example",
        "crm.acme.test.rowhouse.example",
        "evilrowhouse.example",
        "rowhouse.example.evil.test",
        "example",
        "acme",
        "10.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "acme.127.0.0.1",
        "crm.birch.test",
        "cancelled.rowhouse.example",
        "pending.test",
    ],
)
async def test_an_unknown_host_is_refused_alike_with_and_without_a_credential(host):
    anonymous, member = await refusal(at(host)), await refusal(at(host), MEMBER_A)
    assert (str(anonymous), anonymous.code, anonymous.status) == (REFUSALS["unknown_host"][1], "unknown_host", 404)
    assert (str(member), member.code, member.status) == (str(anonymous), "unknown_host", 404)


async def test_a_domain_proven_below_a_base_domain_is_never_served():
    directory = town()
    directory.domains["x.acme.rowhouse.example"] = TENANT_B.id
    assert (await refusal(at("x.acme.rowhouse.example"), directory=directory)).code == "unknown_host"
    assert directory.look_ups == []


async def test_a_domain_that_merely_ends_like_a_base_domain_is_an_ordinary_domain():
    directory = town()
    directory.domains["greenrowhouse.example"] = TENANT_B.id
    assert (await resolve(at("greenrowhouse.example"), None, directory, CONFIG)).method == "custom_domain"


async def test_a_reserved_label_is_not_served_even_if_a_tenant_has_it():
    directory = MemoryDirectory(tenants=[Tenant(uuid7(), "www")])
    assert (await refusal(at("www.rowhouse.example"), directory=directory)).code == "unknown_host"


async def test_an_address_is_never_looked_up_as_a_domain():
    directory = town()
    directory.domains["10.0.0.1"] = TENANT_B.id
    assert (await refusal(at("10.0.0.1"), directory=directory)).code == "unknown_host"
    assert directory.look_ups == []


async def test_the_longest_base_domain_wins():
    config = ResolverConfig((BASE, "eu.rowhouse.example"))
    assert (await resolve(at("acme.eu.rowhouse.example"), None, town(), config)).tenant == TENANT_A
    assert (await resolve(at("eu.rowhouse.example"), None, town(), config)).base_domain


@pytest.mark.parametrize("forwarded", [(HOST_B,), (HOST_B, HOST_B), ("[bad",), ("",), (BASE,)])
@pytest.mark.parametrize("peer", ["203.0.113.9", "::1", "unix:/run/app", "", None, "10.0.0.7, 203.0.113.9"])
async def test_forwarded_headers_of_an_untrusted_peer_change_nothing(forwarded, peer):
    plain = at(HOST_A, peer=peer)
    spoofed = replace(plain, forwarded_hosts=forwarded, forwarded_protos=("gopher",))
    assert await resolve(spoofed, MEMBER_A, town(), CONFIG) == await resolve(plain, MEMBER_A, town(), CONFIG)


@pytest.mark.parametrize("peer", [PROXY, f"::ffff:{PROXY}"])
async def test_a_trusted_proxy_names_host_and_scheme(peer):
    facts = at("app:8000", peer=peer, forwarded_hosts=("Acme.Rowhouse.Example:443",), forwarded_protos=("HTTPS",))
    resolution = await resolve(replace(facts, scheme="http"), None, town(), CONFIG)
    assert (resolution.host, resolution.scheme, resolution.tenant) == (HOST_A, "https", TENANT_A)


async def test_a_trusted_proxy_that_keeps_the_host_needs_no_forwarded_host():
    assert request_host(at(HOST_A, peer=PROXY), CONFIG) == HOST_A


@pytest.mark.parametrize(
    "headers",
    [
        {"forwarded_hosts": (HOST_A, HOST_A)},
        {"forwarded_hosts": (f"{HOST_B}, {HOST_A}",)},
        {"forwarded_hosts": ("",)},
        {"forwarded_protos": ("https", "https")},
        {"forwarded_protos": ("https, http",)},
        {"forwarded_protos": ("gopher",)},
        {"forwarded_hosts": (HOST_A,), "hosts": ("app", "app")},
    ],
)
async def test_a_trusted_proxy_that_says_two_things_is_refused(headers):
    assert (await refusal(at(HOST_A, peer=PROXY, **headers), MEMBER_A)).code == "bad_host"


# The methods, in order


@pytest.mark.parametrize(
    ("facts", "credential", "config", "tenant", "method"),
    [
        (at(HOST_A), MEMBER_A, CONFIG, TENANT_A, "subdomain"),
        (at("crm.acme.test"), MEMBER_A, CONFIG, TENANT_A, "custom_domain"),
        (at("bücher.test:443"), MEMBER_B, CONFIG, TENANT_B, "custom_domain"),
        (at(HOST_B), MEMBER_AB, SINGLE, TENANT_B, "subdomain"),
        (at(HOST_A, tenant="acme"), MEMBER_A, CONFIG, TENANT_A, "subdomain"),
        (at("crm.acme.test", tenant=TENANT_A.id), MEMBER_A, CONFIG, TENANT_A, "custom_domain"),
        (at(BASE, tenant="birch"), MEMBER_AB, CONFIG, TENANT_B, "header"),
        (at(BASE, tenant=" Birch\t"), MEMBER_AB, CONFIG, TENANT_B, "header"),
        (at(BASE, tenant=TENANT_B.id), MEMBER_AB, SINGLE, TENANT_B, "header"),
        (at(BASE, tenant=str(TENANT_B.id).upper()), MEMBER_AB, CONFIG, TENANT_B, "header"),
        (at(BASE, tenant="acme"), ROBOT, CONFIG, TENANT_A, "header"),
        (at(BASE, tenant="acme"), BOUND_A, CONFIG, TENANT_A, "header"),
        (at(BASE), BOUND_A, CONFIG, TENANT_A, "membership"),
        (at(BASE), MEMBER_B, SINGLE, TENANT_B, "membership"),
        (at("127.0.0.1:8000"), MEMBER_B, CONFIG, TENANT_B, "membership"),
        (at(BASE), ROBOT, CONFIG, TENANT_A, "membership"),
        (at(BASE), MEMBER_AB, SINGLE, TENANT_A, "default"),
    ],
)
async def test_a_member_reaches_the_proposed_tenant(facts, credential, config, tenant, method):
    resolution = await resolve(facts, credential, town(), config)
    assert (resolution.tenant, resolution.method) == (tenant, method)
    assert (resolution.member.tenant_id, resolution.member.subject_id) == (tenant.id, credential.subject_id)
    assert resolution.credential == credential


@pytest.mark.parametrize(
    ("facts", "config", "tenant", "method"),
    [
        (at(HOST_A), CONFIG, TENANT_A, "subdomain"),
        (at("crm.acme.test"), CONFIG, TENANT_A, "custom_domain"),
        (at(BASE), CONFIG, None, None),
        (at(BASE), SINGLE, TENANT_A, "default"),
    ],
)
async def test_an_anonymous_caller_gets_the_host_and_nothing_of_a_member(facts, config, tenant, method):
    resolution = await resolve(facts, None, town(), config)
    assert (resolution.tenant, resolution.method) == (tenant, method)
    assert (resolution.credential, resolution.member) == (None, None)


@pytest.mark.parametrize("credential", [MEMBER_AB, STRANGER])
async def test_no_one_tenant_to_choose_leaves_the_base_domain_without_a_tenant(credential):
    resolution = await resolve(at(BASE), credential, town(), CONFIG)
    assert resolution.base_domain
    assert (resolution.tenant, resolution.method, resolution.member) == (None, None, None)
    assert resolution.credential == credential


async def test_a_stranger_is_not_let_into_the_default_tenant():
    assert (await refusal(at(BASE), STRANGER, config=SINGLE)).conflict == "default/membership"


async def test_a_default_tenant_that_does_not_exist_is_refused():
    config = replace(CONFIG, default_tenant_slug="nobody")
    assert (await refusal(at(BASE), config=config)).code == "tenant_not_found"


async def test_the_default_tenant_is_not_served_on_unknown_hosts():
    assert (await refusal(at("nobody.rowhouse.example"), config=SINGLE)).code == "unknown_host"


# X-Tenant-ID


@pytest.mark.parametrize("host", [BASE, HOST_A])
@pytest.mark.parametrize("name", ["acme", "birch", "nobody", "", TENANT_A.id])
async def test_a_tenant_header_without_a_credential_is_refused(host, name):
    error = await refusal(at(host, tenant=name))
    assert (error.code, error.status) == ("authentication_required", 401)


@pytest.mark.parametrize("values", [("acme", "acme"), ("acme", "birch"), ("", "")])
async def test_two_tenant_headers_are_refused(values):
    error = await refusal(at(BASE, tenant_header=values), MEMBER_AB)
    assert (error.code, error.status) == ("bad_tenant_header", 400)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "acme,birch",
        "acme birch",
        "*",
        "default",
        "%",
        "acme'--",
        "acme\x00",
        "ａｃｍｅ",
        "\u212aey",
        TENANT_A.id.hex,
        f"{{{TENANT_A.id}}}",
        f"{TENANT_A.id}0",
        TENANT_A.id.urn,
        UUID(int=0),
        "www",
    ],
)
@pytest.mark.parametrize("credential", [MEMBER_A, ROBOT, BOUND_A])
async def test_a_header_that_names_no_tenant_is_never_ignored(name, credential):
    for config in (CONFIG, SINGLE):
        assert (await refusal(at(BASE, tenant=name), credential, config=config)).code == "tenant_not_found"


@pytest.mark.parametrize("credential", [MEMBER_A, BOUND_A, ROBOT, STRANGER, replace(STRANGER, kind="personal_key")])
@pytest.mark.parametrize(("unknown", "foreign"), [("nobody", "birch"), (uuid7(), TENANT_B.id)])
async def test_unknown_and_foreign_tenants_are_refused_alike_after_the_same_look_ups(credential, unknown, foreign):
    town_1, town_2 = town(), town()
    missing = await refusal(at(BASE, tenant=unknown), credential, town_1)
    denied = await refusal(at(BASE, tenant=foreign), credential, town_2)
    assert (str(missing), missing.code, missing.status) == (str(denied), "tenant_not_found", 404)
    assert (denied.code, denied.status) == ("tenant_not_found", 404)
    assert town_1.look_ups == town_2.look_ups != []


@pytest.mark.parametrize("name", ["\u212aey", "acme'--", "a b", "-acme", "x" * 64])
async def test_a_header_that_is_neither_id_nor_slug_is_not_looked_up(name):
    key, directory = Tenant(uuid7(), "key"), town()
    directory.tenants.append(key)
    directory.join(STRANGER, key)
    assert (await refusal(at(BASE, tenant=name), STRANGER, directory)).code == "tenant_not_found"
    assert directory.look_ups == ["member"]


async def test_a_header_in_the_form_of_an_id_is_never_a_slug():
    squatter = Tenant(uuid7(), str(TENANT_B.id))
    directory = town()
    directory.tenants.insert(0, squatter)
    directory.join(STRANGER, squatter)
    assert (await refusal(at(BASE, tenant=TENANT_B.id), STRANGER, directory)).code == "tenant_not_found"
    assert (await refusal(at(f"{squatter.slug}.{BASE}", tenant=TENANT_B.id), STRANGER, directory)).conflict


# L1 and L2: the cross-checks


@pytest.mark.parametrize(
    ("facts", "credential", "conflict"),
    [
        (at(HOST_A, tenant="birch"), MEMBER_AB, "host/header"),
        (at(HOST_A, tenant=TENANT_B.id), MEMBER_AB, "host/header"),
        (at(HOST_A, tenant="nobody"), MEMBER_AB, "host/header"),
        (at(HOST_A, tenant=""), MEMBER_AB, "host/header"),
        (at("crm.acme.test", tenant="birch"), BOUND_A, "host/header"),
        (at(HOST_B), BOUND_A, "host/credential"),
        (at("bücher.test"), BOUND_A, "host/credential"),
        (at(HOST_B, tenant="birch"), BOUND_A, "host/credential"),
        (at(BASE, tenant="birch"), BOUND_A, "header/credential"),
        (at(HOST_B), ROBOT, "host/grants"),
        (at(BASE, tenant="birch"), ROBOT, "header/grants"),
        (at(BASE), replace(ROBOT, tenant_id=TENANT_B.id), "membership/grants"),
        (at(HOST_A), replace(ROBOT, tenant_id=TENANT_B.id), "host/credential"),
        (at(HOST_B), ALL_GRANTS, "host/membership"),
        (at(HOST_B), MEMBER_A, "host/membership"),
        (at(HOST_A), STRANGER, "host/membership"),
        (at(HOST_B), replace(MEMBER_A, grants=frozenset({TENANT_B.id})), "host/membership"),
        (at(BASE, tenant="birch"), MEMBER_A, "header/membership"),
        (at(BASE), replace(STRANGER, tenant_id=TENANT_A.id), "membership/membership"),
        (at(BASE), replace(MEMBER_A, tenant_id=uuid7()), "membership/credential"),
    ],
)
async def test_sources_that_disagree_are_refused_and_the_conflict_is_named(facts, credential, conflict):
    error = await refusal(facts, credential)
    assert (error.code, error.status, str(error)) == ("tenant_not_found", 404, REFUSALS["tenant_not_found"][1])
    assert error.conflict == conflict


@pytest.mark.parametrize("host", [BASE, HOST_A, "crm.acme.test"])
@pytest.mark.parametrize("tenant", [None, "acme", TENANT_A.id])
@pytest.mark.parametrize("credential", [MEMBER_A, BOUND_A, ROBOT])
async def test_a_revoked_membership_ends_access_by_every_way(host, tenant, credential):
    directory = town()
    assert (await resolve(at(host, tenant=tenant), credential, directory, CONFIG)).member
    directory.members.clear()
    if (host, tenant, credential.tenant_id) == (BASE, None, None):
        assert (await resolve(at(host), credential, directory, CONFIG)).tenant is None
    else:
        assert (await refusal(at(host, tenant=tenant), credential, directory)).conflict.endswith("/membership")


def may_reach(credential: Credential, tenant: Tenant, directory: MemoryDirectory) -> bool:
    member = any((m.subject_id, m.tenant_id) == (credential.subject_id, tenant.id) for m in directory.members)
    bound = credential.tenant_id in (None, tenant.id)
    return member and bound and (credential.kind != "service_key" or tenant.id in credential.grants)


HOSTS = (BASE, "127.0.0.1", HOST_A, HOST_B, "crm.acme.test", "bücher.test", "sleepy.test", "cancelled.test", "evil.test")
NAMES = (None, "", "acme", "birch", "sleepy", "pending", "nobody", TENANT_A.id, TENANT_B.id, SUSPENDED.id)
BINDINGS = (None, TENANT_A.id, TENANT_B.id, SUSPENDED.id, UUID(int=0))
CALLERS = (MEMBER_A, MEMBER_B, MEMBER_AB, STRANGER, ROBOT, ALL_GRANTS)


@pytest.mark.parametrize("config", [CONFIG, SINGLE], ids=["multi", "single"])
@pytest.mark.parametrize("host", HOSTS)
async def test_in_every_combination_a_caller_is_in_an_own_active_tenant_or_in_none(config, host):
    directory, reached, refused = town(), 0, 0
    for name, binding, caller in product(NAMES, BINDINGS, CALLERS):
        credential = replace(caller, tenant_id=binding)
        try:
            resolution = await resolve(at(host, tenant=name), credential, directory, config)
        except Refused:
            refused += 1
            continue
        assert (resolution.tenant is None) == (resolution.member is None)
        if resolution.tenant is not None:
            reached += 1
            assert resolution.tenant.status == "ACTIVE"
            assert may_reach(credential, resolution.tenant, directory)
            assert name in (None, resolution.tenant.slug, resolution.tenant.id)
    assert refused > 0
    assert (reached > 0) == (host not in ("sleepy.test", "cancelled.test", "evil.test"))


# The status of the tenant


@pytest.mark.parametrize("status", CLOSED)
async def test_a_tenant_that_is_not_served_looks_like_none(status):
    tenant, directory = CLOSED[status], town()
    directory.join(STRANGER, tenant)
    for host in (f"{tenant.slug}.{BASE}", f"{tenant.slug}.test"):
        for credential in (None, STRANGER):
            assert (await refusal(at(host), credential, directory)).code == "unknown_host"
    for name in (tenant.slug, tenant.id):
        assert (await refusal(at(BASE, tenant=name), STRANGER, directory)).code == "tenant_not_found"
    bound = replace(STRANGER, tenant_id=tenant.id)
    assert (await refusal(at(BASE), bound, directory)).code == "tenant_not_found"
    assert (await resolve(at(BASE), STRANGER, directory, CONFIG)).tenant is None


@pytest.mark.parametrize(
    "facts",
    [at(f"sleepy.{BASE}"), at("sleepy.test"), at(BASE, tenant="sleepy"), at(BASE, tenant=SUSPENDED.id), at(BASE)],
)
async def test_only_a_member_learns_that_the_tenant_is_suspended(facts):
    directory = town()
    directory.join(STRANGER, SUSPENDED)
    error = await refusal(facts, STRANGER, directory)
    assert (error.code, error.status) == ("tenant_suspended", 423)
    if facts != at(BASE):
        assert (await refusal(facts, MEMBER_B, directory)).code == "tenant_not_found"


async def test_an_anonymous_caller_sees_a_suspended_tenant_like_any_other():
    resolution = await resolve(at("sleepy.test"), None, town(), CONFIG)
    assert (resolution.tenant, resolution.member) == (SUSPENDED, None)


# A directory that answers with something else than was asked for


class Confused(MemoryDirectory):
    async def tenant_by_slug(self, slug):
        return TENANT_B

    async def tenant_by_id(self, tenant_id):
        return TENANT_B


class Careless(MemoryDirectory):
    wrong = Member(STRANGER.subject_id, TENANT_A.id, "OWNER")

    async def member(self, credential, tenant_id):
        return self.wrong


@pytest.mark.parametrize("facts", [at(HOST_A), at(BASE, tenant="acme"), at(BASE, tenant=TENANT_A.id), at(BASE)])
async def test_a_directory_that_returns_another_tenant_is_not_believed(facts):
    directory = Confused(members=town().members)
    with pytest.raises(TenantMismatch, match="was given"):
        await resolve(facts, MEMBER_A, directory, CONFIG)


@pytest.mark.parametrize(("host", "credential"), [(HOST_A, MEMBER_A), (HOST_B, STRANGER)])
async def test_a_membership_of_somebody_else_or_somewhere_else_is_not_believed(host, credential):
    with pytest.raises(TenantMismatch, match="was given"):
        await resolve(at(host), credential, Careless(tenants=town().tenants), CONFIG)


async def test_a_directory_that_makes_everyone_a_member_does_not_admit_to_an_unknown_tenant():
    assert (await refusal(at(BASE, tenant="nobody"), STRANGER, Careless())).code == "tenant_not_found"

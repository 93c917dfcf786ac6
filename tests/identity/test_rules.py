"""Facts about addresses, labels, domains, secrets, passwords and throttling subjects that need no database."""

from __future__ import annotations

import re
from uuid import UUID

import pytest

from partywall.errors import TenantMismatch
from partywall.resolve import Credential, Member
from rowhouse.core.errors import Invalid
from rowhouse.core.permissions import Capability, Role
from rowhouse.core.resource import Registry
from rowhouse.identity import tokens
from rowhouse.identity.directory import principal_of
from rowhouse.identity.domains import normalise_domain
from rowhouse.identity.keys import checked_scopes
from rowhouse.identity.origin import is_cross_site
from rowhouse.identity.passwords import check_password, hash_password, verify_password
from rowhouse.identity.people import normalise_email
from rowhouse.identity.remembered import Remembered
from rowhouse.identity.resources import RESOURCES
from rowhouse.identity.tenants import check_slug
from rowhouse.identity.throttle import network_of

A, B, C = UUID(int=1), UUID(int=2), UUID(int=3)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        ("  ada+crm@example.com ", "ada+crm@example.com"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
    ],
)
def test_an_address_has_one_form(written, normal):
    assert normalise_email(written) == normal


@pytest.mark.parametrize(
    "written",
    [
        "",
        "ada",
        "ada@",
        "@example.com",
        "a b@example.com",
        "a@b@example.com",
        "ada@localhost",
        "ada@example.com:25",
        "ada@e\0.com",
    ],
)
def test_what_is_no_address_is_refused(written):
    with pytest.raises(Invalid) as refusal:
        normalise_email(written)
    assert refusal.value.code == "invalid_email"


@pytest.mark.parametrize("slug", ["ab", "acme", "acme-2", "a1-b2-c3", "4u", "a" * 50])
def test_a_good_label_is_accepted(slug):
    check_slug(slug)


@pytest.mark.parametrize(
    "slug",
    ["", "a", "Acme", "-acme", "acme-", "a--b", "a_b", "acme\n", "ä1", "a" * 51, "www", "12345678-1234-1234-1234-123456789abc"],
)
def test_a_bad_or_reserved_label_is_refused(slug):
    with pytest.raises(Invalid):
        check_slug(slug)


@pytest.mark.parametrize(
    ("written", "normal"), [("CRM.Example.com.", "crm.example.com"), ("crm.bücher.example", "crm.xn--bcher-kva.example")]
)
def test_a_domain_has_one_form(written, normal):
    assert normalise_domain(written, ("rowhouse.test",)) == normal


@pytest.mark.parametrize(
    "domain",
    [
        "com",
        "localhost",
        "x.localhost",
        "10.0.0.1",
        "a.1",
        "crm.example.com:443",
        "http://x.example",
        "rowhouse.test",
        "a.b.rowhouse.test",
    ],
)
def test_a_domain_nobody_can_own_here_is_refused(domain):
    with pytest.raises(Invalid):
        normalise_domain(domain, ("rowhouse.test",))


def test_a_key_is_read_back_as_it_was_written():
    key_id, secret = tokens.new_key_id(), tokens.new_secret()
    found = tokens.read_key(tokens.write_key("pk", key_id, secret))
    assert found == tokens.KeyText("pk", key_id, secret)


@pytest.mark.parametrize(
    "text", ["", "rh_pk_", "rh_xx_" + "a" * 16 + "_" + "b" * 43, "rh_pk_" + "a" * 16 + "_" + "b" * 43 + "\n"]
)
def test_what_is_no_key_is_not_read_as_one(text):
    assert tokens.read_key(text) is None


def test_the_cookie_is_bound_to_its_host_and_out_of_reach_of_scripts():
    header = tokens.set_cookie("x")
    assert header.startswith("__Host-rowhouse=x; ")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(header.split("; "))
    assert "domain" not in header.lower()


@pytest.mark.parametrize(
    "password", ["short", "x" * 201, "aaaaaaaaaaaa", "password123", "Ada.Lovelace@Example.com", "ada.lovelace"]
)
def test_a_weak_password_is_refused(password):
    with pytest.raises(Invalid):
        check_password(password, email="ada.lovelace@example.com")


async def test_a_password_is_recognised_in_either_unicode_form():
    stored = await hash_password("caf\u00e9 au lait noir")
    assert (await verify_password("cafe\u0301 au lait noir", stored))[0]
    assert not (await verify_password("cafe au lait noir", stored))[0]


async def test_nobody_has_any_password():
    assert await verify_password("nobody has this password", None) == (False, None)


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("", ""),
        ("testclient", ""),
    ],
)
def test_one_callers_addresses_count_as_one(ip, network):
    assert network_of(ip) == network


@pytest.mark.parametrize("scope", ["*", "workspace:read", "members:list", "members:*", "api-keys:create-key"])
def test_a_scope_of_something_that_exists_is_accepted(scope):
    assert checked_scopes([scope, scope], Registry(RESOURCES)) == [scope]


@pytest.mark.parametrize("scope", ["", "**", "crm:read", "workspace:*", "members:fly", "members", "members:list\n"])
def test_a_scope_of_nothing_is_refused(scope):
    with pytest.raises(Invalid):
        checked_scopes([scope], Registry(RESOURCES))


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ([], False),
        ([(b"sec-fetch-site", b"same-origin")], False),
        ([(b"sec-fetch-site", b"same-site")], True),
        ([(b"sec-fetch-site", b"cross-site"), (b"origin", b"https://a.rowhouse.test")], True),
        ([(b"origin", b"https://a.rowhouse.test:8443")], False),
        ([(b"origin", b"https://b.rowhouse.test")], True),
        ([(b"origin", b"null")], True),
    ],
)
def test_another_sites_request_is_recognised(headers, is_foreign):
    assert is_cross_site({"headers": headers}, "a.rowhouse.test") is is_foreign


def test_a_key_acts_with_its_members_role_and_its_own_scopes():
    credential = Credential("personal_key", A, B, C, scopes=frozenset({"workspace:read"}))
    principal = principal_of(credential, Member(A, C, "ADMIN", frozenset({"audit.read", "gone.since"})))
    assert (principal.role, principal.member_id, principal.scopes) == (Role.ADMIN, A, frozenset({"workspace:read"}))
    assert principal.capabilities == {Capability.AUDIT_READ}


@pytest.mark.parametrize("member", [Member(B, C, "OWNER"), Member(A, B, "OWNER")])
def test_anothers_membership_makes_no_principal(member):
    with pytest.raises(TenantMismatch):
        principal_of(Credential("session", A, B, C), member)


async def test_an_answer_is_remembered_from_the_question_on_and_under_its_whole_key():
    time_s, asked = [0.0], []

    async def ask() -> int:
        asked.append(1)
        time_s[0] += 0.3
        return len(asked)

    remembered = Remembered(0.4, most=2, monotonic=lambda: time_s[0])
    assert await remembered.get(("member", A, B), ask) == 1
    assert await remembered.get(("member", A, B), ask) == 1
    assert await remembered.get(("member", A, C), ask) == 2
    assert await remembered.get(("member", A, B), ask) == 3


async def test_memory_is_bounded():
    remembered = Remembered(1000, most=3)

    async def ask() -> int:
        return 1

    for number in range(50):
        await remembered.get((number,), ask)
    assert len(remembered._kept) == 3


def test_every_secret_column_is_hidden():
    secrets = {
        (resource.name, column.key)
        for resource in RESOURCES
        for column in resource.shown()
        if re.search("hash|token|secret", column.key)
    }
    assert secrets == set()
    assert all(resource.shown() for resource in RESOURCES)

"""The pytest plugin: its assertions pass on isolation and fail on a leak, and on an answer that proves nothing."""

from types import SimpleNamespace
from typing import Any

import pytest
from engines import Engines
from library import TENANT_A, TENANT_B, Book
from sqlalchemy import select
from sqlalchemy.orm import Session

from partywall import TenantSession, get_tenant_id
from partywall.testing import act_as, assert_isolated, assert_no_trace

pytest_plugins = ["pytester"]


def test_the_fixtures_of_the_plugin_are_two_tenants(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_two(tenant_a, tenant_b): assert tenant_a.id != tenant_b.id")

    pytester.runpytest("-p", "no:asyncio").assert_outcomes(passed=1)


def test_a_fixture_of_the_plugin_can_be_overridden(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def tenant_a():
            return "mine"

        def test_override(tenant_a, tenant_b):
            assert (tenant_a, tenant_b.slug) == ("mine", "tenant-b")
        """
    )

    pytester.runpytest("-p", "no:asyncio").assert_outcomes(passed=1)


def test_acting_as_a_tenant_opens_its_scope() -> None:
    with act_as(TENANT_A):
        assert get_tenant_id() == TENANT_A.id


def test_a_tenant_session_is_isolated(engines: Engines) -> None:
    def read() -> list[Book]:
        with TenantSession(engines.app) as session:
            return list(session.scalars(select(Book)))

    assert_isolated(read, TENANT_A, TENANT_B)


def test_a_session_without_any_wall_is_not(engines: Engines) -> None:
    def read() -> list[Book]:
        with Session(engines.superuser) as session:
            return list(session.scalars(select(Book)))

    with pytest.raises(AssertionError, match="3 rows of another tenant"):
        assert_isolated(read, TENANT_A, TENANT_B)


@pytest.mark.parametrize("rows", [[], [{"tenant_id": str(TENANT_B.id)}], [SimpleNamespace(tenant_id=TENANT_B.id)]])
def test_no_row_of_ones_own_or_a_foreign_one_fails(rows: list[Any]) -> None:
    with pytest.raises(AssertionError, match="acme saw"):
        assert_isolated(lambda: rows, TENANT_A)


def test_rows_may_be_mappings_with_the_id_as_text() -> None:
    assert_isolated(lambda: [{"tenant_id": str(TENANT_A.id)}], TENANT_A)


@pytest.mark.parametrize("output", ["<p>acme</p>", b"acme"])
def test_a_page_with_its_own_marks_alone_passes(output: str | bytes) -> None:
    assert_no_trace(output, own=["acme"], foreign=["birch", TENANT_B.id])


@pytest.mark.parametrize(("output", "message"), [("acme, birch", "holds 'birch'"), ("", "lacks 'acme'"), (b"birch", "lacks")])
def test_a_page_with_a_foreign_mark_or_without_its_own_fails(output: str | bytes, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_no_trace(output, own=["acme"], foreign=["birch"])


@pytest.mark.parametrize("marks", [{"own": [], "foreign": ["b"]}, {"own": ["a"], "foreign": []}])
def test_an_assertion_without_marks_is_refused(marks: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="both tenants"):
        assert_no_trace("a", **marks)

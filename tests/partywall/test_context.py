"""The tenant of the running work: how scopes nest, what refuses to, and where the variable travels."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
from library import TENANT_A, TENANT_B, Book
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from partywall import (
    NoTenant,
    Tenant,
    TenantMismatch,
    TenantSession,
    current_tenant,
    get_tenant_id,
    has_tenant_context,
    system_scope,
    tenant_scope,
)
from partywall.context import current_system_scope

pytestmark = pytest.mark.no_database


def seen() -> Tenant | None:
    return current_tenant() if has_tenant_context() else None


def test_without_a_scope_there_is_no_tenant() -> None:
    assert not has_tenant_context()
    with pytest.raises(NoTenant, match="tenant_scope"):
        current_tenant()
    with pytest.raises(NoTenant):
        get_tenant_id()


def test_a_scope_holds_its_tenant_and_ends_with_its_block() -> None:
    with tenant_scope(TENANT_A) as tenant:
        within = (tenant, current_tenant(), get_tenant_id())

    assert within == (TENANT_A, TENANT_A, TENANT_A.id)
    assert seen() is None


def test_a_scope_ends_when_its_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), tenant_scope(TENANT_A):
        1 / 0  # noqa: B018

    assert seen() is None


def test_scopes_of_one_tenant_nest() -> None:
    with tenant_scope(TENANT_A):
        with tenant_scope(Tenant(TENANT_A.id, "renamed")):
            inner = current_tenant().slug
        outer = current_tenant().slug

    assert (inner, outer) == ("renamed", TENANT_A.slug)


def test_another_tenant_is_refused_inside_a_scope() -> None:
    with tenant_scope(TENANT_A):
        with pytest.raises(TenantMismatch, match=r"acme.*birch"), tenant_scope(TENANT_B):
            pass
        assert current_tenant() is TENANT_A


def test_tenant_and_system_scopes_exclude_each_other() -> None:
    with tenant_scope(TENANT_A), pytest.raises(TenantMismatch, match="acme"), system_scope(reason="nightly sweep"):
        pass
    with system_scope(reason="nightly sweep"), pytest.raises(TenantMismatch, match="system scope"), tenant_scope(TENANT_A):
        pass


def test_a_system_scope_is_no_tenant_context() -> None:
    with system_scope(reason=" nightly sweep "):
        assert current_system_scope().reason == "nightly sweep"
        with pytest.raises(NoTenant):
            current_tenant()
    with pytest.raises(NoTenant, match="system_scope"):
        current_system_scope()


@pytest.mark.parametrize("reason", ["", "  ", "ab", " a "])
def test_a_system_scope_needs_a_reason(reason: str) -> None:
    with pytest.raises(ValueError, match="reason"), system_scope(reason=reason):
        pass


def test_a_tenant_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        TENANT_A.slug = "other"  # type: ignore[misc]


async def test_concurrent_tasks_keep_their_own_tenants() -> None:
    both_inside = asyncio.Barrier(2)

    async def work(tenant: Tenant) -> tuple[Tenant | None, Tenant | None]:
        with tenant_scope(tenant):
            await both_inside.wait()
            within = seen()
            await both_inside.wait()
        return within, seen()

    found = await asyncio.gather(work(TENANT_A), work(TENANT_B))

    assert found == [(TENANT_A, None), (TENANT_B, None)]


async def test_a_task_and_a_thread_of_asyncio_inherit_the_tenant() -> None:
    async def read() -> Tenant | None:
        return seen()

    with tenant_scope(TENANT_A):
        found = [await asyncio.create_task(read()), await asyncio.to_thread(seen)]

    assert found == [TENANT_A, TENANT_A]


async def test_threads_started_otherwise_have_no_tenant() -> None:
    found: list[Tenant | None] = []
    with tenant_scope(TENANT_A), ThreadPoolExecutor(1) as pool:
        found.append(await asyncio.get_running_loop().run_in_executor(pool, seen))
        found.append(pool.submit(seen).result())
        thread = threading.Thread(target=lambda: found.append(seen()))
        thread.start()
        thread.join()

    assert found == [None, None, None]


async def test_a_task_started_in_a_scope_outlives_it_without_losing_or_changing_its_tenant() -> None:
    left = asyncio.Event()

    async def late() -> Tenant | None:
        await left.wait()
        return seen()

    with tenant_scope(TENANT_A):
        task = asyncio.create_task(late())
    with tenant_scope(TENANT_B):
        left.set()
        assert await task is TENANT_A


def test_a_scope_left_in_another_context_is_an_error() -> None:
    scope = tenant_scope(TENANT_A)
    copy_context().run(scope.__enter__)

    assert seen() is None
    with pytest.raises(ValueError, match="different Context"):
        scope.__exit__(None, None, None)


# The session's binding needs no database: it is checked before the first statement.


def test_a_session_needs_a_scope() -> None:
    with pytest.raises(NoTenant):
        TenantSession()
    with pytest.raises(NoTenant):
        TenantSession(tenant=TENANT_A)


def test_a_session_for_another_tenant_than_the_scopes_is_refused() -> None:
    with tenant_scope(TENANT_A), pytest.raises(TenantMismatch):
        TenantSession(tenant=TENANT_B)


def test_a_session_does_not_outlive_its_scope() -> None:
    engine = create_engine("postgresql+psycopg://nobody@/nowhere?host=/nonexistent")
    with tenant_scope(TENANT_A):
        session: Session = TenantSession(engine)

    with pytest.raises(NoTenant):
        session.execute(select(Book))
    with tenant_scope(TENANT_B), pytest.raises(TenantMismatch):
        session.execute(select(Book))

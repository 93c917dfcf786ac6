"""Custom domains: anybody may claim one, the first proof by a TXT record wins, and the proof is asked for every day."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, StringConstraints
from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from partywall import Tenant
from partywall.errors import ResolutionError
from partywall.resolve import normalise_host
from rowhouse.core.call import Call, open_call
from rowhouse.core.db import Database
from rowhouse.core.errors import Conflict, Invalid
from rowhouse.core.permissions import Role
from rowhouse.core.resource import Change, Input, NoInput, Registry, action
from rowhouse.identity.dns import DnsTimeout, TxtResolver
from rowhouse.identity.members import system_principal
from rowhouse.identity.models import DomainStatus, TenantDomain, TenantRow, VerifiedDomain
from rowhouse.identity.people import tenant_of
from rowhouse.identity.provided import provided
from rowhouse.identity.turns import take_turn

FAILURES_ALLOWED = 7

_DAILY = timedelta(hours=20)
# Names nobody can own in the public name system.
_UNOWNED = frozenset({"localhost", "local", "invalid", "arpa", "onion"})


class DomainInUse(Conflict):
    """Another workspace has proven the domain."""

    code = "domain_in_use"


class TxtNotFound(Conflict):
    """The proof is not in the name system (yet)."""

    code = "txt_not_found"


class ClaimedDomain(Input):
    """The domain to claim."""

    domain: Annotated[str, StringConstraints(min_length=4, max_length=254)]


class Instructions(BaseModel):
    """The TXT record that proves a claim."""

    name: str
    type: str = "TXT"
    value: str


@dataclass(frozen=True, slots=True)
class Recheck:
    """What a daily check found: how many proofs still stand, and the domains it has taken out of service."""

    standing: int
    failed: tuple[str, ...]


def normalise_domain(domain: str, base_domains: Sequence[str]) -> str:
    """Return a domain in lower-case A-labels.

    Raises Invalid for an address, a single label, a name of our own, and one that nobody can own.
    """
    fault = Invalid("Give a domain of your own, such as crm.example.com.", code="invalid_domain", field="domain")
    if ":" in domain:
        raise fault
    try:
        normal = normalise_host(domain.strip())
    except ResolutionError:
        raise fault from None
    last = normal.rpartition(".")[2]
    if "." not in normal or last[0].isdigit() or last in _UNOWNED:
        raise fault
    if any(normal == base or normal.endswith(f".{base}") for base in base_domains):
        raise Invalid("This domain belongs to the platform.", code="domain_reserved", field="domain")
    return normal


async def claim(call: Call, values: Mapping[str, Any]) -> TenantDomain:
    """Claim a domain for the workspace, or take a released claim up again; a claim reserves nothing.

    Raises Invalid, Conflict (duplicate) when the workspace claims it already.
    """
    domain = normalise_domain(values["domain"], provided().settings.base_domains)
    row = (await call.session.scalars(select(TenantDomain).where(TenantDomain.domain == domain))).one_or_none()
    if row is None:
        row = TenantDomain(domain=domain)
        call.session.add(row)
    elif row.archived_at is None:
        raise Conflict("This workspace claims the domain already.", code="duplicate", field="domain")
    row.archived_at = row.archived_by_id = None
    _unprove(row)
    return row


@action(output=Instructions, role=Role.ADMIN, reads=True)
async def instructions(_call: Call, row: TenantDomain, _data: NoInput) -> Instructions:
    """Return the TXT record to publish."""
    return Instructions(name=proof_name(row.domain), value=proof_value(row.verify_token))


@action(role=Role.ADMIN)
async def verify(call: Call, row: TenantDomain, _data: NoInput) -> TenantDomain:
    """Look for the proof and, if it is there, send the domain's visitors to this workspace.

    Raises TxtNotFound, DomainInUse when another workspace proved it first, DnsTimeout after five seconds.
    """
    if row.archived_at is not None:
        raise Conflict("This domain was released; claim it again.", code="archived")
    if proof_value(row.verify_token) not in await provided().txt.txt(proof_name(row.domain)):
        raise TxtNotFound(f"There is no TXT record {proof_name(row.domain)} with this workspace's value yet.")
    await _take(call, row)
    row.status, row.verified_at, row.last_checked_at, row.check_failures = DomainStatus.VERIFIED.value, call.now, call.now, 0
    call.emit("workspace.tenant_domain_verified", id=str(row.id))
    return row


@action(role=Role.ADMIN)
async def set_primary(call: Call, row: TenantDomain, _data: NoInput) -> TenantDomain:
    """Make a verified domain the one that links are built with.  Raises Conflict (not_verified)."""
    if row.status != DomainStatus.VERIFIED or row.archived_at is not None:
        raise Conflict("Verify this domain first.", code="not_verified")
    if not row.is_primary:
        await take_turn(call, "primary domain")
        primaries = select(TenantDomain).where(TenantDomain.is_primary)
        for other in (await call.session.scalars(primaries.execution_options(populate_existing=True))).all():
            other.is_primary = False
        row.is_primary = True
    return row


async def check_domain(call: Call, change: Change) -> None:
    """Take a released domain out of service; one that is restored has to be proven again."""
    if change.verb in ("archive", "delete"):
        async with call.database.people() as session:
            mine = (VerifiedDomain.domain == change.row.domain, VerifiedDomain.tenant_id == call.tenant.id)
            await session.execute(delete(VerifiedDomain).where(*mine))
    if change.verb in ("archive", "restore"):
        _unprove(change.row)


def proof_name(domain: str) -> str:
    """Return the name of the TXT record that proves a domain."""
    return f"_rowhouse-verify.{domain}"


def proof_value(token: str) -> str:
    """Return the value the TXT record has to have."""
    return f"rowhouse-verify={token}"


async def recheck(database: Database, resolver: TxtResolver, *, now: datetime) -> Recheck:
    """Ask for the proof of every served domain not asked for today; after seven failed days it is served no more.

    When not one question is answered, our own resolver is taken to be down and no domain is blamed.
    """
    due = await _due(database, now)
    answers = await _ask_all(resolver, [served.domain for served in due])
    if due and all(answer is None for answer in answers):
        return Recheck(0, ())
    failed: list[str] = []
    for served, answer in zip(due, answers, strict=True):
        stands = answer is not None and proof_value(served.token) in answer
        if await _note_check(database, served, stands, now) >= FAILURES_ALLOWED:
            await _fail(database, served, now)
            failed.append(served.domain)
    return Recheck(len(due) - len(failed), tuple(failed))


@dataclass(frozen=True, slots=True)
class _Served:
    id: UUID
    token: str
    domain: str
    tenant: Tenant


async def _due(database: Database, now: datetime) -> list[_Served]:
    claimed = (TenantDomain.domain == VerifiedDomain.domain) & (TenantDomain.tenant_id == VerifiedDomain.tenant_id)
    live = claimed & TenantDomain.archived_at.is_(None)
    async with database.people() as session:
        await _forget_unclaimed(session, live)
        statement = (
            select(TenantDomain, TenantRow)
            .join(VerifiedDomain, live)
            .join(TenantRow, TenantRow.id == TenantDomain.tenant_id)
            .where(TenantDomain.last_checked_at.is_(None) | (TenantDomain.last_checked_at <= now - _DAILY))
            .order_by(TenantDomain.last_checked_at, TenantDomain.domain)
        )
        rows = (await session.execute(statement)).all()
    return [_Served(row.id, row.verify_token, row.domain, tenant_of(tenant)) for row, tenant in rows]


async def _forget_unclaimed(session: AsyncSession, live: ColumnElement[bool]) -> None:
    # A call that failed after its proof was written may leave a proof without claim behind. Which ones is found here and
    # not by the DELETE: on Citus a statement on a global table cannot ask what a tenant table lacks.
    proofs = select(VerifiedDomain.domain, VerifiedDomain.tenant_id)
    every = set((await session.execute(proofs)).all())
    claimed = set((await session.execute(proofs.join(TenantDomain, live))).all())
    for domain, tenant_id in every - claimed:
        await session.execute(
            delete(VerifiedDomain).where(VerifiedDomain.domain == domain, VerifiedDomain.tenant_id == tenant_id)
        )


async def _ask_all(resolver: TxtResolver, domains: Sequence[str]) -> list[list[str] | None]:
    turn = asyncio.Semaphore(10)

    async def ask(domain: str) -> list[str] | None:
        async with turn:
            try:
                return await resolver.txt(proof_name(domain))
            except DnsTimeout:
                return None

    return await asyncio.gather(*(ask(domain) for domain in domains))


async def _note_check(database: Database, served: _Served, stands: bool, now: datetime) -> int:
    failures = 0 if stands else TenantDomain.check_failures + 1
    mine = (TenantDomain.tenant_id == served.tenant.id, TenantDomain.id == served.id)
    statement = update(TenantDomain).where(*mine).values(last_checked_at=now, check_failures=failures)
    async with database.people() as session:
        counted = await session.execute(
            statement.returning(TenantDomain.check_failures).execution_options(synchronize_session=False)
        )
        return counted.scalar_one_or_none() or 0


async def _fail(database: Database, served: _Served, now: datetime) -> None:
    async with database.people() as session:
        mine = (VerifiedDomain.domain == served.domain, VerifiedDomain.tenant_id == served.tenant.id)
        await session.execute(delete(VerifiedDomain).where(*mine))
    about = {"now": now, "operation": "domains:recheck", "reason": f"the proof was missing {FAILURES_ALLOWED} days running"}
    async with open_call(database, Registry(()), served.tenant, system_principal(), **about) as call:
        row = await call.load(TenantDomain, served.id, lock=True)
        row.status, row.is_primary = DomainStatus.FAILED.value, False
        call.emit("workspace.tenant_domain_failed", id=str(row.id))


async def _take(call: Call, row: TenantDomain) -> None:
    async with call.database.people() as session:
        proof = {"domain": row.domain, "tenant_id": call.tenant.id, "verified_at": call.now}
        await session.execute(insert(VerifiedDomain).values(**proof).on_conflict_do_nothing())
        owner = (await session.scalars(select(VerifiedDomain.tenant_id).where(VerifiedDomain.domain == row.domain))).one()
    if owner != call.tenant.id:
        raise DomainInUse("Another workspace has proven this domain and serves it.")


def _unprove(row: TenantDomain) -> None:
    row.status, row.is_primary, row.verified_at, row.check_failures = DomainStatus.PENDING.value, False, None, 0
    row.verify_token = secrets.token_hex(16)

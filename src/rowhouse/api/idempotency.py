"""Idempotency keys: a repeated POST gets the first answer, and does its work once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Mapped

from partywall import TenantScoped, tenant_unique
from rowhouse.core.call import Call
from rowhouse.core.db import Base, short_text, write_failures
from rowhouse.core.errors import Conflict, Invalid

KEPT = timedelta(hours=24)


class IdempotencyKey(TenantScoped, Base):
    """One key of one caller in one tenant, with the answer it got."""

    __tablename__ = "idempotency_key"
    __table_args__ = (tenant_unique("subject_id", "key"),)

    subject_id: Mapped[UUID]
    key: Mapped[str] = short_text(200)
    request_hash: Mapped[str] = short_text(64)
    status: Mapped[int]
    headers: Mapped[list[str]]
    body: Mapped[bytes]
    created_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a walker answered: HTTP status, header lines "name: value", body."""

    status: int
    headers: tuple[str, ...]
    body: bytes


async def earlier_answer(call: Call, key: str, request: bytes) -> Answer | None:
    """Return the answer this caller got for the key within 24 hours, or None for a new key.

    Raises Invalid (idempotency_mismatch) when the key came with another request.
    """
    subject = _holder(call)
    if not 1 <= len(key) <= 200 or subject is None:
        raise Invalid("Idempotency-Key is 1 to 200 characters.", code="invalid_value", field="Idempotency-Key")
    await call.session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < call.now - KEPT))
    statement = select(IdempotencyKey).where(IdempotencyKey.subject_id == subject, IdempotencyKey.key == key)
    found = (await call.session.scalars(statement)).one_or_none()
    if found is None:
        return None
    if found.request_hash != _hash(request):
        raise Invalid(
            "This Idempotency-Key was used for another request; use a new one.",
            code="idempotency_mismatch",
            field="Idempotency-Key",
        )
    return Answer(found.status, tuple(found.headers), found.body)


async def keep_answer(call: Call, key: str, request: bytes, answer: Answer) -> None:
    """Keep an answer in the transaction that did the work.

    Raises Conflict (request_in_progress) when the same key is being worked on at this moment; nothing was done twice.
    """
    holder = _holder(call)
    assert holder is not None
    call.session.add(
        IdempotencyKey(
            subject_id=holder,
            key=key,
            request_hash=_hash(request),
            status=answer.status,
            headers=list(answer.headers),
            body=answer.body,
            created_at=call.now,
        )
    )
    try:
        with write_failures():
            await call.session.flush()
    except Conflict as error:
        raise Conflict(
            "A request with this Idempotency-Key was just carried out; repeat it to get its answer.", code="request_in_progress"
        ) from error


def _holder(call: Call) -> UUID | None:
    # The credential and not the person: a narrower key must not be told what a wider one was answered.
    return call.principal.credential_id or call.principal.subject_id


def _hash(request: bytes) -> str:
    return hashlib.sha256(request).hexdigest()

"""What can be told of one person: who may be the same."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import and_, or_, select

from rowhouse.core.call import Call
from rowhouse.core.resource import NoInput, report
from rowhouse.modules.crm import rules
from rowhouse.modules.crm.models import CRMContact


class ContactDouble(BaseModel):
    """A person who may be the same. score: 1.0 same address, 0.8 same name at the same account, 0.8 same telephone."""

    id: UUID
    name: str
    email: str | None
    phone: str | None
    account_id: UUID | None
    score: float
    reasons: list[str]


@report(output=ContactDouble, params=NoInput, on="row")
async def duplicates(call: Call, contact: CRMContact, params: NoInput) -> list[ContactDouble]:
    """Return the live people who may be the same, the most alike first; at most fifty."""
    alike = []
    if contact.email_norm:
        alike.append(CRMContact.email_norm == contact.email_norm)
    if contact.phone_norm:
        alike.append(CRMContact.phone_norm == contact.phone_norm)
    if contact.name_norm and contact.account_id:
        alike.append(and_(CRMContact.name_norm == contact.name_norm, CRMContact.account_id == contact.account_id))
    if not alike:
        return []
    statement = select(CRMContact).where(or_(*alike), CRMContact.id != contact.id, CRMContact.archived_at.is_(None)).limit(50)
    found = []
    for (row,) in await call.rows(statement):
        reasons = _reasons(contact, row)
        found.append(
            ContactDouble(
                id=row.id,
                name=row.name,
                email=row.email,
                phone=row.phone,
                account_id=row.account_id,
                score=rules.likeness(reasons),
                reasons=reasons,
            )
        )
    return sorted(found, key=lambda double: (-double.score, double.name))


def _reasons(one: CRMContact, other: CRMContact) -> list[str]:
    found = []
    if one.email_norm and one.email_norm == other.email_norm:
        found.append("email")
    if one.name_norm and one.name_norm == other.name_norm and one.account_id and one.account_id == other.account_id:
        found.append("name_and_account")
    if one.phone_norm and one.phone_norm == other.phone_norm:
        found.append("phone")
    return found

"""What a header most probably means: the field's own name, its label, or a word people use for it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

# Words for a field in files of other programs, normalised; the field's name and its stem are added by themselves.
_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "name": ("fullname", "title", "companyname", "company", "organisation", "organization", "dealname", "subject"),
    "external_id": ("externalid", "recordid", "sourceid", "reference", "ref", "key"),
    "account_id": ("account", "accountname", "company", "companyname", "customer", "client", "organisation", "organization"),
    "contact_id": ("contact", "contactname", "person"),
    "parent_account_id": ("parent", "parentaccount", "parentcompany", "subsidiaryof", "headquarters"),
    "owner_user_id": ("owner", "ownername", "salesagent", "salesrep", "assignedto", "accountowner", "dealowner", "responsible"),
    "stage_id": ("stage", "dealstage", "salesstage", "phase"),
    "pipeline_id": ("pipeline", "pipelinename"),
    "amount_minor": ("amount", "value", "dealvalue", "price", "closevalue"),
    "annual_revenue_minor": ("annualrevenue", "revenue", "turnover"),
    "expected_close_date": ("closedate", "expectedclose", "closingdate", "dueclosedate"),
    "closed_at": ("closedon", "closeddate", "wondate"),
    "opened_at": ("openedon", "engagedate", "startdate"),
    "employee_count": ("employees", "headcount", "numberofemployees", "staff"),
    "industry": ("sector", "branch", "vertical"),
    "founded_year": ("yearestablished", "founded", "established"),
    "first_name": ("firstname", "givenname", "forename", "vorname"),
    "last_name": ("lastname", "surname", "familyname", "nachname"),
    "email": ("emailaddress", "mail", "mailaddress"),
    "phone": ("telephone", "tel", "phonenumber", "telefon"),
    "mobile": ("cell", "cellphone", "mobilephone", "mobil"),
    "job_title": ("title", "position", "jobtitle", "function"),
    "website": ("url", "web", "homepage", "webaddress"),
    "description": ("notes", "note", "comment", "comments", "remarks"),
    "tags": ("labels", "keywords", "categories"),
    "currency": ("currencycode",),
}
_TAILS = ("_user_id", "_account_id", "_id", "_minor", "_at", "_on")


def normalised(text: str) -> str:
    """Return a header for comparison: lower case letters and digits, no accents."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.sub(r"[\W_]+", "", "".join(letter for letter in plain if not unicodedata.combining(letter)))


def guess_fields(header: Iterable[str], fields: Iterable[str], *, singular: str) -> dict[str, str]:
    """Return header to field for what can be told; each field once, the surest match first.

    singular: the name of one row, so that "Account name" means the name of an account.
    """
    names, open_fields, found = list(header), list(fields), dict[str, str]()
    for rank in range(3):
        for name in names:
            if name in found:
                continue
            chosen = next((field for field in open_fields if normalised(name) in _words(field, singular)[rank]), None)
            if chosen is not None:
                found[name] = chosen
                open_fields.remove(chosen)
    return {name: found[name] for name in names if name in found}


def _words(field: str, singular: str) -> tuple[set[str], set[str], set[str]]:
    """Return the words that mean a field: exactly, by its stem, by custom."""
    if "." in field:
        part, inner = field.split(".", 1)
        return {normalised(field)}, {normalised(part.removesuffix("s") + inner)}, set()
    stem = next((field.removesuffix(tail) for tail in _TAILS if field.endswith(tail)), field)
    own = {normalised(singular + field), normalised(singular + stem)}
    if field == "name":
        own.add(normalised(singular))
    return {normalised(field)}, {normalised(stem), *own} - {""}, set(_SYNONYMS.get(field, ()))

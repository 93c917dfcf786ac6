"""One minimal valid create body per creatable resource of the CRM, from the ids of the samples made before it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

_serial = count(1)

Ids = dict[str, Any]


def account(ids: Ids) -> dict[str, Any]:
    return {"name": f"Sample Account {next(_serial)}"}


def contact(ids: Ids) -> dict[str, Any]:
    return {"email": f"sample{next(_serial)}@example.com"}


def pipeline(ids: Ids) -> dict[str, Any]:
    return {"name": f"Sample Pipeline {next(_serial)}"}


def pipeline_stage(ids: Ids) -> dict[str, Any]:
    # The six usual stages stand at positions 1 to 6.
    number = next(_serial)
    return {"name": f"Sample Stage {number}", "position": 10 + number}


def opportunity(ids: Ids) -> dict[str, Any]:
    return {"name": f"Sample Deal {next(_serial)}", "pipeline_id": ids["pipelines"]}


def opportunity_contact(ids: Ids) -> dict[str, Any]:
    return {"contact_id": ids["contacts"]}


def line_item(ids: Ids) -> dict[str, Any]:
    return {"name": f"Sample Line {next(_serial)}", "unit_price_minor": 1000}


def activity(ids: Ids) -> dict[str, Any]:
    return {"type": "CALL", "account_id": ids["accounts"]}


def exchange_rate(ids: Ids) -> dict[str, Any]:
    number = next(_serial)
    return {"currency": "XTS", "as_of": f"{2000 + number // 28 % 1000}-01-{number % 28 + 1:02}", "rate": "1.25"}


# In an order in which each finds the ids it needs; parts are created in the sample of their parent.
SAMPLES: dict[str, Callable[[Ids], dict[str, Any]]] = {
    "accounts": account,
    "contacts": contact,
    "pipelines": pipeline,
    "pipeline-stages": pipeline_stage,
    "opportunities": opportunity,
    "opportunity-contacts": opportunity_contact,
    "opportunity-line-items": line_item,
    "activities": activity,
    "exchange-rates": exchange_rate,
}

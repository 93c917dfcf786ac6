"""One valid body per creatable resource, in the order their references ask for; each module adds its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from modules.crm.samples import SAMPLES as CRM

Sample = Callable[[Mapping[str, str]], dict[str, Any]]


def _address() -> str:
    return f"person-{secrets.token_hex(4)}@people.example"


IDENTITY: dict[str, Sample] = {
    "invitations": lambda ids: {"email": _address(), "name": "Ines Invited", "role": "MEMBER"},
    "domains": lambda ids: {"domain": f"crm-{secrets.token_hex(4)}.example.com"},
}
SAMPLES: dict[str, Sample] = {**IDENTITY, **CRM}

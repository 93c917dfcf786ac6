"""Personal keys: one member's, for one workspace, scoped and expiring; the member's role counts at each use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, NoReturn
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, Forbidden, Invalid
from rowhouse.core.permissions import Capability, Role
from rowhouse.core.resource import Change, Input, Registry, action
from rowhouse.identity.models import ApiKey
from rowhouse.identity.tokens import new_key_id, new_secret, secret_hash, write_key

LONGEST_DAYS = 365

_SCOPE = re.compile(r"([a-z][a-z0-9-]*):(\*|[a-z][a-z-]*)")


class NewKey(Input):
    """A key to make. scopes: what it may do at most, such as "crm:read" or "accounts:list"."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    scopes: list[Annotated[str, StringConstraints(max_length=100)]] = Field(min_length=1, max_length=50)
    expires_in_days: int = Field(default=LONGEST_DAYS, ge=1, le=LONGEST_DAYS)


class Rotation(Input):
    """How long the old secret goes on working."""

    overlap_hours: int = Field(default=24, ge=0, le=24)


class KeyMade(BaseModel):
    """A key just made. key: shown this once."""

    id: UUID
    key_id: str
    key: str
    expires_at: datetime


@action(input=NewKey, output=KeyMade, on="collection", role=Role.VIEWER, shown_once=True)
async def create_key(call: Call, data: NewKey) -> KeyMade:
    """Make a key of the calling member for this workspace and return it once.

    Raises Forbidden for callers that are no logged-in member (a key cannot make keys), Invalid for an unknown scope.
    """
    member_id = _logged_in(call)
    scopes = checked_scopes(data.scopes, call.registry)
    expires_at = call.now + timedelta(days=data.expires_in_days)
    return await _make(call, ApiKey(name=data.name, scopes=scopes, member_id=member_id, expires_at=expires_at))


@action(input=Rotation, output=KeyMade, role=Role.VIEWER, shown_once=True)
async def rotate(call: Call, row: ApiKey, data: Rotation) -> KeyMade:
    """Make a successor of one's own key, with its name, scopes and life, and return it once; the old one ends soon.

    Raises Forbidden for another member's key: whoever rotates a key holds it.
    """
    if row.member_id != _logged_in(call):
        raise Forbidden("Only its owner can rotate a key; revoke it instead.", code="not_your_key")
    if row.archived_at is not None or row.expires_at <= call.now:
        raise Conflict("This key has ended; create a new one.", code="key_ended")
    life = row.expires_at - row.created_at
    row.expires_at = min(row.expires_at, call.now + timedelta(hours=data.overlap_hours))
    return await _make(call, ApiKey(name=row.name, scopes=list(row.scopes), member_id=row.member_id, expires_at=call.now + life))


async def refuse_create(_call: Call, _values: Mapping[str, Any]) -> NoReturn:
    """Refuse: a key without its secret would be of no use to anybody."""
    raise Invalid("Create a key with the action create-key, which shows its secret once.", code="use_create_key")


async def check_key(call: Call, change: Change) -> None:
    """Check a write to a key: one's own, or a revocation by an administrator; what is revoked stays revoked."""
    row: ApiKey = change.row
    if change.verb == "restore":
        raise Conflict("A revoked key stays revoked; create a new one.", code="key_ended")
    manages = call.principal.role.at_least(Role.ADMIN) or Capability.API_KEYS_MANAGE in call.principal.capabilities
    if row.member_id != call.member_id and not (manages and change.verb in ("archive", "delete")):
        raise Forbidden("This key belongs to another member.", code="not_your_key")


def checked_scopes(scopes: Sequence[str], registry: Registry) -> list[str]:
    """Return scopes sorted, each once.

    Each is "*", "group:read", "group:write", "resource:verb" or "resource:*".  Raises Invalid for one of no group,
    resource or verb that exists.
    """
    groups = {resource.group for resource in registry}
    for scope in scopes:
        found = _SCOPE.fullmatch(scope)
        is_group = found is not None and found[1] in groups and found[2] in ("read", "write")
        if scope != "*" and not is_group and not (found and _names_verb(registry, found[1], found[2])):
            raise Invalid(f"There is no scope {scope[:100]}.", code="unknown_scope", field="scopes")
    return sorted(set(scopes))


def _names_verb(registry: Registry, name: str, verb: str) -> bool:
    if name not in registry:
        return False
    resource = registry[name]
    named = {action.name for action in resource.actions} | {report.name for report in resource.reports}
    return verb in {"*", *resource.verbs, *named}


def _logged_in(call: Call) -> UUID:
    if call.principal.kind != "session" or call.member_id is None:
        raise Forbidden("Keys are made by a logged-in member, not by a key.", code="session_required")
    return call.member_id


async def _make(call: Call, row: ApiKey) -> KeyMade:
    secret = new_secret()
    row.key_id, row.secret_hash = new_key_id(), secret_hash("key", secret)
    call.session.add(row)
    await call.flush()
    return KeyMade(id=row.id, key_id=row.key_id, key=write_key("pk", row.key_id, secret), expires_at=row.expires_at)

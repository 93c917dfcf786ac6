"""Who plays in the tests, and how they are called for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import httpx
from click.testing import Result

from partywall import Tenant
from rowhouse.core.call import Call
from rowhouse.core.permissions import Principal

PASSWORD = "correct horse battery staple"

TenantMaker = Callable[[str], Awaitable[tuple[Tenant, Principal]]]


@dataclass(frozen=True)
class Person:
    """One of the cast: a member with a key of all scopes."""

    tenant: Tenant
    principal: Principal
    email: str
    key: str
    client: httpx.AsyncClient

    @property
    def id(self) -> str:
        return str(self.principal.member_id)


@dataclass(frozen=True)
class World:
    """Two tenants with mirrored casts, and somebody who belongs to neither."""

    tenant_a: Tenant
    tenant_b: Tenant
    people: dict[str, Person]
    stranger: httpx.AsyncClient


CallMaker = Callable[[Person], AbstractAsyncContextManager[Call]]
Command = Callable[..., Result]

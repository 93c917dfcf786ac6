"""A contender: the list of 50 accounts as an ordinary ORM program answers it.

The same edge, tenancy, look-ups, session, guard and policies as the product, but the route selects whole `Account`
objects and turns them into JSON with a Pydantic class, as most FastAPI programs do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from bench.serve_build import serve
from partywall.asgi import TenantMiddleware
from partywall.context import current_tenant
from rowhouse.api.edge import Edge, Seen
from rowhouse.app import resolver_config
from rowhouse.core.db import Database, open_database
from rowhouse.identity.directory import IdentityDirectory
from rowhouse.identity.provided import provide
from rowhouse.logs import configure_logs
from rowhouse.migrate import find_addresses
from rowhouse.modules.crm.models import Account
from rowhouse.settings import Settings


class AccountRead(BaseModel):
    """One account as the list answers it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    type: str
    industry: str | None
    website: str | None
    phone: str | None
    owner_user_id: UUID | None
    health_score: int | None
    created_at: datetime
    updated_at: datetime
    version: int


class AccountPage(BaseModel):
    """One page."""

    items: list[AccountRead]


def make_app() -> Any:
    """Return the application for the environment's settings."""
    settings = Settings()
    configure_logs(settings)
    provide(settings)
    addresses = find_addresses(settings)
    database = open_database(addresses.urls, addresses.roles, pool_size=settings.pool_size)
    directory = IdentityDirectory(database, settings)
    routes = Seen(_routes(database))
    config = resolver_config(settings)
    tenancy = TenantMiddleware(routes, directory=directory, config=config, authenticate=directory.authenticate)
    return Edge(tenancy, max_body_bytes=settings.max_body_bytes)


def _routes(database: Database) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await database.close()

    app = FastAPI(lifespan=lifespan)

    @app.get("/api/v1/accounts")
    async def accounts(request: Request, limit: int = 50) -> AccountPage:
        assert request.scope["partywall"].member is not None
        newest = select(Account).where(Account.archived_at.is_(None)).order_by(Account.created_at.desc(), Account.id.desc())
        async with database.tenant(current_tenant()) as session:
            rows = (await session.scalars(newest.limit(limit + 1))).all()
        return AccountPage(items=[AccountRead.model_validate(row) for row in rows[:limit]])

    return app


if __name__ == "__main__":
    serve("bench.orm_path:make_app")

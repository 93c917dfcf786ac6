"""Notes: Partywall under plain FastAPI and SQLAlchemy, without Rowhouse. Run it on an empty database of your own:

export NOTES_DATABASE_URL=postgresql+psycopg://postgres:…@localhost/notes; granian --interface asgi examples.notes:api
curl -H 'Host: acme.notes.localhost' -H 'Authorization: Bearer acme-key' http://127.0.0.1:8000/notes
"""

import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID, uuid5

from fastapi import Body, Depends, FastAPI, HTTPException, Request
from sqlalchemy import create_engine, make_url, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped

from partywall import AsyncTenantSession, Tenant, TenantScoped, classify
from partywall.asgi import TenantMiddleware
from partywall.resolve import Credential, Member, ResolverConfig
from partywall.rls import Roles, assert_role, create_roles, harden_database, protect_sql

OWNER_URL = make_url(os.environ["NOTES_DATABASE_URL"])
ROLES = Roles(app="notes_app", identity="notes_identity", operator="notes_operator")
PASSWORD = secrets.token_hex(16)  # Made anew at each start, which is enough for a single process.
engine = create_async_engine(OWNER_URL.set(username=ROLES.app, password=PASSWORD))
TENANTS = {slug: Tenant(uuid5(UUID(int=0), slug), slug) for slug in ("acme", "birch")}


class Base(DeclarativeBase):
    pass


class Note(TenantScoped, Base):
    __tablename__ = "note"
    words: Mapped[str]


class Directory:
    """Who may do what: the holder of the key "acme-key" is a member of acme, and of nothing else."""

    async def tenant_by_slug(self, slug: str) -> Tenant | None:
        return TENANTS.get(slug)

    async def tenant_by_domain(self, domain: str) -> Tenant | None:
        return None

    async def tenant_by_id(self, tenant_id: UUID) -> Tenant | None:
        return next((tenant for tenant in TENANTS.values() if tenant.id == tenant_id), None)

    async def memberships(self, credential: Credential) -> Sequence[UUID]:
        return [credential.subject_id]

    async def member(self, credential: Credential, tenant_id: UUID) -> Member | None:
        return Member(credential.subject_id, tenant_id, "owner") if tenant_id == credential.subject_id else None


async def authenticate(scope: Any) -> Credential | None:
    key = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
    tenant = TENANTS.get(key.removesuffix("-key")) if key.endswith("-key") else None
    return Credential("personal_key", tenant.id, tenant.id) if tenant else None


@asynccontextmanager
async def prepare(_: FastAPI) -> AsyncIterator[None]:
    owner = create_engine(OWNER_URL)
    with owner.begin() as connection:
        create_roles(connection, ROLES, dict.fromkeys(ROLES.login(), PASSWORD))
        harden_database(connection, ROLES)
        Base.metadata.create_all(connection)
        for statement in (each for found in classify(Base.registry).values() for each in protect_sql(found, ROLES)):
            connection.exec_driver_sql(statement)
    owner.dispose()
    async with engine.connect() as connection:
        await connection.run_sync(assert_role, ROLES.app)
    yield
    await engine.dispose()


async def tenant_session(request: Request) -> AsyncIterator[AsyncTenantSession]:
    # A host alone names a tenant for its log-in page; whoever wants rows must be a member.
    if request.scope["partywall"].member is None:
        raise HTTPException(401)
    async with AsyncTenantSession(engine) as session:
        yield session


Session = Annotated[AsyncTenantSession, Depends(tenant_session)]
CONFIG = ResolverConfig(base_domains=("notes.localhost",))
api = FastAPI(lifespan=prepare)
api.add_middleware(TenantMiddleware, directory=Directory(), config=CONFIG, authenticate=authenticate)


@api.get("/notes")
async def list_notes(session: Session) -> list[str]:
    return list(await session.scalars(select(Note.words).order_by(Note.id)))


@api.post("/notes", status_code=201)
async def add_note(session: Session, words: Annotated[str, Body(embed=True)]) -> UUID:
    note = Note(words=words)
    session.add(note)
    await session.commit()
    return note.id

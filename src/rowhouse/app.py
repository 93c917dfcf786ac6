"""The web application: edge, tenancy, routes. A composition root."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI

from partywall.asgi import Answer, Refusal, problem_answer
from partywall.errors import ResolutionError
from partywall.resolve import Refused, ResolverConfig
from rowhouse import __version__
from rowhouse.api import openapi, problems, searching, session, system
from rowhouse.api.dispatch import Dispatch
from rowhouse.api.edge import Edge, Seen
from rowhouse.api.fairness import Fairness
from rowhouse.api.placing import LIFE_S, Placing
from rowhouse.api.requests import Api
from rowhouse.api.routes import build_router, build_routes
from rowhouse.core.db import Database, open_database
from rowhouse.core.errors import RowhouseError
from rowhouse.core.resource import Registry
from rowhouse.identity.announce import Listener
from rowhouse.identity.directory import IdentityDirectory
from rowhouse.identity.provided import provide
from rowhouse.identity.remembered import Remembered
from rowhouse.identity.sightings import Sightings
from rowhouse.logs import configure_logs
from rowhouse.migrate import find_addresses
from rowhouse.pipeline import conninfo_of
from rowhouse.registry import build_registry
from rowhouse.settings import Settings
from rowhouse.values.cursors import Cursors

_log = structlog.get_logger()


def create_app(settings: Settings, database: Database, registry: Registry | None = None, *, listen_url: str | None = None) -> Any:
    """Return the ASGI application on an open database.

    listen_url: of the identity role, past any pooler; without it nothing is remembered for longer than 0.4 s.
    The start-up refuses a database role that could bypass the policies (UnsafeRole).
    """
    provide(settings)
    directory = IdentityDirectory(database, settings)
    places = Remembered(LIFE_S, told_life_s=LIFE_S)
    listener = Listener(conninfo_of(listen_url), (places, directory.remembered)) if listen_url is not None else None
    running: list[Listener | Sightings] = [directory.sightings, *([listener] if listener is not None else [])]
    routes = _routes(Api(database, registry or build_registry(), settings, Cursors(settings.secret)), running)
    tenancy = Placing(
        Seen(_fair(settings, routes)),
        directory=directory,
        config=resolver_config(settings),
        authenticate=directory.authenticate,
        open_paths=system.OPEN_PATHS,
        on_refusal=_count_refusal,
        problem=_refused,
    )
    tenancy.remembered = places
    return Edge(tenancy, max_body_bytes=settings.max_body_bytes)


def make_app() -> Any:
    """Return the application for the environment's settings; the server's worker processes call this."""
    settings = Settings()
    configure_logs(settings)
    addresses = find_addresses(settings)
    database = open_database(
        addresses.urls,
        addresses.roles,
        pool_size=settings.pool_size,
        prepare=addresses.may_prepare,
        replica=addresses.replica,
    )
    return create_app(settings, database, listen_url=addresses.direct["identity"])


def resolver_config(settings: Settings) -> ResolverConfig:
    """Return the kernel's part of the settings."""
    return ResolverConfig(
        base_domains=settings.base_domains,
        trusted_proxies=settings.trusted_proxies,
        default_tenant_slug=settings.default_tenant,
    )


def _fair(settings: Settings, routes: Any) -> Fairness:
    # As many requests as there are connections: one more would only wait for the pool, where nobody takes turns.
    return Fairness(
        routes,
        slots=settings.pool_size,
        share=settings.tenant_share_pct / 100,
        tenant_rate=_of_process(settings.tenant_requests_per_minute, settings),
        caller_rate=_of_process(settings.caller_requests_per_minute, settings),
    )


def _of_process(limit: int, settings: Settings) -> int:
    return -(-limit // settings.web_processes)


def _routes(api: Api, running: Sequence[Listener | Sightings]) -> Dispatch:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await api.database.check_roles()
        for part in running:
            part.start()
        _settle()
        yield
        for part in running:
            await part.stop()
        await api.database.close()

    app = FastAPI(
        title="Rowhouse",
        version=__version__,
        description="A multi-tenant CRM. A workspace is chosen by host, by key or by X-Tenant-ID among your own.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.api = api
    problems.install(app)
    app.include_router(system.router)
    app.include_router(session.router, prefix="/api/v1")
    app.include_router(searching.router, prefix="/api/v1")
    routes = build_routes(api.registry)
    app.include_router(build_router(routes), prefix="/api/v1", include_in_schema=False)
    plain = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi.complete(api.registry, plain())
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    return Dispatch(app, routes, prefix="/api/v1")


def _settle() -> None:
    """Tell the garbage collector that what was made up to now stays, and not to look after every few hundred objects.

    Going through mappers, routes and schemas again and again took about a twentieth of a web process's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _refused(error: ResolutionError, scope: Any) -> Answer:
    """Return the kernel's answer; for refusals of our own authenticator with the text that says the way out."""
    if isinstance(error, Refused):
        return problem_answer(error, scope)
    found = problems.answer(_Credential(error.status, error.code, str(error)))
    return error.status, [*found.raw_headers, (b"vary", b"Authorization, Cookie, X-Tenant-ID")], bytes(found.body)


class _Credential(RowhouseError):
    """A credential that was refused before a workspace was looked for."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message, code=code)
        self.status = status  # type: ignore[misc]  # the kernel decides it


def _count_refusal(refusal: Refusal) -> None:
    system.REFUSALS.labels(refusal.code, refusal.conflict).inc()
    # The host is what a stranger sent, so it is quoted and cut.
    _log.warning("tenant_refused", code=refusal.code, conflict=refusal.conflict, hosts=repr(refusal.facts.hosts)[:200])

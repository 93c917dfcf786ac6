"""Routes of the person behind a request: log-in, workspaces, sessions, password, invitations. Hand-written, few."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_jsonable_python
from starlette.datastructures import MutableHeaders

from partywall.resolve import Credential
from rowhouse import clock
from rowhouse.api.requests import api_of, check_csrf, json_answer, plain_params, read_body, resolution_of, row_id_of
from rowhouse.core.errors import Forbidden, Unauthenticated
from rowhouse.core.operations import parse
from rowhouse.core.resource import Input
from rowhouse.identity import people, sessions
from rowhouse.identity.directory import principal_of
from rowhouse.identity.invitations import Acceptance, accept_invitation
from rowhouse.identity.origin import is_cross_site
from rowhouse.identity.sessions import Client, LoggedIn, LogIn, PasswordChange
from rowhouse.identity.tokens import clear_cookie, set_cookie

router = APIRouter(tags=["session"])


class _Raw(BaseModel):
    """A body that holds a secret: it is taken as it was typed."""

    model_config = ConfigDict(extra="forbid")


class Credentials(_Raw):
    """An address and a password."""

    email: str = Field(max_length=254)
    password: str = Field(max_length=200)


class Choice(Input):
    """The workspace to move to."""

    tenant_id: UUID


class NewPassword(_Raw):
    """The password in use, and the one to use from now on."""

    current: str = Field(max_length=200)
    new: str = Field(max_length=200)


class Accepted(_Raw):
    """An invitation's token; name and password for a person who is new here."""

    token: str = Field(max_length=200)
    name: str | None = Field(default=None, max_length=200)
    password: str | None = Field(default=None, max_length=200)


def _described(body: type[BaseModel] | None = None, *, status: str = "200", public: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"responses": {status: {"description": "Done"}}}
    if body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body.model_json_schema()}}}
    return {**found, "security": []} if public else found


@router.post("/session", openapi_extra=_described(Credentials, public=True))
async def log_in(request: Request) -> Response:
    """Log in with an address and a password; sets the session cookie and returns the CSRF token for changes."""
    plain_params(request, frozenset())
    given = parse(Credentials, await read_body(request))
    _refuse_cross_site(request)
    api = api_of(request)
    attempt = LogIn(given.email, given.password, resolution_of(request).tenant, _client(request))
    opened = await sessions.log_in(api.database, api.settings, attempt, now=clock.utc_now())
    return _opened(request, opened)


@router.get("/session", openapi_extra=_described())
async def whoami(request: Request) -> Response:
    """Return who is calling, in which workspace, as what, and the CSRF token of a cookie session."""
    plain_params(request, frozenset())
    credential, resolution = _credential(request), resolution_of(request)
    found: dict[str, Any] = {"kind": credential.kind, "subject_id": credential.subject_id, "tenant": None, "role": None}
    if resolution.tenant is not None and resolution.member is not None:
        principal = principal_of(credential, resolution.member)
        tenant = resolution.tenant
        found["tenant"] = {"id": tenant.id, "slug": tenant.slug, "name": tenant.name, "currency": tenant.currency}
        found |= {"role": principal.role, "capabilities": sorted(principal.capabilities)}
        found["scopes"] = sorted(principal.scopes) if principal.scopes is not None else None
    if credential.kind == "session":
        found["csrf_token"] = sessions.csrf_token(api_of(request).settings, credential)
    return json_answer(found)


@router.delete("/session", openapi_extra=_described(status="204"), status_code=204)
async def log_out(request: Request) -> Response:
    """End this session."""
    plain_params(request, frozenset())
    credential = _credential(request, "session")
    await sessions.log_out(api_of(request).database, credential, now=clock.utc_now())
    return Response(status_code=204, headers={"set-cookie": clear_cookie(), "clear-site-data": '"cache"'})


@router.post("/session/tenant", openapi_extra=_described(Choice))
async def switch(request: Request) -> Response:
    """Move to another of one's workspaces: the session is replaced by a new one bound to it."""
    plain_params(request, frozenset())
    credential, api = _credential(request, "session"), api_of(request)
    chosen = parse(Choice, await read_body(request))
    opened = await sessions.switch_tenant(
        api.database, api.settings, credential, chosen.tenant_id, client=_client(request), now=clock.utc_now()
    )
    answer = _opened(request, opened)
    answer.headers["clear-site-data"] = '"cache"'
    return answer


@router.post("/session/password", openapi_extra=_described(NewPassword, status="204"), status_code=204)
async def change_password(request: Request) -> Response:
    """Change one's password; every other session ends."""
    plain_params(request, frozenset())
    credential = _credential(request, "session")
    given = parse(NewPassword, await read_body(request))
    change = PasswordChange(given.current, given.new, _client(request))
    await sessions.change_password(api_of(request).database, credential, change, now=clock.utc_now())
    return Response(status_code=204)


@router.get("/sessions", openapi_extra=_described())
async def list_sessions(request: Request) -> Response:
    """Return one's open sessions, the current one marked."""
    plain_params(request, frozenset())
    credential = _credential(request, "session")
    found = await sessions.list_sessions(api_of(request).database, credential.subject_id, now=clock.utc_now())
    lines = [{**to_jsonable_python(line), "current": line.id == credential.credential_id} for line in found]
    return json_answer({"items": lines})


@router.delete("/sessions/{id}", openapi_extra=_described(status="204"), status_code=204)
async def revoke_session(request: Request) -> Response:
    """End one of one's sessions, within a second."""
    plain_params(request, frozenset())
    credential = _credential(request, "session")
    session_id = row_id_of(request)
    await sessions.revoke_session(api_of(request).database, credential.subject_id, session_id, now=clock.utc_now())
    return Response(status_code=204)


@router.get("/workspaces", openapi_extra=_described())
async def list_workspaces(request: Request) -> Response:
    """Return the workspaces one is a member of."""
    plain_params(request, frozenset())
    credential = _credential(request, "session")
    async with api_of(request).database.people() as session:
        found = await people.workspaces(session, credential.subject_id)
    return json_answer({"items": to_jsonable_python(found)})


@router.post("/invitations/accept", openapi_extra=_described(Accepted, status="204", public=True), status_code=204)
async def accept(request: Request) -> Response:
    """Join a workspace with an invitation's token."""
    plain_params(request, frozenset())
    given = parse(Accepted, await read_body(request))
    _refuse_cross_site(request)
    credential = resolution_of(request).credential
    if credential is not None:
        check_csrf(request)
    user_id = credential.subject_id if credential is not None and credential.kind == "session" else None
    acceptance = Acceptance(
        given.token, user_id=user_id, name=given.name or "", password=given.password or "", client=_client(request)
    )
    await accept_invitation(api_of(request).database, acceptance, now=clock.utc_now())
    return Response(status_code=204)


def _credential(request: Request, kind: str = "") -> Credential:
    credential = resolution_of(request).credential
    if credential is None or (kind and credential.kind != kind):
        raise Unauthenticated("Sign in with a password first." if kind else "Sign in, or send a key.")
    check_csrf(request)
    return credential


def _opened(request: Request, opened: LoggedIn) -> Response:
    credential = Credential("session", opened.user_id, opened.session_id, opened.tenant_id)
    answer = json_answer(
        {
            "user_id": opened.user_id,
            "tenant_id": opened.tenant_id,
            "expires_at": opened.expires_at,
            "csrf_token": sessions.csrf_token(api_of(request).settings, credential),
            "workspaces": to_jsonable_python(opened.workspaces),
        }
    )
    headers: MutableHeaders = answer.headers
    headers["set-cookie"] = set_cookie(opened.cookie)
    return answer


def _refuse_cross_site(request: Request) -> None:
    # A foreign page must not be able to log its visitor into the attacker's account.
    if is_cross_site(request.scope, resolution_of(request).host):
        raise Forbidden("Log in from a page of this site.", code="csrf_failed")


def _client(request: Request) -> Client:
    return Client(request.client.host if request.client else "", request.headers.get("user-agent", "")[:300])

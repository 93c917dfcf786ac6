"""TenantMiddleware: resolves each request, answers the refused ones, and runs the others in their tenant's scope."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from partywall.context import current_system_scope, has_tenant_context, tenant_scope
from partywall.errors import NoTenant, PartywallError, ResolutionError, TenantMismatch
from partywall.resolve import (
    REFUSALS,
    Credential,
    Directory,
    Refused,
    RequestFacts,
    Resolution,
    ResolverConfig,
    request_host,
    resolve,
)

# ASGI leaves the values of scopes and messages open.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Authenticate = Callable[[Scope], Awaitable[Credential | None]]
Header = tuple[bytes, bytes]
Answer = tuple[int, list[Header], bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused request, for the log and the counter; none of it is answered to the caller.

    conflict: the two sources that disagree, such as "host/credential", or empty.  facts: as sent, so quote them.
    """

    code: str
    status: int
    conflict: str
    path: str
    facts: RequestFacts
    credential: Credential | None


class TenantMiddleware:
    """Run the app for the tenant of each request; it finds the Resolution in scope["partywall"].

    open_paths: exact paths that are neither resolved nor given a tenant, such as /healthz.
    authenticate: proves the caller's credential, None for an anonymous one; may raise ResolutionError.
    problem: makes the answer to a refused HTTP request in place of `problem_answer`.
    Server settings that rewrite the client's address from a header must be off: trusted_proxies judges that address.
    """

    def __init__(
        self,
        app: App,
        *,
        directory: Directory,
        config: ResolverConfig,
        authenticate: Authenticate,
        open_paths: frozenset[str] = frozenset(),
        on_refusal: Callable[[Refusal], None] | None = None,
        problem: Callable[[ResolutionError, Scope], Answer] | None = None,
    ) -> None:
        self.app = app
        self.directory = directory
        self.config = config
        self.authenticate = authenticate
        self.open_paths = open_paths
        self.on_refusal = on_refusal
        self.problem = problem or problem_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            raise PartywallError(f"cannot resolve a connection of type {scope['type']}; serve http and websocket only")
        if scope["path"] in self.open_paths:
            await self._run(None, scope, receive, send)
            return
        try:
            resolution = await self.place(scope)
        except ResolutionError as error:
            await self._refuse(error, scope, send)
            return
        await self._run(resolution, scope, receive, send)

    async def place(self, scope: Scope) -> Resolution:
        """Return where a request belongs; a refusal is reported and raised."""
        facts = request_facts(scope)
        credential = None
        try:
            # A malformed host is refused before the authenticator spends a look-up on it.
            request_host(facts, self.config)
            credential = await self.authenticate(scope)
            return await resolve(facts, credential, self.directory, self.config)
        except (ResolutionError, TenantMismatch) as error:
            self._report(error, scope, facts, credential)
            raise

    def _report(
        self,
        error: ResolutionError | TenantMismatch,
        scope: Scope,
        facts: RequestFacts,
        credential: Credential | None,
    ) -> None:
        if self.on_refusal is None:
            return
        code, status = (error.code, error.status) if isinstance(error, ResolutionError) else ("tenant_mismatch", 500)
        conflict = error.conflict if isinstance(error, Refused) else ""
        self.on_refusal(Refusal(code, status, conflict, scope["path"], facts, credential))

    async def _refuse(self, error: ResolutionError, scope: Scope, send: Send) -> None:
        if scope["type"] == "websocket":
            # Closed before it was accepted: the server answers 403, or the code where the extension allows it.
            await send({"type": "websocket.close", "code": 4000 + error.status, "reason": error.code})
            return
        status, headers, body = self.problem(error, scope)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _run(self, resolution: Resolution | None, scope: Scope, receive: Receive, send: Send) -> None:
        # A copy, as ASGI asks, so that a resolution never outlives the call in a scope somebody keeps.
        inner = {key: value for key, value in scope.items() if key != "partywall"}
        if resolution is not None:
            inner["partywall"] = resolution
        if resolution is None or resolution.tenant is None:
            _require_no_scope()
            await self.app(inner, receive, send)
            return
        with tenant_scope(resolution.tenant):
            await self.app(inner, receive, send)


def request_facts(scope: Scope) -> RequestFacts:
    """Return what an ASGI scope says about its request's host, peer and chosen tenant."""
    values: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        # Bytes that are not UTF-8 become backslashes, which no host has and every log can write.
        values.setdefault(name.lower(), []).append(value.decode("utf-8", "backslashreplace"))
    client = scope.get("client")
    return RequestFacts(
        hosts=tuple(values.get(b"host", ())),
        forwarded_hosts=tuple(values.get(b"x-forwarded-host", ())),
        forwarded_protos=tuple(values.get(b"x-forwarded-proto", ())),
        peer=client[0] if client else None,
        tenant_header=tuple(values.get(b"x-tenant-id", ())),
        scheme=scope.get("scheme", "http"),
    )


def problem_answer(error: ResolutionError, scope: Scope) -> Answer:
    """Return the RFC 9457 answer to a refusal: status, headers, body.

    Made of the status and the code alone, so that equal refusals are equal bytes and nothing of the request is echoed.
    """
    title = HTTPStatus(error.status).phrase
    detail = REFUSALS[error.code][1] if error.code in REFUSALS else title
    document = {"type": "about:blank", "title": title, "status": error.status, "code": error.code, "detail": detail}
    body = json.dumps(document).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"vary", b"Authorization, Cookie, X-Tenant-ID"),
    ]
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    return error.status, headers, body


def _require_no_scope() -> None:
    """Refuse to run tenant-less work in a scope that whoever started the server left open."""
    if has_tenant_context():
        raise TenantMismatch("a tenant scope is active around the server; start the server outside every scope")
    try:
        reason = current_system_scope().reason
    except NoTenant:
        return
    raise TenantMismatch(f"a system scope ({reason}) is active around the server; start it outside every scope")

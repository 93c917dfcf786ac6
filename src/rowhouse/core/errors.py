"""Errors a caller can act on. The class decides the HTTP status; the code is stable; the message says the way out.

RowhouseError
├── Unauthenticated 401   ├── NotFound 404      ├── Invalid 422          ├── TooLarge 413
├── Forbidden 403         ├── Conflict 409      │   └── ReferenceNotFound ├── TooMany 429
├── BadRequest 400        │   └── StaleVersion  └── Locked 423            └── Unavailable 503
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the input: the field (dotted), a stable code, and what to do."""

    field: str
    code: str
    message: str


class RowhouseError(Exception):
    """Base of every error that is an answer, not a defect."""

    status: ClassVar[int] = 500
    code: str = "internal_error"

    def __init__(
        self, message: str, *, code: str = "", field: str = "", faults: tuple[Fault, ...] = (), retry_after_s: int = 0
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.faults = faults or ((Fault(field, self.code, message),) if field else ())
        self.retry_after_s = retry_after_s


class BadRequest(RowhouseError):
    """The request cannot be read at all."""

    status, code = 400, "bad_request"


class Unauthenticated(RowhouseError):
    """No valid credential came with the request."""

    status, code = 401, "authentication_required"


class Forbidden(RowhouseError):
    """The caller may see the thing but not do this to it."""

    status, code = 403, "permission_denied"


class NotFound(RowhouseError):
    """There is no such thing here. A row of another tenant is NotFound too, with the same words."""

    status, code = 404, "not_found"

    def __init__(self, message: str = "No such record in this workspace.", **rest: str) -> None:
        super().__init__(message, **rest)  # type: ignore[arg-type]


class Conflict(RowhouseError):
    """The thing is in a state that forbids this, or would be a duplicate."""

    status, code = 409, "conflict"


class StaleVersion(Conflict):
    """Somebody else changed the record since it was read."""

    code = "stale_version"

    def __init__(self, message: str = "The record changed since you read it; read it again and repeat the change.") -> None:
        super().__init__(message)


class TooLarge(RowhouseError):
    """The request body is larger than allowed."""

    status, code = 413, "body_too_large"


class Invalid(RowhouseError):
    """The input is well-formed and wrong."""

    status, code = 422, "invalid"


class ReferenceNotFound(Invalid):
    """An id in the input names nothing in this workspace."""

    code = "reference_not_found"

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} names no record in this workspace.", field=field)


class Locked(RowhouseError):
    """The workspace is suspended."""

    status, code = 423, "tenant_suspended"


class TooMany(RowhouseError):
    """A limit was reached; try again later."""

    status, code = 429, "too_many_requests"


class Unavailable(RowhouseError):
    """A part the request needs is not there now."""

    status, code = 503, "unavailable"

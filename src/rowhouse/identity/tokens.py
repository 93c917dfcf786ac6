"""Secrets: how they are made, written into keys and cookies, and compared. Only keyed hashes of them are stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal

from rowhouse.identity.provided import provided

COOKIE = "__Host-rowhouse"

Purpose = Literal["session", "key", "invitation", "csrf", "throttle"]
KeyKind = Literal["pk", "sk"]

_KEY = re.compile(r"rh_(pk|sk)_([a-z0-9]{16})_([A-Za-z0-9_-]{43})")
_COOKIE_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")
_KEY_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
# The longest a browser keeps a cookie; how long a log-in lives is decided by its row, which slides with use.
_COOKIE_AGE_S = 400 * 24 * 3600


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key as its holder sends it, taken apart."""

    kind: KeyKind
    key_id: str
    secret: str


def new_secret() -> str:
    """Return 256 random bits as 43 characters that are safe in cookies, headers and links."""
    return secrets.token_urlsafe(32)


def new_key_id() -> str:
    """Return the public part of a key: 16 characters, unique in the deployment for all practical purposes."""
    return "".join(secrets.choice(_KEY_ID_ALPHABET) for _ in range(16))


def secret_hash(purpose: Purpose, secret: str) -> bytes:
    """Return what is stored in place of a secret: HMAC-SHA256 under the deployment's own secret, one use apart from another."""
    return keyed_hash(provided().settings.secret, purpose, secret)


def keyed_hash(key: bytes, purpose: Purpose, text: str) -> bytes:
    """Return HMAC-SHA256 of a text for one purpose, under a key."""
    return hmac.digest(key, f"rowhouse {purpose}:{text}".encode(), hashlib.sha256)


def same(stored: bytes, offered: bytes) -> bool:
    """Return whether two hashes are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(stored, offered)


def write_key(kind: KeyKind, key_id: str, secret: str) -> str:
    """Return a key as it is shown, once, to its holder; its prefix lets scanners of leaked secrets recognise it."""
    return f"rh_{kind}_{key_id}_{secret}"


def read_key(text: str) -> KeyText | None:
    """Return the parts of a key, or None when it is not one."""
    found = _KEY.fullmatch(text)
    return KeyText("pk" if found[1] == "pk" else "sk", found[2], found[3]) if found else None


def is_cookie_value(text: str) -> bool:
    """Return whether a cookie could be one of ours; anything else is not looked up."""
    return _COOKIE_VALUE.fullmatch(text) is not None


def set_cookie(value: str) -> str:
    """Return the Set-Cookie header of a log-in. The __Host- prefix keeps a sibling subdomain from setting it."""
    return f"{COOKIE}={value}; Max-Age={_COOKIE_AGE_S}; Path=/; Secure; HttpOnly; SameSite=Lax"


def clear_cookie() -> str:
    """Return the Set-Cookie header that removes a log-in from the browser."""
    return f"{COOKIE}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"

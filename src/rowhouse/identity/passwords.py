"""Passwords: the rules a new one must meet, and hashing off the event loop."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

from rowhouse.core.errors import Invalid

_T = TypeVar("_T")

SHORTEST, LONGEST = 10, 200

# Those of ten and more characters among the passwords people choose most; shorter ones fail by length.
_COMMONEST_TEXT = """
1234567890 0123456789 0987654321 1234512345 1111111111 0000000000 9876543210 12345678910 123456789a 123456789q 1q2w3e4r5t
1qaz2wsx3edc q1w2e3r4t5 qwertyuiop qwerty12345 qwerty1234 qwerty123456 qwertyuiop123 asdfghjkl1 asdfghjkl; abcdefghij
abcd123456 abc1234567 abc123456789 password12 password123 password1234 password12345 passw0rd123 p@ssw0rd123 p@ssword123
letmein123 letmein1234 welcome123 welcome1234 iloveyou123 iloveyou12 football123 baseball123 superman123 princess123
sunshine123 changeme123 changeme1234 administrator admin12345 admin123456 adminadmin rootroot123 testtest123 test123456
secret1234 trustno1234 dragon12345 monkey12345 correcthorsebatterystaple
"""
_COMMONEST = frozenset(_COMMONEST_TEXT.split())
# Each hash takes 64 MiB for some 50 ms; more of them at once would only let log-ins starve everything else.
_WORKERS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="password")
_HASHER = PasswordHash((Argon2Hasher(),))


def check_password(password: str, *, email: str, field: str = "password") -> None:
    """Raise Invalid unless a new password is 10 to 200 characters, not the address, and not among the commonest."""
    plain = _normal(password)
    if not SHORTEST <= len(plain) <= LONGEST:
        raise Invalid(f"A password has {SHORTEST} to {LONGEST} characters.", code="password_length", field=field)
    lowered = plain.casefold()
    if lowered in (email.casefold(), email.partition("@")[0].casefold()) or len(set(lowered)) < 3 or lowered in _COMMONEST:
        raise Invalid("This password is too easy to guess; use a sentence of your own.", code="password_weak", field=field)


async def hash_password(password: str) -> str:
    """Return the argon2id hash of a password."""
    return await _in_thread(lambda: _HASHER.hash(_normal(password)))


async def verify_password(password: str, stored: str | None) -> tuple[bool, str | None]:
    """Return whether the password is right, and a new hash when the stored one's parameters are outdated.

    stored: None for an unknown person or one without password; the work is the same and the answer is no.
    """

    def verify() -> tuple[bool, str | None]:
        if stored is None:
            _HASHER.verify(_normal(password), _nobodys_hash())
            return False, None
        try:
            return _HASHER.verify_and_update(_normal(password), stored)
        except UnknownHashError:
            return False, None

    # A longer one cannot have been set, and hashing megabytes is work an attacker would like us to do.
    return await _in_thread(verify) if len(password) <= 4 * LONGEST else (False, None)


async def _in_thread(work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(_WORKERS, work)


@cache
def _nobodys_hash() -> str:
    return _HASHER.hash("nobody has this password")


def _normal(password: str) -> str:
    return unicodedata.normalize("NFC", password)

"""Doing many things in one transaction, and finding the guilty ones when it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from sqlalchemy.exc import DataError, IntegrityError

from rowhouse.core.call import Call
from rowhouse.core.errors import Conflict, RowhouseError

OpenCall = Callable[[], AbstractAsyncContextManager[Call]]
_T = TypeVar("_T")


async def in_halves(
    items: Sequence[_T], attempt: Callable[[Sequence[_T]], Awaitable[None]], give_up: Callable[[_T, RowhouseError], None]
) -> None:
    """Attempt all items at once; when that fails, each half by itself, down to single items, which are given up.

    attempt: opens a transaction of its own, so that what failed leaves nothing behind.  A rule the database checks at
    commit is met this way too, which savepoints would miss.
    """
    if not items:
        return
    try:
        await attempt(items)
    except (RowhouseError, IntegrityError, DataError) as error:
        if len(items) == 1:
            give_up(items[0], _answer(error))
            return
        middle = len(items) // 2
        await in_halves(items[:middle], attempt, give_up)
        await in_halves(items[middle:], attempt, give_up)


def _answer(error: Exception) -> RowhouseError:
    if isinstance(error, RowhouseError):
        return error
    return Conflict("The record breaks a rule of the database together with others.", code="rule_broken")

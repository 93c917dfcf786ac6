"""What the composition root provides to this package, once at start: the settings, and who answers DNS questions.

Operations on keys, invitations and domains are reached through a `Call`, which carries neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from rowhouse.identity.dns import DnsTxtResolver, TxtResolver
from rowhouse.settings import Settings


@dataclass(frozen=True, slots=True)
class Provided:
    """The settings in force and the resolver that proves domains."""

    settings: Settings
    txt: TxtResolver


_provided: list[Provided] = []


def provide(settings: Settings, *, txt: TxtResolver | None = None) -> None:
    """Set what this process works with; app, worker, CLI and tests call it before anything else of this package."""
    _provided[:] = [Provided(settings, txt or DnsTxtResolver())]


def provided() -> Provided:
    """Return what was provided.  Raises RuntimeError before `provide`."""
    if not _provided:
        raise RuntimeError("rowhouse.identity has no settings; call rowhouse.identity.provided.provide(settings) at start")
    return _provided[0]

"""The command line of the benchmark's own builds of the server: the arguments of `rowhouse serve`, another factory."""

from __future__ import annotations

import argparse

from granian import Granian
from granian.constants import Interfaces


def serve(factory: str) -> None:
    """Serve an ASGI factory ("module:function") as `rowhouse serve` serves the product's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    Granian(
        factory,
        address="127.0.0.1",
        port=chosen.port,
        interface=Interfaces.ASGI,
        workers=chosen.workers,
        factory=True,
        log_level="warning",  # type: ignore[arg-type]  # the enumeration's own text
        backlog=1024,
    ).serve()

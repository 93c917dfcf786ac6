"""Whether a browser says that a request was started by another site; for log-in forms and sockets, which have no token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


def is_cross_site(scope: Mapping[str, Any], host: str) -> bool:
    """Return whether a browser names another origin than `host`, a sibling subdomain included.

    host: as `Resolution.host`, without port.  False for callers that send neither Sec-Fetch-Site nor Origin: no browser.
    """
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    fetched_from = headers.get(b"sec-fetch-site")
    if fetched_from is not None:
        return fetched_from not in ("same-origin", "none")
    origin = headers.get(b"origin")
    return origin is not None and urlsplit(origin).hostname != host

"""Health, readiness and metrics: for the machines around the program, not for tenants.

Several web processes keep their counts in files of one folder, and whichever is asked for /metrics adds them up.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from rowhouse.api.requests import api_of, json_answer

# The name is prometheus_client's; set before a process starts, and only where there are several.
COUNTS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
REQUESTS = Counter("rowhouse_requests_total", "Requests answered.", ["method", "route", "status"])
SECONDS = Histogram("rowhouse_request_seconds", "Time from the first byte in to the last byte out.", ["method", "route"])
REFUSALS = Counter("rowhouse_tenant_refusals_total", "Requests refused before a workspace was entered.", ["code", "conflict"])
WAITED = Counter("rowhouse_requests_waited_total", "Requests that waited for their turn.", ["who"])
REFUSED = Counter("rowhouse_requests_refused_total", "Requests refused or given up before they ran.", ["kind"])

router = APIRouter()


@router.get("/healthz", include_in_schema=False)
async def healthz() -> Response:
    """Answer that the process is alive."""
    return json_answer({"status": "ok"})


@router.get("/readyz", include_in_schema=False)
async def readyz(request: Request) -> Response:
    """Answer whether the database answers."""
    try:
        async with api_of(request).database.identity.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError):
        return json_answer({"status": "unavailable", "what": "database"}, 503)
    return json_answer({"status": "ready"})


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Answer in Prometheus' text format, to the networks that may read it; others see nothing there."""
    peer = request.client.host if request.client else ""
    if not _allowed(peer, request):
        return Response(status_code=404)
    return Response(_counts(), media_type=CONTENT_TYPE_LATEST)


def _counts() -> bytes:
    folder = os.environ.get(COUNTS_FOLDER)
    if folder is None:
        return generate_latest()
    for path in Path(folder).glob("gauge_live*.db"):
        # A process that was killed no longer holds what it last said it held; what it counted stays counted.
        pid = re.search(r"_(\d+)\.db$", path.name)
        if pid and not _is_alive(int(pid[1])):
            mark_process_dead(int(pid[1]), folder)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _allowed(peer: str, request: Request) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    # A proxy's own address would open the figures to everyone behind it.
    forwarded = "x-forwarded-for" in request.headers or "forwarded" in request.headers
    return not forwarded and any(address in network for network in api_of(request).settings.metrics_networks)

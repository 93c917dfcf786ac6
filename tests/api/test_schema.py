"""The API fuzzed from its own OpenAPI document, against the real server, by two tenants."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cast import Person
from rowhouse.settings import Settings
from rows import Rows

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = int(os.environ.get("ROWHOUSE_FUZZ_EXAMPLES", "5"))
# These would end the fuzzer's own credential.
OWN_CREDENTIAL = {"/api/v1/api-keys/{id}", "/api/v1/api-keys/{id}/archive"}


@pytest.fixture(scope="module")
def server(settings: Settings, rows_a: Rows, rows_b: Rows) -> Iterator[str]:
    """A real server process on the tests' database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert settings.database_url is not None
    assert settings.secret_key is not None
    environment = {
        **os.environ,
        "DATABASE_URL": settings.database_url,
        "ROWHOUSE_SECRET_KEY": settings.secret_key.get_secret_value(),
        "ROWHOUSE_LOG_LEVEL": "error",
    }
    command = [sys.executable, "-m", "rowhouse", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        _await(f"{address}/readyz", process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.05)


def document(server: str, person: Person) -> dict[str, Any]:
    request = urllib.request.Request(f"{server}/api/v1/openapi.json", headers=headers_of(person))
    with urllib.request.urlopen(request) as answer:
        return dict(json.loads(answer.read()))


def headers_of(person: Person) -> dict[str, str]:
    return {"Host": f"{person.tenant.slug}.localhost", "Authorization": f"Bearer {person.key}"}


@pytest.mark.parametrize("who", ["owner_a", "owner_b"])
def test_no_operation_answers_5xx_or_undocumented(server: str, world: Any, who: str) -> None:
    person: Person = world.people[who]
    schema = schemathesis.openapi.from_dict(document(server, person))
    tried, failures = 0, []
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path in OWN_CREDENTIAL:
            continue
        tried += 1
        try:
            _fuzz(operation, server, person)
        except Exception as error:
            failures.append(f"{operation.method.upper()} {operation.path}: {error}"[:1500])
    assert not failures, "\n\n".join(failures)
    assert tried > 80


def _fuzz(operation: Any, server: str, person: Person) -> None:
    @given(case=operation.as_strategy())
    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def one(case: Any) -> None:
        case.call_and_validate(base_url=server, headers=headers_of(person), checks=CHECKS, timeout=20)

    one()

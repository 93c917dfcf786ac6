"""The command line, on the tests' database."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from cast import PASSWORD, Command
from rowhouse.cli import app as commands
from rowhouse.core.errors import Conflict, Invalid, NotFound


def new_workspace(command: Command) -> str:
    slug = f"cli-{secrets.token_hex(3)}"
    command("tenant", "create", slug, "--name", "Command Line", "--owner-email", f"o@{slug}.example", "--password", PASSWORD)
    return slug


def test_a_workspace_is_opened_listed_suspended_and_resumed(command: Command) -> None:
    slug = new_workspace(command)
    assert slug in {line["slug"] for line in json.loads(command("tenant", "list", "--json").stdout)}
    command("tenant", "suspend", slug, "--reason", "unpaid since spring")
    shown = json.loads(command("tenant", "show", slug, "--json").stdout)
    assert shown[0]["status"] == "SUSPENDED"
    command("tenant", "suspend", slug, "--reason", "twice", fails=Conflict)
    command("tenant", "resume", slug, "--reason", "paid")
    assert json.loads(command("tenant", "show", slug, "--json").stdout)[0]["status"] == "ACTIVE"


def test_an_unknown_workspace_is_said_by_name(command: Command) -> None:
    result = command("user", "list", "--tenant", "nobody-here", fails=NotFound)
    assert "nobody-here" in str(result.exception)


def test_a_command_on_data_needs_its_workspace(command: Command) -> None:
    result = CliRunner().invoke(commands, ["export", "x.csv", "--resource", "accounts"])
    assert result.exit_code == 2
    assert "--tenant" in result.output


async def test_a_key_made_on_the_command_line_works(command: Command, app: object) -> None:
    # The command runs a loop of its own, so it runs beside this one.
    slug, key = await _in_thread(lambda: _key(command))
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{slug}.localhost") as client:
        answer = await client.get("/api/v1/session", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200
    assert answer.json()["tenant"]["slug"] == slug


def _key(command: Command) -> tuple[str, str]:
    slug = new_workspace(command)
    key = command("key", "create", "--tenant", slug, "--member", f"o@{slug}.example").stdout.strip()
    return slug, key


async def _in_thread(work: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    return await asyncio.to_thread(work)


def test_an_import_can_be_tried_done_repeated_exported_and_undone(command: Command, tmp_path: Path) -> None:
    slug = new_workspace(command)
    source = tmp_path / "companies.csv"
    source.write_text("Company;Website\nÄpfel & Söhne;https://aepfel.example\n=2+3;https://formula.example\n", encoding="cp1252")
    words = ("import", str(source), "--tenant", slug, "--resource", "accounts", "--map", "Company=name", "--json")
    tried = json.loads(command(*words, "--dry-run").stdout.splitlines()[-1])
    done = json.loads(command(*words).stdout.splitlines()[-1])
    again = json.loads(command(*words).stdout.splitlines()[-1])
    assert (tried["created"], done["created"], again["created"], again["unchanged"]) == (2, 2, 0, 2)
    target = tmp_path / "out.csv"
    command("export", str(target), "--tenant", slug, "--resource", "accounts", "--fields", "name,website")
    lines = target.read_text("utf-8").splitlines()
    assert "'=2+3,https://formula.example" in lines
    assert "Äpfel & Söhne,https://aepfel.example" in lines
    command("undo", done["batch_id"], "--tenant", slug)
    left = tmp_path / "left.csv"
    command("export", str(left), "--tenant", slug, "--resource", "accounts", "--fields", "name")
    assert left.read_text().splitlines() == ["name"]


def test_a_file_that_is_no_table_is_refused(command: Command, tmp_path: Path) -> None:
    slug = new_workspace(command)
    source = tmp_path / "picture.csv"
    source.write_bytes(b"\x89PNG\r\n" + bytes(100))
    result = command("import", str(source), "--tenant", slug, "--resource", "accounts", fails=Invalid)
    assert "picture" in str(result.exception)


def test_verify_prints_every_table_and_exits_0(command: Command) -> None:
    found = json.loads(command("verify", "--json").stdout)
    assert found["ok"]
    assert {"account", "membership", "app_user"} <= {line["table"] for line in found["tables"]}
    assert "Every table holds" in command("verify").stdout


@pytest.mark.parametrize("what", ["resources", "routes", "settings"])
def test_show_tells_what_there_is(command: Command, what: str) -> None:
    rows = json.loads(command("show", what, "--json").stdout)
    assert len(rows) > 10

"""Ways in that an adversarial review found, each with what now stops it."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from cast import CallMaker, Person
from rowhouse.api.edge import Edge
from rowhouse.commands.serving import _only_one
from rowhouse.core.errors import Forbidden, Invalid
from rowhouse.core.resource import Registry
from rowhouse.identity.keys import NewKey, create_key
from rowhouse.identity.members import NewMember, add_member
from rowhouse.settings import Settings
from rowhouse.transfer import batches
from rowhouse.transfer.sources import open_source


async def key_of(person: Person, call_as: CallMaker, scopes: list[str]) -> dict[str, str]:
    async with call_as(person) as call:
        made = await create_key.run(call, NewKey(name="narrow", scopes=scopes))
    return {"authorization": f"Bearer {made.key}"}


async def test_a_narrower_key_is_not_told_what_a_wider_one_was_answered(owner_a: Person, call_as: CallMaker) -> None:
    once = {"idempotency-key": f"review-{uuid.uuid4()}"}
    body = {"name": "Seen by the wide key"}
    assert (await owner_a.client.post("/api/v1/accounts", json=body, headers=once)).status_code == 201
    narrow = await key_of(owner_a, call_as, ["crm:read"])
    answer = await owner_a.client.post("/api/v1/accounts", json=body, headers={**once, **narrow})
    assert answer.status_code == 403
    other = await key_of(owner_a, call_as, ["crm:write"])
    again = await owner_a.client.post("/api/v1/accounts", json=body, headers={**once, **other})
    assert again.status_code == 201
    assert "idempotent-replay" not in again.headers


def test_an_answer_that_holds_a_secret_is_never_kept(registry: Registry) -> None:
    secrets = {
        f"{resource.name}:{action.name}"
        for resource in registry
        for action in resource.actions
        if action.output is not None and {"key", "token", "secret"} & set(action.output.model_fields)
    }
    kept = {f"{r.name}:{a.name}" for r in registry for a in r.actions if not a.shown_once}
    assert secrets
    assert not secrets & kept


async def test_a_capability_is_given_only_by_who_holds_it(owner_a: Person, admin_a: Person, call_as: CallMaker) -> None:
    address = f"cap-{uuid.uuid4()}@people.example"
    async with call_as(admin_a) as call:
        with pytest.raises(Forbidden, match="cannot give"):
            await add_member(call, NewMember(email=address, capabilities=("audit.read",)))
    async with call_as(owner_a) as call:
        row = await add_member(call, NewMember(email=address, capabilities=("audit.read",)))
    assert row.capabilities == ["audit.read"]


async def test_nobody_is_enrolled_in_a_second_workspace_unasked(owner_a: Person, member_b: Person) -> None:
    answer = await owner_a.client.post("/api/v1/members", json={"email": member_b.email, "name": "Taken"})
    assert (answer.status_code, answer.json()["code"]) == (409, "invitation_required")


@pytest.mark.parametrize("name", ["", "   ", "\u200b", "\u2060\u200d"])
async def test_a_required_name_is_not_blank(owner_a: Person, name: str) -> None:
    answer = await owner_a.client.post("/api/v1/accounts", json={"name": name})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "name"


async def test_moves_at_once_are_in_order_in_the_history(owner_a: Person) -> None:
    deal = (await owner_a.client.post("/api/v1/opportunities", json={"name": "Raced often"})).json()
    stages = (await owner_a.client.get(f"/api/v1/pipelines/{deal['pipeline_id']}/stages")).json()["items"]
    open_ones = [stage["id"] for stage in stages if stage["type"] == "OPEN"]
    path = f"/api/v1/opportunities/{deal['id']}/move"
    await asyncio.gather(*(owner_a.client.post(path, json={"to_stage_id": open_ones[n % len(open_ones)]}) for n in range(8)))
    params: dict[str, Any] = {"opportunity_id": deal["id"], "sort": "changed_at", "limit": 100}
    history = (await owner_a.client.get("/api/v1/opportunity-stage-history", params=params)).json()["items"]
    now = (await owner_a.client.get(f"/api/v1/opportunities/{deal['id']}")).json()
    assert [line["from_stage_id"] for line in history[1:]] == [line["to_stage_id"] for line in history[:-1]]
    assert history[-1]["to_stage_id"] == now["stage_id"]


def test_a_quote_that_never_closes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "open.csv"
    file.write_text('Company,Description\nFirst,"abc\nSecond,d\nThird,e\n')
    with pytest.raises(Invalid, match="line 2 never closes"):
        open_source(file)


async def test_a_failing_look_up_is_a_problem_document_with_its_request_id() -> None:
    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise OperationalError("SELECT secret", {}, Exception("connection refused"))

    transport = httpx.ASGITransport(Edge(broken, max_body_bytes=1024))
    async with httpx.AsyncClient(transport=transport, base_url="http://a.localhost") as client:
        answer = await client.get("/api/v1/accounts")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["x-request-id"]
    assert "SELECT" not in answer.text


def test_a_second_program_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, port=1)
    with _only_one(settings), pytest.raises(OSError, match="already"), _only_one(settings):
        pass


async def test_exports_of_one_workspace_are_limited(app: Any, owner_a: Person, rows_a: Any) -> None:
    routes = app.app.app.app.app.app
    routes.state.api.exports[owner_a.tenant.id] += 2
    try:
        answer = await owner_a.client.get("/api/v1/accounts/export")
    finally:
        routes.state.api.exports[owner_a.tenant.id] -= 2
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    assert (await owner_a.client.get("/api/v1/accounts/export")).status_code == 200
    assert routes.state.api.exports[owner_a.tenant.id] == 0


async def test_imports_are_undone_two_at_a_time(owner_a: Person, call_as: CallMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = uuid.uuid4()
    async with call_as(owner_a) as call:
        await batches.begin_batch(call, batch_id, resource=call.registry["accounts"], filename="a.csv", mode="both")
        call.session.expunge_all()
        (await call.load(batches.ImportBatch, batch_id)).status = batches.BatchState.DONE
    path = f"/api/v1/imports/{batch_id}/undo"
    with monkeypatch.context() as busy:
        busy.setattr(batches, "_places", [])
        assert (await owner_a.client.post(path, json={})).status_code == 429
    answer = await owner_a.client.post(path, json={})
    assert (answer.status_code, answer.json()["removed"]) == (200, 0)
    assert sorted(batches._places) == [1, 2]

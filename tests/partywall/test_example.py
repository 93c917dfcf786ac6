"""The example of the guide, run as it stands: two tenants, one deployment, one table."""

import importlib.util
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from engines import Engines, fresh_engines

EXAMPLE = Path(__file__).parents[2] / "examples" / "notes.py"


@pytest.fixture(scope="module")
def database() -> Iterator[Engines]:
    with fresh_engines("pwnotes") as engines:
        yield engines


@pytest.fixture(scope="module")
def notes(database: Engines) -> ModuleType:
    spec = importlib.util.spec_from_file_location("notes_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTES_DATABASE_URL", database.url.render_as_string(hide_password=False))
        spec.loader.exec_module(module)
    return module


@pytest.fixture
async def running(notes: ModuleType) -> AsyncIterator[ModuleType]:
    async with notes.prepare(notes.api):
        yield notes


def client(notes: ModuleType, host: str, key: str = "") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(notes.api), base_url=f"http://{host}", headers=headers)


async def test_each_tenant_reads_back_its_own_notes_alone(running: ModuleType) -> None:
    async with (
        client(running, "acme.notes.localhost", "acme-key") as acme,
        client(running, "birch.notes.localhost", "birch-key") as birch,
    ):
        posted = [await acme.post("/notes", json={"words": "ours"}), await birch.post("/notes", json={"words": "theirs"})]
        listed = [(await acme.get("/notes")).json(), (await birch.get("/notes")).json()]

    assert [answer.status_code for answer in posted] == [201, 201]
    assert [set(words) for words in listed] == [{"ours"}, {"theirs"}]


@pytest.mark.parametrize(
    ("host", "key", "status"),
    [
        ("birch.notes.localhost", "acme-key", 404),
        ("cedar.notes.localhost", "acme-key", 404),
        ("elsewhere.example", "acme-key", 404),
        ("acme.notes.localhost", "", 401),
        ("acme.notes.localhost", "wrong-key", 401),
        ("acme.notes.localhost", "acme-key", 200),
        ("notes.localhost", "acme-key", 200),
    ],
)
async def test_a_key_opens_its_own_tenant_and_no_other(running: ModuleType, host: str, key: str, status: int) -> None:
    async with client(running, host, key) as caller:
        assert (await caller.get("/notes")).status_code == status


def test_the_example_stays_small() -> None:
    lines = EXAMPLE.read_text().splitlines()

    assert len([line for line in lines if line.strip()]) < 80

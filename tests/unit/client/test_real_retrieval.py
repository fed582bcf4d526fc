"""The client against the real retrieval service, which embeds by hashes of words."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import orrery
from orrery import Document, DocumentChunk, where
from tests.fakes.redis_server import RedisServer, redis_server
from tests.fakes.retrieval_server import RunningRetrieval, retrieval_server_in_thread
from tests.unit.client.command import orrery as command

REPOSITORY = Path(orrery.__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def service(
    redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningRetrieval]:
    with retrieval_server_in_thread(redis.url, tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture(autouse=True)
def emptied(service: RunningRetrieval) -> None:
    with orrery.Client(service.target) as client:
        for collection in client.collections.list():
            client.collections.delete(collection.name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "ships").mkdir(parents=True)
    (root / "ships" / "veloria.md").write_text(
        "# Veloria\n\nLaunched in 1874.\n\nThe captain of the Veloria is Tamir Osker.\n"
    )
    (root / "towns.csv").write_text("title,population\nBramhaven,3416\nKorsted,12\n")
    (root / "page.html").write_text("<h1>Harbour</h1><p>The harbour freezes in winter.</p>")
    (root / "empty.txt").write_text("")
    (root / "broken.pdf").write_bytes(b"%PDF-1.7 nothing of the kind")
    return root


def test_folder_goes_in_and_is_found_with_its_lines(
    service: RunningRetrieval, folder: Path
) -> None:
    with orrery.Client(service.target) as client:
        report = client.ingest(folder, metadata={"team": "sea"})
        assert report.added == ("page.html", "towns.csv", "ships/veloria.md")
        assert {problem.path for problem in report.failed} == {"empty.txt", "broken.pdf"}
        best = client.search(text="captain of the Veloria", k=1).hits[0]
        assert best.chunk.document_id == "ships/veloria.md"
        assert best.chunk.line_start is not None
        assert "Tamir Osker" in best.chunk.text
        assert client.search(text="x", filter=where("team") == "air").hits == ()
        with pytest.raises(orrery.InvalidRequestError):
            client.search(text="x", filter=where("nothing_has_it") == 1)
        (stored,) = client.documents.get("default", ["towns.csv"], include_chunks=True)
        assert [float(str(c.metadata["population"])) for c in stored.chunks] == [3416, 12]
        (folder / "page.html").unlink()
        again = client.ingest(folder, prune=True, metadata={"team": "sea"})
        assert (again.unchanged, again.removed) == (
            ("towns.csv", "ships/veloria.md"),
            ("page.html",),
        )


async def test_async_client_reads_its_writes(service: RunningRetrieval) -> None:
    async with orrery.AsyncClient(service.target) as client:
        made = await client.collections.create(
            "vectors", dimensions=2, embedding_application="none", metric="dot"
        )
        assert (made.config.metric, made.config.dimensions) == ("dot", 2)
        for i in range(20):
            chunk = DocumentChunk(f"number {i}", vector=[float(i), 1.0])
            report = await client.documents.upsert("vectors", [Document(f"d{i}", [chunk])])
            assert report.count("added") == 1
            found = await client.search("vectors", vector=[1.0, 0.0], k=1)
            assert found.hits[0].chunk.document_id == f"d{i}"
        assert (await client.documents.delete("vectors", ["d19"])).num_deleted == 1
        found = await client.search("vectors", vector=[1.0, 0.0], k=1)
        assert found.hits[0].chunk.document_id == "d18"
        assert [d.id async for d in client.documents.list("vectors", page_size=7)] == sorted(
            f"d{i}" for i in range(19)
        )
        with pytest.raises(orrery.InvalidRequestError) as caught:
            await client.search("vectors", vector=[1.0, 0.0, 0.0])
        assert caught.value.field is not None
        assert "vector" in caught.value.field
        with pytest.raises(orrery.AlreadyExistsError):
            await client.collections.create("vectors", dimensions=3, embedding_application="none")


async def test_commands_against_the_real_service(
    service: RunningRetrieval, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORRERY_TARGET", service.target)
    monkeypatch.setenv("COLUMNS", "120")
    ingested = await command("ingest", str(folder), "-c", "docs")
    assert ingested.exit_code == 0
    assert "docs: 3 added, 2 failed" in ingested.stdout
    assert "broken.pdf" in ingested.stdout
    found = await command("search", "captain of the Veloria", "-c", "docs", "-k", "1", "--explain")
    assert "ships/veloria.md:" in found.stdout
    assert "embed" in found.stdout
    listed = json.loads((await command("collections", "--json")).stdout)
    assert (listed[0]["num_documents"], listed[0]["config"]["metric"]) == (3, "cosine")
    queries = folder.parent / "queries.jsonl"
    queries.write_text('{"query": "captain of the Veloria", "relevant": ["ships/veloria.md"]}')
    scores = json.loads(
        (
            await command("eval", "retrieval", "--dataset", str(queries), "-c", "docs", "--json")
        ).stdout
    )
    assert [each["recall_at_1"] for each in scores] == [1, 1, 1]


class Served:
    """The service as a process of its own, on a port that it keeps."""

    def __init__(self, redis_url: str, data_dir: Path) -> None:
        self._arguments = ["--redis-url", redis_url, "--data-dir", str(data_dir), "--port"]
        self.port = "0"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.retrieval_server", *self._arguments, self.port],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'clients'}", "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.slow
async def test_ingest_survives_kill_9_of_the_service(tmp_path: Path) -> None:
    """Every file is in the collection once, as it is on disk."""
    root = tmp_path / "docs"
    root.mkdir()
    names = [f"{i:04}.txt" for i in range(600)]
    for name in names:
        (root / name).write_text(f"This is the file {name}.")
    with redis_server(tmp_path / "redis") as redis:
        served = Served(redis.url, tmp_path / "data")
        progress = asyncio.Event()

        def told(done: orrery.IngestProgress) -> None:
            if done.num_done >= 100:
                progress.set()

        try:
            async with orrery.AsyncClient(f"127.0.0.1:{served.port}") as client:
                ingest = asyncio.create_task(client.ingest(root, progress=told, timeout_s=120))
                await progress.wait()
                served.kill()
                await asyncio.to_thread(served.start)
                report = await ingest
                found = [d.id async for d in client.documents.list("default", page_size=1000)]
        finally:
            served.kill()
    assert report.failed == ()
    assert sorted(report.added + report.unchanged) == names
    assert found == names

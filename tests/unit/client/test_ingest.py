"""A folder into a collection: which files, what becomes of them, and what is told."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import orrery
from orrery.ingest.walk import walk_files
from tests.unit.client.both_clients import Either
from tests.unit.client.fake_retrieval import FakePlatform

LIMIT = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files to be taken, and one of every kind that is not."""
    root = tmp_path / "docs"
    for name in ("b.md", "a.txt", "sub/deep/c.html", "sub/z.txt", "Ü und ß.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("x")
    (root / ".hidden").write_text("x")
    (root / "CVS").mkdir()
    (root / "huge.bin").write_bytes(b"x" * (LIMIT + 1))
    (root / "just.bin").write_bytes(b"x" * LIMIT)
    (tmp_path / "outside.txt").write_text("secret")
    (root / "out.txt").symlink_to(tmp_path / "outside.txt")
    (root / "in.txt").symlink_to(root / "a.txt")
    (root / "loop").symlink_to(root)
    (root / "dangling").symlink_to(root / "nowhere")
    (root / "circle").symlink_to(root / "circle")
    os.mkfifo(root / "pipe")
    return root


def test_walk_takes_ordinary_files_in_order_and_tells_why_not_the_others(folder: Path) -> None:
    walk = walk_files(folder, LIMIT)
    assert [file.document_id for file in walk.files] == [
        "a.txt",
        "b.md",
        "in.txt",
        "just.bin",
        "Ü und ß.txt",
        "sub/z.txt",
        "sub/deep/c.html",
    ]
    assert {problem.path: problem.reason for problem in walk.skipped} == {
        ".git/": "HIDDEN",
        ".hidden": "HIDDEN",
        "CVS/": "HIDDEN",
        "circle": "UNREADABLE",
        "dangling": "UNREADABLE",
        "huge.bin": "TOO_LARGE",
        "loop/": "LINK",
        "out.txt": "LINK",
        "pipe": "NOT_A_FILE",
    }


def test_walk_of_one_file_takes_its_name(folder: Path) -> None:
    walk = walk_files(folder / "sub" / "z.txt", LIMIT)
    assert [file.document_id for file in walk.files] == ["z.txt"]


def test_walk_of_one_file_follows_a_link_that_is_named(folder: Path) -> None:
    walk = walk_files(folder / "out.txt", LIMIT)
    assert [file.document_id for file in walk.files] == ["out.txt"]
    assert walk.skipped == ()


def test_walk_of_a_hidden_folder_takes_what_is_in_it(folder: Path) -> None:
    assert [file.document_id for file in walk_files(folder / ".git", LIMIT).files] == ["config"]


def test_walk_skips_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system has no such names")
    walk = walk_files(tmp_path, LIMIT)
    assert walk.files == ()
    assert walk.skipped[0].reason == "BAD_NAME"
    walk.skipped[0].path.encode()


@pytest.mark.parametrize("name", ["absent", "a" * 300, "circle", "zero\0byte", "file/below"])
def test_walk_of_nothing_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "file").touch()
    with pytest.raises(orrery.InvalidRequestError) as caught:
        walk_files(tmp_path / name, LIMIT)
    assert caught.value.field == "path"


def test_walk_of_what_is_neither_file_nor_folder_says_so(folder: Path) -> None:
    assert [problem.reason for problem in walk_files(folder / "pipe", LIMIT).skipped] == [
        "NOT_A_FILE"
    ]


async def test_ingest_makes_the_collection_and_reports_every_file(
    platform: FakePlatform, either: Either, folder: Path
) -> None:
    (folder / "binary.dat").write_bytes(b"\0")
    told: list[orrery.IngestProgress] = []
    report = await either.call(
        "ingest",
        folder,
        collection="new",
        progress=told.append,
        max_file_bytes=LIMIT,
        metadata={"team": "x"},
    )
    assert len(report.added) == 7
    assert report.failed == (orrery.FileProblem("binary.dat", "INVALID_REQUEST", "binary"),)
    assert len(report.skipped) == 9
    assert (report.num_ingested, report.num_chunks) == (7, 7)
    assert [done.num_done for done in told] == list(range(1, 9))
    assert {done.num_files for done in told} == {8}
    sent = platform.retrieval.collections["new"]["sub/deep/c.html"]
    assert sent.file.name == "c.html"
    assert sent.file.data == b"this is sub/deep/c.html"
    assert sent.metadata["team"].string_value == "x"
    assert report.consistency_token == either.client.consistency_token("new")


async def test_ingest_again_finds_the_unchanged_and_the_changed(
    platform: FakePlatform, either: Either, folder: Path
) -> None:
    await either.call("ingest", folder, max_file_bytes=LIMIT)
    (folder / "a.txt").write_text("changed")
    report = await either.call("ingest", str(folder), max_file_bytes=LIMIT)
    assert report.collection == "default"
    assert report.replaced == ("a.txt", "in.txt")
    assert len(report.unchanged) == 5
    assert len(platform.retrieval.calls("CreateCollectionRequest")) == 1


async def test_ingest_survives_a_broken_stream(
    platform: FakePlatform, either: Either, tmp_path: Path
) -> None:
    for i in range(50):
        (tmp_path / f"{i:02}.txt").write_text(str(i))
    platform.retrieval.break_after = 20
    platform.retrieval.answer_lost = True
    report = await either.call("ingest", tmp_path, collection="docs", max_in_flight=8)
    # What was written and not answered, or answered while the stream broke, is found unchanged.
    assert len(report.unchanged) >= 1
    assert sorted(report.added + report.unchanged) == [f"{i:02}.txt" for i in range(50)]
    assert len(platform.retrieval.collections["docs"]) == 50


async def test_prune_removes_what_is_gone_and_nothing_else(
    platform: FakePlatform, either: Either, folder: Path
) -> None:
    await either.call("ingest", folder, collection="docs")
    (folder / "b.md").unlink()
    (folder / "sub" / "z.txt").unlink()
    platform.retrieval.page_size = 2
    kept = await either.call("ingest", folder, collection="docs", max_file_bytes=LIMIT)
    assert kept.removed == ()
    report = await either.call(
        "ingest", folder, collection="docs", prune=True, max_file_bytes=LIMIT
    )
    assert report.removed == ("b.md", "sub/z.txt")
    assert "huge.bin" in platform.retrieval.collections["docs"]  # now too large, but not gone


async def test_prune_of_an_empty_folder_or_a_file_is_refused(
    platform: FakePlatform, either: Either, folder: Path, tmp_path: Path
) -> None:
    await either.call("ingest", folder, collection="docs")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", folder / "a.txt"):
        with pytest.raises(orrery.InvalidRequestError) as caught:
            await either.call("ingest", path, collection="docs", prune=True)
        assert caught.value.field == "prune"
    assert platform.retrieval.calls("DeleteRequest") == []


async def test_ingest_refuses_an_unknown_option(either: Either, folder: Path) -> None:
    with pytest.raises(TypeError, match="colour"):
        await either.call("ingest", folder, colour="red")


async def test_ingest_refuses_a_choice_that_cannot_be_before_it_calls_anybody(
    platform: FakePlatform, either: Either, folder: Path
) -> None:
    with pytest.raises(ValueError, match="max_in_flight"):
        await either.call("ingest", folder, max_in_flight=0)
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await either.call("ingest", folder, metadata={"year": float("nan")})
    assert caught.value.field == "metadata.year"
    assert platform.retrieval.seen == []


async def test_ingest_whose_caller_fails_is_ended_at_once(
    platform: FakePlatform, either: Either, folder: Path
) -> None:
    def tell(done: orrery.IngestProgress) -> None:
        raise KeyError(done.document_id)

    with pytest.raises(KeyError) as caught:  # which holds the frames, and so the upload, alive
        await either.call("ingest", folder, collection="docs", progress=tell)
    assert caught.value.args == ("a.txt",)
    await asyncio.wait_for(platform.retrieval.ended.wait(), 5)


async def test_progress_bar_goes_to_stderr(
    either: Either, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await either.call("ingest", folder, progress=True)
    assert capsys.readouterr().out == ""


async def test_ingest_where_there_is_no_retrieval_says_so(server: object, folder: Path) -> None:
    async with orrery.AsyncClient(server.target) as client:  # type: ignore[attr-defined]
        with pytest.raises(orrery.ServiceNotFoundError, match="retrieval"):
            await client.ingest(folder)

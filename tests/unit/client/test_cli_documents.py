"""`orrery ingest`, `search`, `ask`, `collections`, and their part of `status`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orrery.cli.citations import place_of
from tests.unit.client.command import orrery
from tests.unit.client.fake_retrieval import FakePlatform


@pytest.fixture(autouse=True)
def target(platform: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_TARGET", platform.target)
    monkeypatch.setenv("COLUMNS", "120")
    platform.retrieval.make(
        "docs",
        veloria="The captain who commands the Veloria is Osker.",
        town="The town has a harbour.",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ship.md").write_text("The captain who commands the Veloria is Osker.")
    (tmp_path / "bad.bin").write_bytes(b"\0")
    (tmp_path / ".git").mkdir()
    return tmp_path


async def test_ingest_tells_what_went_in_and_what_did_not_and_why(
    platform: FakePlatform, folder: Path
) -> None:
    outcome = await orrery("ingest", str(folder), "-c", "new")
    assert outcome.exit_code == 0
    assert "new: 1 added, 1 failed, 1 skipped; 1 chunks" in outcome.stdout
    rows = [line.split() for line in outcome.stdout.splitlines()]
    assert ["bad.bin", "binary"] in rows
    assert [".git/", "hidden"] in rows
    assert set(platform.retrieval.collections["new"]) == {"ship.md"}


async def test_ingest_as_json_is_the_report(folder: Path) -> None:
    outcome = await orrery("ingest", str(folder), "--json")
    report = json.loads(outcome.stdout)
    assert (report["collection"], report["added"]) == ("default", ["ship.md"])
    assert report["failed"][0] == {
        "path": "bad.bin",
        "reason": "INVALID_REQUEST",
        "message": "binary",
    }


async def test_ingest_of_which_nothing_went_in_fails(folder: Path) -> None:
    (folder / "ship.md").unlink()
    assert (await orrery("ingest", str(folder))).exit_code == 4
    assert (await orrery("ingest", str(folder / "absent"))).exit_code == 2
    assert (await orrery("ingest", str(folder / ("a" * 300)))).exit_code == 2


@pytest.mark.parametrize("size", ["nan", "inf", "0", "-1"])
async def test_ingest_refuses_a_size_that_is_none(folder: Path, size: str) -> None:
    outcome = await orrery("ingest", str(folder), "--max-file-size", size)
    assert outcome.exit_code == 2
    assert "--max-file-size" in outcome.stderr


async def test_errors_and_json_cannot_command_the_terminal(platform: FakePlatform) -> None:
    platform.retrieval.make("docs", ships="ships \x9b2J\x1b]0;x\x07")
    found = await orrery("search", "ships", "-c", "docs", "--json")
    assert json.loads(found.stdout)["hits"][0]["chunk"]["text"] == "ships \x9b2J\x1b]0;x\x07"
    assert "\x9b" not in found.stdout
    assert "\x1b" not in found.stdout
    refused = await orrery("search", "ships", "-c", "a\x1b[31mb\x9b2J")
    assert refused.exit_code == 2
    assert "\x9b" not in refused.stderr
    assert "\x1b" not in refused.stderr


async def test_search_writes_a_long_place_in_one_line(
    platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "/".join(["folder"] * 20) + "/ship.md"
    platform.retrieval.make("docs", **{name: "a ship"})
    assert f"{name}:1" in (await orrery("search", "ship", "-c", "docs")).stdout


async def test_ingest_prunes_and_limits_sizes(platform: FakePlatform, folder: Path) -> None:
    await orrery("ingest", str(folder), "-c", "new")
    (folder / "ship.md").rename(folder / "boat.md")
    (folder / "large.txt").write_bytes(b"x" * 2000)
    outcome = await orrery(
        "ingest", str(folder), "-c", "new", "--prune", "--max-file-size", "0.001"
    )
    assert "1 added, 1 removed" in outcome.stdout
    assert "large.txt" in outcome.stdout
    assert set(platform.retrieval.collections["new"]) == {"boat.md"}


async def test_search_shows_where_and_what(platform: FakePlatform) -> None:
    outcome = await orrery(
        "search",
        "captain veloria",
        "-c",
        "docs",
        "-k",
        "3",
        "--mode",
        "sparse",
        "--filter",
        'year >= 1900 and kind = "ship"',
    )
    assert outcome.exit_code == 0
    assert "1. veloria:1" in outcome.stdout
    assert "The captain who commands" in outcome.stdout
    options = platform.retrieval.calls("SearchRequest")[0].options
    assert options.k == 3
    assert len(options.filter.all_of.filters) == 2


async def test_search_finds_nothing_and_as_json(platform: FakePlatform) -> None:
    assert "Nothing found" in (await orrery("search", "zebra", "-c", "docs")).stdout
    found = json.loads((await orrery("search", "-c", "docs", "--json", stdin="harbour")).stdout)
    assert found["hits"][0]["chunk"]["document_id"] == "town"


@pytest.mark.parametrize(
    ("expression", "told"), [("year >=", "a value"), ("a = ship", '"ship"'), ("(a = 1", "')'")]
)
async def test_search_refuses_a_filter_that_is_none(
    platform: FakePlatform, expression: str, told: str
) -> None:
    outcome = await orrery("search", "x", "-c", "docs", "--filter", expression)
    assert outcome.exit_code == 2
    assert told in outcome.stderr
    assert platform.retrieval.calls("SearchRequest") == []


async def test_search_in_no_collection_is_one_line() -> None:
    outcome = await orrery("search", "x", "-c", "nowhere")
    assert outcome.exit_code == 2
    assert "nowhere" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


async def test_ask_writes_the_answer_then_the_citations(platform: FakePlatform) -> None:
    outcome = await orrery(
        "ask",
        "Who commands the Veloria?",
        "-c",
        "docs",
        "--explain",
        "--conversation",
        "c",
        "--open",
    )
    assert outcome.exit_code == 0
    lines = outcome.stdout.splitlines()
    assert lines[0] == "Osker"
    assert "[1] veloria:1  0.90" in lines
    assert '    "The captain who commands the Veloria is Osker."' in lines
    assert any("generate" in line and "█" in line and "8.0" in line for line in lines)
    request = platform.rag.seen[0][1]
    assert (request.conversation_id, request.explain) == ("c", True)
    assert request.options.mode == 2  # open


async def test_ask_says_that_an_answer_was_cut(platform: FakePlatform) -> None:
    whole = await orrery("ask", "Who commands the Veloria?", "-c", "docs")
    assert "limit of tokens" not in whole.stdout
    platform.rag.truncated = True
    cut = await orrery("ask", "Who commands the Veloria?", "-c", "docs")
    assert "The model reached its limit of tokens." in cut.stdout


async def test_ask_shows_an_abstention_as_such() -> None:
    outcome = await orrery("ask", "What colour?", "-c", "docs")
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines()[0] == "The documents do not say."
    assert "No answer in the documents: no passage" in outcome.stdout


async def test_ask_as_json_is_the_whole_answer() -> None:
    answer = json.loads(
        (await orrery("ask", "-c", "docs", "--json", stdin="Who commands the Veloria?\n")).stdout
    )
    assert answer["text"] == "Osker"
    assert answer["citations"][0]["document_id"] == "veloria"
    assert answer["passages"]["used"] == [0]


async def test_collections_are_listed_created_and_deleted(platform: FakePlatform) -> None:
    made = await orrery("collections", "create", "ships", "--title", "Ships", "--metric", "dot")
    assert made.exit_code == 0
    table = (await orrery("collections")).stdout
    assert "auto, dot" in next(line for line in table.splitlines() if line.startswith("ships"))
    assert "ships: embedded by the service's default; fields year" in table
    listed = json.loads((await orrery("collections", "--json")).stdout)
    assert [each["name"] for each in listed] == ["docs", "ships"]
    refused = await orrery("collections", "delete", "ships", stdin="n\n")
    assert (refused.exit_code, "ships" in platform.retrieval.made) == (2, True)
    unasked = await orrery("collections", "delete", "ships")
    assert (unasked.exit_code, "ships" in platform.retrieval.made) == (2, True)
    assert "--yes" in unasked.stderr
    assert (await orrery("collections", "delete", "ships", "--yes")).exit_code == 0
    assert "ships" not in platform.retrieval.made
    assert (await orrery("collections", "delete", "ships", "--yes")).exit_code == 2
    again = await orrery("collections", "create", "docs")
    assert again.exit_code == 4


async def test_collections_cut_no_name_on_a_narrow_terminal(
    platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = f"vs_{'0123456789ab' * 2}"
    await orrery("collections", "create", name, "--title", "The coast")
    table = (await orrery("collections")).stdout.split("\n\n")[0]
    row = next(line for line in table.splitlines() if line.startswith("vs_"))
    assert row.split() == [name, "The", "coast", "0", "0", "0.0", "auto,", "cosine"]


async def test_status_of_a_plain_server_shows_what_it_serves(tmp_path: Path) -> None:
    outcome = await orrery("status", "--timeout", "5")
    assert outcome.exit_code == 0
    assert "mini" in outcome.stdout


async def test_status_shows_each_service_with_its_own_load(platform: FakePlatform) -> None:
    platform.applications = ("embedding", "gateway", "rag", "retrieval")
    outcome = await orrery("status", "--timeout", "5")
    assert outcome.exit_code == 0
    rows = {line.split()[0]: line.split() for line in outcome.stdout.splitlines() if line}
    assert rows["embedding"] == ["embedding", "mini", "-", "ready", "-", "2", "4"]
    assert rows["retrieval"][3:6] == ["ready", "-", "0"]
    assert rows["rag"][3:6] == ["ready", "-", "3"]
    assert "retrieval: 1 collections, 7 documents, 9 chunks" in outcome.stdout
    assert "rag: 2 in generate, 1 in search" in outcome.stdout
    report = json.loads((await orrery("status", "--json")).stdout)
    loads = {each["application"]: each["load"] for each in report["services"]}
    assert loads["retrieval"]["num_documents"] == 7


@pytest.mark.parametrize(
    ("first", "last", "page", "told"),
    [
        (None, None, None, "a.md"),
        (3, 3, None, "a.md:3"),
        (3, None, None, "a.md:3"),
        (3, 5, None, "a.md:3-5"),
        (None, None, 7, "a.md, page 7"),
    ],
)
def test_place_names_the_line_or_the_page(
    first: int | None, last: int | None, page: int | None, told: str
) -> None:
    assert place_of("a.md", first, last, page) == told

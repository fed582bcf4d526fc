"""`orrery load`, from its options to its report, against a toy platform."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from orrery.load.asks import Size
from orrery.load.trace import TraceRow, read_trace, write_trace
from tests.fakes.toy_platform import SUBJECT, Toy
from tests.unit.client.command import Outcome, orrery

SHORT = ("--prompt-tokens", "4", "16", "--output-tokens", "8", "24")
BRIEF = (*SHORT, "--rate", "40", "--duration", "0.5")
PLAIN = (*BRIEF, "--no-picture")


@pytest.fixture
def here(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """Commands find the toy by its data folder, which they run in."""
    monkeypatch.chdir(toy.data_dir)
    monkeypatch.setenv("ORRERY_DATA_DIR", str(toy.data_dir))
    monkeypatch.setenv("COLUMNS", "160")
    return toy


def kept(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def kept_by(outcome: Outcome) -> dict[str, Any]:
    """The report of the folder that the command names."""
    assert outcome.exit_code == 0, outcome.stderr
    *_, last = outcome.stdout.splitlines()
    folder = Path(last.removeprefix("kept in "))
    assert folder.parts[0] == "orrery-load"
    return kept(folder)


# --- run ----------------------------------------------------------------------------------------


async def test_run_offers_what_its_options_say(here: Toy) -> None:
    outcome = await orrery(
        "load", "run", *PLAIN, "--workload", "chat", "--burst", "4", "--seed", "3"
    )
    report = kept_by(outcome)
    whole, *groups = report["runs"][0]["groups"].values()
    assert whole["num_requests"] % 4 == 0
    assert whole["num_ok"] + whole["num_refused"] == whole["num_requests"] > 0
    assert len(groups) == 2  # a chat over either transport
    assert (report["workload"], report["model"]) == ("chat", SUBJECT.model)
    assert (report["grpc"], report["http"]) == (here.target.grpc, here.target.http_url)
    assert "chat over grpc" in outcome.stdout
    assert "chat over http" in outcome.stdout


async def test_mixed_is_made_of_what_the_platform_has(here: Toy) -> None:
    report = kept_by(await orrery("load", "run", *PLAIN, "--workload", "mixed"))
    assert report["mixture"] == ["generation", "chat"]
    (whole, *_) = report["runs"][0]["groups"].values()
    assert whole["errors"] == {}


async def test_a_picture_is_kept_beside_the_report(here: Toy) -> None:
    outcome = await orrery("load", "run", *BRIEF, "--out", "kept")
    assert outcome.exit_code == 0, outcome.stderr
    assert names_in(here.data_dir / "kept") == ["report.json", "report.png"]


async def test_json_is_the_report_that_is_kept_in_the_folder_asked_for(
    here: Toy, tmp_path: Path
) -> None:
    folder = tmp_path / "a/b"
    options = ("--json", "--out", str(folder), "--over", "grpc")
    outcome = await orrery("load", "run", *PLAIN, *options)
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout) == kept(folder)
    assert names_in(folder) == ["report.json"]


async def test_a_platform_elsewhere_is_not_asked_at_the_gateway_of_the_one_here(
    here: Toy,
) -> None:
    state = here.data_dir / "platform.json"
    state.write_text(state.read_text().replace(here.target.grpc, "127.0.0.1:1"))
    target = ("--target", here.target.grpc)
    report = kept_by(await orrery("load", "run", *PLAIN, *target))
    assert (report["over"], report["http"]) == (["grpc"], None)
    refused = await orrery("load", "run", *PLAIN, *target, "--over", "http")
    assert refused.exit_code == 2
    assert "--http" in refused.stderr
    url = ("--http", str(here.target.http_url))
    report = kept_by(await orrery("load", "run", *PLAIN, *target, *url))
    assert report["over"] == ["grpc", "http"]


async def test_nobody_there_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = await orrery("load", "run", "--target", "127.0.0.1:1")
    assert outcome.exit_code == 3
    assert "is the platform running?" in outcome.stderr
    assert names_in(tmp_path) == []


async def test_a_run_of_which_nothing_is_answered_fails_and_keeps_its_report(here: Toy) -> None:
    options = ("--over", "http", "--http", "http://127.0.0.1:1", "--out", "kept")
    outcome = await orrery("load", "run", *PLAIN, *options)
    assert outcome.exit_code == 4
    assert "not one of" in outcome.stderr
    (whole,) = kept(here.data_dir / "kept")["runs"][0]["groups"].values()
    assert whole["errors"] == {"CLIENT_ConnectError": whole["num_requests"]}


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--workload", "rag"), "--collection"),
        (("--workload", "rag", "--collection", "docs"), "--questions"),
        (("--workload", "mixed", "--collection", "docs"), "--questions"),
        (("--collection", "docs"), "--collection"),
        (("--workload", "rag", "--model", "llama"), "--model"),
        (("--workload", "images", "--output-tokens", "1", "2"), "--output-tokens"),
        (("--workload", "images"), "images needs an application 'diffusion'"),
        (("--workload", "embeddings"), "embeddings needs an application 'embedding'"),
        (("--workload", "nothing"), "--workload"),
        (("--model", "nobody"), "nobody"),
        (("--prompt-tokens", "5", "4"), "prompt_tokens: expected 1 <= least <= most"),
        (("--output-tokens", "1", "4000"), "a context of 2048 tokens"),
        (("--http", "127.0.0.1:8000"), "--http"),
        (("--over", "grpc", "--http", "http://127.0.0.1:1"), "--http"),
        (("--burst", "0"), "--burst"),
        (("--rate", "0.001", "--duration", "0.001"), "raise --rate or --duration"),
        (("--timeout", "0"), "timeout_s"),
        (("--out", "platform.json/x"), "--out"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    here: Toy, options: tuple[str, ...], told: str
) -> None:
    before = names_in(here.data_dir)
    outcome = await orrery("load", "run", *options)
    assert outcome.exit_code == 2, outcome.stderr
    assert told in outcome.stderr
    assert names_in(here.data_dir) == before


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--rate", "0"),
        ("--rate", "x"),
        ("--duration", "inf"),
        ("--first-ms", "nan"),
        ("--gap-ms", "-1"),
        ("--total-ms", "0"),
    ],
)
async def test_a_number_that_is_none_is_refused(option: str, value: str) -> None:
    outcome = await orrery("load", "run", option, value)
    assert outcome.exit_code == 2
    assert option in outcome.stderr
    assert "expected a positive number" in outcome.stderr


async def test_questions_that_are_none_are_refused_by_line(here: Toy) -> None:
    (here.data_dir / "questions.jsonl").write_text('{"answer": "yes"}\n')
    options = ("--workload", "rag", "--collection", "docs", "--questions", "questions.jsonl")
    outcome = await orrery("load", "run", *options)
    assert outcome.exit_code == 2
    assert "questions.jsonl:1: expected" in outcome.stderr


async def test_a_picture_without_matplotlib_is_refused_by_the_name_of_the_extra(
    here: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = await orrery("load", "run", *BRIEF)
    assert outcome.exit_code == 2
    assert "the extra `plots`" in outcome.stderr
    assert "--no-picture" in outcome.stderr
    outcome = await orrery("load", "run", *PLAIN, "--over", "grpc")
    assert outcome.exit_code == 0, outcome.stderr


# --- traces -------------------------------------------------------------------------------------


async def test_replay_offers_what_the_trace_has(here: Toy) -> None:
    write_trace(Path("trace.csv"), [TraceRow(at, Size(10, 5)) for at in (3.0, 3.5, 4.0)])
    options = ("--speed", "5", "--over", "grpc", "--no-picture")
    report = kept_by(await orrery("load", "replay", "trace.csv", *options))
    (whole,) = report["runs"][0]["groups"].values()
    assert (whole["num_ok"], whole["tokens_rate"]) == (3, 15.0)  # of one second, at least


async def test_a_trace_that_does_not_fit_the_model_is_refused_by_line(here: Toy) -> None:
    write_trace(Path("trace.csv"), [TraceRow(0.0, Size(2000, 100))])
    outcome = await orrery("load", "replay", "trace.csv")
    assert outcome.exit_code == 2
    assert (
        "trace.csv:2, output_tokens: expected prompt and output of at most 2048" in outcome.stderr
    )


async def test_a_trace_that_is_not_there_is_refused(here: Toy) -> None:
    outcome = await orrery("load", "replay", "trace.csv")
    assert outcome.exit_code == 2
    assert "trace.csv" in outcome.stderr


async def test_make_trace_writes_the_trace_of_its_seed(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for path, seed in zip(paths, ("1", "1", "2"), strict=True):
        outcome = await orrery("load", "make-trace", str(path), "--seed", seed, "--duration", "10")
        assert outcome.exit_code == 0, outcome.stderr
    first, second, third = (path.read_text() for path in paths)
    assert first == second != third
    assert read_trace(paths[0])
    outcome = await orrery("load", "make-trace", str(tmp_path / "nowhere/a.csv"))
    assert outcome.exit_code == 2


@pytest.mark.parametrize("command", ["run", "replay", "make-trace"])
async def test_help_tells_the_options(command: str) -> None:
    outcome = await orrery("load", command, "--help")
    assert outcome.exit_code == 0
    assert "--seed" in outcome.stdout

"""The commands, from options to report, against a toy platform; Locust's users likewise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.load.__main__ import main
from tests.load.asks import Size
from tests.load.trace import TraceRow, write_trace
from tests.unit.load.conftest import SUBJECT, Toy

MODEL = ("--model", SUBJECT.model)
SHORT = ("--prompt-tokens", "4", "16", "--output-tokens", "8", "24")


@pytest.fixture
def command_folder(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where reports go; commands find the toy from here."""
    monkeypatch.chdir(toy.data_dir)
    monkeypatch.setenv("ORRERY_DATA_DIR", str(toy.data_dir))
    return toy.data_dir / ".orrery/load"


def kept(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/report.json")
    assert path.with_name("report.png").exists()
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def test_run_offers_what_its_options_say(command_folder: Path) -> None:
    options = ("--workload", "chat", "--rate", "40", "--duration", "0.5", "--burst", "4")
    assert main(["run", *MODEL, *SHORT, *options, "--seed", "3"]) == 0
    whole, *groups = kept(command_folder)["runs"][0]["groups"].values()
    assert whole["num_requests"] % 4 == 0
    assert whole["num_requests"] > 0
    assert whole["num_ok"] + whole["num_refused"] == whole["num_requests"]
    assert len(groups) == 2  # a chat over either transport


def test_replay_offers_what_the_trace_has(command_folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    write_trace(trace, [TraceRow(at, Size(10, 5)) for at in (3.0, 3.5, 4.0)])
    assert main(["replay", str(trace), *MODEL, "--speed", "5", "--over", "grpc"]) == 0
    (whole,) = kept(command_folder)["runs"][0]["groups"].values()
    assert (whole["num_ok"], whole["tokens_rate"]) == (3, 15.0)  # of one second, at least


def test_a_trace_that_does_not_fit_the_model_is_refused(
    command_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.csv"
    write_trace(trace, [TraceRow(0.0, Size(2000, 100))])
    assert main(["replay", str(trace), *MODEL]) == 1
    assert "output_tokens: expected prompt and output of at most 2048" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_model_that_nobody_serves_is_refused(
    command_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--model", "nobody"]) == 1
    assert "nobody" in capsys.readouterr().out
    assert not command_folder.exists()


def test_overload_ends_as_its_verdicts_say(command_folder: Path) -> None:
    status = main(["overload", *MODEL, *SHORT, "--over", "grpc", "--duration", "1"])
    report = kept(command_folder)
    assert report["capacity"]["grpc"] > 0
    assert [run["name"] for run in report["runs"]] == ["grpc, 0.8x capacity", "grpc, 4x capacity"]
    assert len(report["verdicts"]) == 5
    assert status == (0 if all(verdict["holds"] for verdict in report["verdicts"]) else 1)


def test_make_trace_writes_the_trace_of_its_seed(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for path, seed in zip(paths, ("1", "1", "2"), strict=True):
        assert main(["make-trace", str(path), "--seed", seed, "--duration", "10"]) == 0
    first, second, third = (path.read_text() for path in paths)
    assert first == second != third


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x"])
def test_a_rate_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--rate", value])


@pytest.mark.parametrize("user", ["GrpcUser", "HttpUser"])
def test_locusts_users_ask_and_leave_the_same_report(toy: Toy, user: str) -> None:
    command = ["-f", str(REPOSITORY / "tests/load/locustfile.py"), user, *MODEL, "--headless"]
    result = subprocess.run(
        [sys.executable, "-m", "locust", *command, "-u", "3", "-r", "3", "-t", "4s"],
        cwd=toy.data_dir,
        env={
            **os.environ,
            "ORRERY_DATA_DIR": str(toy.data_dir),
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'clients'}",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (whole,) = kept(toy.data_dir / ".orrery/load")["runs"][0]["groups"].values()
    assert whole["num_ok"] == whole["num_requests"] >= 3, whole
    assert whole["first"]["count"] == whole["num_ok"]

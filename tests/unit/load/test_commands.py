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
from tests.fakes.toy_platform import SUBJECT, Toy
from tests.load.__main__ import main

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


def test_a_model_that_nobody_serves_is_refused(
    command_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["overload", "--model", "nobody"]) == 1
    assert "nobody" in capsys.readouterr().out
    assert not command_folder.exists()


def test_overload_ends_as_its_verdicts_say(command_folder: Path) -> None:
    status = main(["overload", *MODEL, *SHORT, "--over", "grpc", "--duration", "1"])
    report = kept(command_folder)
    assert report["capacity"]["grpc"] > 0
    assert [run["name"] for run in report["runs"]] == ["grpc, 0.8x capacity", "grpc, 4x capacity"]
    assert len(report["verdicts"]) == 5
    assert report["machine"]["cores"] >= 1
    assert status == (0 if all(verdict["holds"] for verdict in report["verdicts"]) else 1)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x"])
def test_a_rate_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SystemExit):
        main(["soak", "--rate", value])


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

"""`make monitor`: what it refuses, and what it would run."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
import yaml

from deploy.monitor import MonitorError, command, configuration
from deploy.ports import free_port
from deploy.state import PlatformState


@pytest.fixture
def binary(tmp_path: Path) -> str:
    """Something that can be run."""
    path = tmp_path / "prometheus-of-mine"
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Of a platform that runs."""
    PlatformState(
        platform_id="abc",
        http="127.0.0.1:1",
        grpc="127.0.0.1:2",
        metrics="127.0.0.1:3",
        ray_address="127.0.0.1:4",
        applications=("llama",),
        session_pids_root=(1, 2),
    ).save(tmp_path / "data")
    return tmp_path / "data"


def test_given_binary_listens_on_loopback_and_keeps_its_data_with_the_platforms(
    binary: str, data_dir: Path
) -> None:
    port = free_port()
    program, *arguments = command(binary, data_dir, port)
    assert program == binary
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    assert options["web.listen-address"] == f"127.0.0.1:{port}"
    assert Path(options["storage.tsdb.path"]).is_relative_to(data_dir)
    config = yaml.safe_load(Path(options["config.file"]).read_text())
    assert config["scrape_configs"][0]["static_configs"] == [{"targets": ["127.0.0.1:3"]}]


def test_rules_are_found_from_anywhere() -> None:
    (pattern,) = yaml.safe_load(configuration("127.0.0.1:3"))["rule_files"]
    assert Path(pattern).is_absolute()
    assert sorted(path.name for path in Path(pattern).parent.glob(Path(pattern).name)) == [
        "alerts.yml",
        "recording.yml",
    ]


def test_without_a_binary_it_says_how_to_get_one(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MonitorError, match="apt-get install prometheus"):
        command(None, data_dir, free_port())


def test_without_a_platform_it_says_how_to_start_one(binary: str, tmp_path: Path) -> None:
    with pytest.raises(MonitorError, match="make up"):
        command(binary, tmp_path / "nothing", free_port())


def test_port_that_is_taken_is_refused(binary: str, data_dir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(MonitorError, match=f"port {port} is taken"):
            command(binary, data_dir, port)

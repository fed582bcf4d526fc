"""The launcher: what it refuses before anything starts, and how it finds what it started."""

from __future__ import annotations

import importlib
import io
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from deploy import local, processes
from deploy.state import PlatformState


def options(tmp_path: Path, **changes: object) -> local.Options:
    values: dict[str, object] = {
        "config": local.REPOSITORY / "deploy/serve/orrery.yaml",
        "data_dir": tmp_path,
        "http_port": 0,
        "grpc_port": 0,
        "metrics_port": 0,
        **changes,
    }
    return local.Options(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_up_is_refused_with_the_port_named_when_it_is_taken(tmp_path: Path, name: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(local.StartError, match=f"{name} port {port} is taken"):
            local.up(options(tmp_path, **{f"{name}_port": port}), Console(quiet=True))
    assert PlatformState.load(tmp_path) is None


def test_up_is_refused_when_the_configuration_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(local.StartError, match=r"missing\.yaml"):
        local.up(options(tmp_path, config=tmp_path / "missing.yaml"), Console(quiet=True))


@pytest.mark.parametrize("content", [b"", b"[]", b"applications: 3", b"\xff", b"a: [", b"{}"])
def test_up_is_refused_when_the_configuration_is_none(tmp_path: Path, content: bytes) -> None:
    config = tmp_path / "broken.yaml"
    config.write_bytes(content)
    with pytest.raises(local.StartError, match=r"broken\.yaml"):
        local.up(options(tmp_path, config=config), Console(quiet=True))


def test_every_service_is_told_where_the_platform_listens(tmp_path: Path) -> None:
    """Also in the parts of its settings, and in settings that two applications share."""
    config = local._load_config(options(tmp_path, grpc_port=12345))
    text = yaml.safe_dump(config["applications"])
    assert text.count("grpc_target: 127.0.0.1:12345") >= 4
    assert "9000" not in text
    moe = next(app for app in config["applications"] if app["name"] == "moe")
    assert moe["args"]["moe"]["grpc_target"] == "127.0.0.1:12345"


def test_down_without_a_platform_says_so(tmp_path: Path) -> None:
    console = Console(record=True, file=io.StringIO())
    local.down(options(tmp_path), console)
    assert "No platform is running" in console.export_text()


def test_processes_are_found_by_their_marker_and_ended_with_their_children() -> None:
    sleep = "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{sleep}'])"
    environment = {**os.environ, processes.MARKER: "test-platform"}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    stranger = subprocess.Popen([sys.executable, "-c", sleep])
    try:
        while len(processes.find_processes("test-platform")) < 2:
            assert parent.poll() is None
        assert processes.end_processes("test-platform") == 2
        assert processes.find_processes("test-platform") == []
        assert stranger.poll() is None
    finally:
        for process in (parent, stranger):
            process.kill()
            process.wait()


def test_state_survives_a_round_trip(tmp_path: Path) -> None:
    state = PlatformState(
        platform_id="abc",
        http="127.0.0.1:1",
        grpc="127.0.0.1:2",
        metrics="127.0.0.1:3",
        ray_address="127.0.0.1:4",
        applications=("llama",),
        session_pids_root=(1, 2),
    )
    state.save(tmp_path)
    assert PlatformState.load(tmp_path) == state
    PlatformState.remove(tmp_path)
    assert PlatformState.load(tmp_path) is None


class RecordingServer:
    """Takes registrations as a gRPC server does and remembers the services' names."""

    def __init__(self) -> None:
        self.services: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """The older half of a registration, which names no service in public."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self.services.add(service)


def test_every_service_of_the_contract_is_registered_with_serve() -> None:
    """Serve registers servicers only at start: one that is missing would be UNIMPLEMENTED."""
    config = yaml.safe_load((local.REPOSITORY / "deploy/serve/orrery.yaml").read_text())
    server = RecordingServer()
    for path in config["grpc_options"]["grpc_servicer_functions"]:
        module, function = path.rsplit(".", 1)
        getattr(importlib.import_module(module), function)(AnyServicer(), server)
    contract = {
        f"orrery.v1.{line.split()[1]}"
        for proto in (local.REPOSITORY / "proto/orrery/v1").glob("*.proto")
        for line in proto.read_text().splitlines()
        if line.startswith("service ")
    }
    assert contract | {"grpc.health.v1.Health"} == server.services


class AnyServicer:
    """Has every method: registering asks only for their presence."""

    def __getattr__(self, name: str) -> object:
        return lambda request, context: None

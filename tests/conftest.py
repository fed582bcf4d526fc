"""What all tests share: the path to the real models and the running platform."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's affair.
settings.register_profile("orrery", deadline=None)
settings.load_profile("orrery")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that need the running platform come last: while it runs, it takes of the processor."""
    items.sort(key=lambda item: item.get_closest_marker("integration") is not None)


@dataclass(frozen=True)
class Platform:
    """A platform that runs: where it listens and what it serves."""

    grpc_target: str
    http_url: str
    metrics_url: str
    applications: tuple[str, ...]
    data_dir: Path


@pytest.fixture(scope="session")
def stories_model() -> Path:
    """A real trained LLaMA that lies beside the repository; skips where it does not."""
    folder = REPOSITORY.parent / "shared" / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("shared/models/stories260K is not beside the repository")
    return folder


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The whole platform, started once for the session on free ports and stopped at its end.

    It is started by the command that users run, in a process of its own.
    """
    from deploy.state import PlatformState

    data_dir = tmp_path_factory.mktemp("platform")
    _launch("up", data_dir)
    try:
        state = PlatformState.load(data_dir)
        assert state is not None
        yield Platform(
            grpc_target=state.grpc,
            http_url=f"http://{state.http}",
            metrics_url=f"http://{state.metrics}/metrics",
            applications=state.applications,
            data_dir=data_dir,
        )
    finally:
        _launch("down", data_dir)


def _launch(command: str, data_dir: Path) -> None:
    ports = ["--http-port=0", "--grpc-port=0", "--metrics-port=0"] if command == "up" else []
    result = subprocess.run(
        [sys.executable, "-m", "deploy.local", command, f"--data-dir={data_dir}", *ports],
        cwd=REPOSITORY,
        env={key: value for key, value in os.environ.items() if not key.startswith("ORRERY_")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if result.returncode != 0:
        pytest.fail(f"`{command}` failed:\n{result.stdout}\n{result.stderr}")

"""A platform as a container runs it: in the foreground, with keys, two replicas of two services.

What a cluster would get is this configuration with other numbers (tests/unit/deploy holds them
together); here it runs, without the applications that no test of it asks: starting them takes a
minute. Calls may take `DRAIN_LIMIT_S` when their replica stops.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.ray_environment import REPOSITORY
from deploy.state import PlatformState
from orrery.load.transports import Target

__all__ = ["DRAIN_LIMIT_S", "KEY", "TwoReplicas", "started"]

KEY = "a-key-of-this-test"
DRAIN_LIMIT_S = 4.0
READY_LIMIT_S = 300

_REPLICAS = ("llama", "gateway")
_APPLICATIONS = ("llama", "embedding", "retrieval", "rag", "gateway")
_CONFIG = REPOSITORY / "deploy/serve/orrery.yaml"


@dataclass(frozen=True)
class TwoReplicas:
    """The platform, and the process that stays with it."""

    process: subprocess.Popen[bytes]
    state: PlatformState
    folder: Path

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {KEY}"}

    @property
    def target(self) -> Target:
        """For `orrery.load`."""
        return Target(self.state.grpc, f"http://{self.state.http}", KEY, timeout_s=60.0)

    def scale(self, replicas: Mapping[str, int]) -> None:
        """Applies the configuration with so many replicas, as a cluster's operator would."""
        _write_resources(self.folder, replicas)
        subprocess.run(
            [
                *(sys.executable, "-m", "tests.fakes.apply_config"),
                *(self.state.platform_id, self.state.ray_address),
                *_options(self.folder, self.state.http, self.state.grpc),
            ],
            cwd=REPOSITORY,
            env=_environment(),
            check=True,
            timeout=120,
        )


@contextmanager
def started(folder: Path) -> Iterator[TwoReplicas]:
    """Starts it and waits until it is ready; ends it, if it has not ended."""
    _write_config(folder)
    _write_resources(folder, dict.fromkeys(_REPLICAS, 2))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "deploy.foreground"),
                *(*_options(folder), "--metrics-port=0", "--host=0.0.0.0"),
            ],
            cwd=REPOSITORY,
            env=_environment(),
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + READY_LIMIT_S
        while (state := PlatformState.load(folder / "data")) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield TwoReplicas(process, state, folder)
    finally:
        process.terminate()
        process.wait(timeout=120)


def _write_config(folder: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(_CONFIG.read_text())
    found = {app["name"]: app for app in config["applications"]}
    config["applications"] = [found[name] for name in _APPLICATIONS]
    for name in _REPLICAS:
        found[name]["args"]["drain_timeout_s"] = DRAIN_LIMIT_S
    found["gateway"]["args"] |= {
        "applications": ["llama"],
        "embedding_applications": ["embedding"],
        "image_applications": [],
    }
    models = found["rag"]["args"]["models"]
    found["rag"]["args"]["models"] = {"llama": models["llama"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def _write_resources(folder: Path, replicas: Mapping[str, int]) -> None:
    shares = {name: {"deployment": {"num_replicas": num}} for name, num in replicas.items()}
    (folder / "resources.yaml").write_text(yaml.safe_dump({"applications": shares}))


def _options(folder: Path, http: str = "any:0", grpc: str = "any:0") -> list[str]:
    return [
        f"--config={folder / 'config.yaml'}",
        f"--resources={folder / 'resources.yaml'}",
        f"--data-dir={folder / 'data'}",
        f"--http-port={http.rpartition(':')[2]}",
        f"--grpc-port={grpc.rpartition(':')[2]}",
    ]


def _environment() -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("ORRERY_")}
    return {**others, "ORRERY_API_KEYS": KEY}

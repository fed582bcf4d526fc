"""Where the launcher listens: beyond loopback only with keys, and the proxy's pages never."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.ray_environment import REPOSITORY

TEMPLATE = """\
frontend prometheus
    bind :9101
frontend http_frontend
    bind *:8000
frontend grpc_frontend
    bind *:9000 proto h2
listen stats
  bind *:8404
"""


@pytest.mark.parametrize("module", ["deploy.foreground", "deploy.local"])
def test_beyond_loopback_keys_are_asked_for(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "--host=0.0.0.0", f"--data-dir={tmp_path}"]
    if module == "deploy.local":
        command.append("up")
    environment = {name: one for name, one in os.environ.items() if not name.startswith("ORRERY_")}
    result = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "ORRERY_API_KEYS" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_other_hosts_are_refused(tmp_path: Path) -> None:
    """The services reach each other by loopback, which a single address would leave out."""
    command = [sys.executable, "-m", "deploy.foreground", "--host=192.0.2.1"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--host" in result.stderr


@pytest.mark.parametrize("own_ports", [False, True])
def test_the_proxys_pages_are_moved_to_loopback_and_nothing_else(
    tmp_path: Path, own_ports: bool
) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(TEMPLATE)
    environment = {**os.environ, "_ORRERY_HAPROXY": "/bin/true"}
    pages = {"RAY_SERVE_HAPROXY_STATS_PORT": "8404", "RAY_SERVE_HAPROXY_METRICS_PORT": "9101"}
    for name, port in pages.items():
        environment.pop(name, None)
        if own_ports:
            environment[name] = port.replace("9101", "9000")  # whatever Serve was told
    script = REPOSITORY / "deploy/haproxy_loopback.sh"
    subprocess.run([script, "-db", "-f", config], env=environment, check=True)
    binds = [line.strip() for line in config.read_text().splitlines() if "bind" in line]
    metrics = "bind :9101" if own_ports else "bind 127.0.0.1:9101"
    assert binds == [metrics, "bind *:8000", "bind *:9000 proto h2", "bind 127.0.0.1:8404"]


def test_a_worker_needs_the_heads_redis() -> None:
    environment = {name: one for name, one in os.environ.items() if name != "REDIS_URL"}
    result = subprocess.run(
        [sys.executable, "-m", "deploy.worker", "--head=127.0.0.1:1"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "REDIS_URL" in result.stderr

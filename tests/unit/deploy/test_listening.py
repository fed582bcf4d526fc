"""Where the launcher listens: beyond loopback only with keys, and the proxy's pages never."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.ray_environment import REPOSITORY
from deploy.ray_token import TOKEN_PATH

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
    ports = ("8500", "9200") if own_ports else ("8404", "9101")
    result, config = with_loopback(tmp_path, TEMPLATE, ports, own_ports)
    assert result.returncode == 0
    binds = [line.strip() for line in config.splitlines() if "bind" in line]
    stats, metrics = ports
    assert binds == [
        f"bind 127.0.0.1:{metrics}",
        "bind *:8000",
        "bind *:9000 proto h2",
        f"bind 127.0.0.1:{stats}",
    ]


@pytest.mark.parametrize("written", ["bind *:8404 v4v6", "bind [::]:8404", "bind *:8405"])
def test_a_proxy_whose_pages_would_stay_open_does_not_start(tmp_path: Path, written: str) -> None:
    template = TEMPLATE.replace("bind *:8404", written)
    result, _ = with_loopback(tmp_path, template, ("8404", "9101"), False)
    assert result.returncode == 1
    assert "8404" in result.stderr


def with_loopback(
    tmp_path: Path, template: str, ports: tuple[str, str], told: bool
) -> tuple[subprocess.CompletedProcess[str], str]:
    """What running it says, and the configuration afterwards. The ports are Serve's or its own."""
    config = tmp_path / "haproxy.cfg"
    config.write_text(template.replace("8404", ports[0]).replace("9101", ports[1]))
    environment = {**os.environ, "_ORRERY_HAPROXY": "/bin/true"}
    pages = ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")
    for name, port in zip(pages, ports, strict=True):
        environment.pop(name, None)
        if told:
            environment[name] = port
    command = [REPOSITORY / "deploy/haproxy_loopback.sh", "-db", "-f", config]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return result, config.read_text()


@pytest.mark.parametrize(
    ("missing", "given"),
    [("REDIS_URL", {TOKEN_PATH: "a"}), (TOKEN_PATH, {"REDIS_URL": "redis://127.0.0.1:1/0"})],
)
def test_a_worker_needs_what_the_head_has(missing: str, given: dict[str, str]) -> None:
    environment = {name: one for name, one in os.environ.items() if name != missing} | given
    result = subprocess.run(
        [sys.executable, "-m", "deploy.worker", "--head=127.0.0.1:1"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"{missing}: expected" in result.stderr

"""The Ray node of one machine: starting its daemons, applying a Serve configuration, draining it.

Ray and Serve are imported late: they read their environment when they are imported.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deploy.ports import HOST
from deploy.ray_environment import REPOSITORY
from deploy.ray_token import ray_token_environment
from deploy.shutdown import LIMIT_S

__all__ = [
    "HOST",
    "Listen",
    "StartError",
    "connect",
    "deploy",
    "disconnect",
    "drain",
    "start_command",
    "start_ray",
    "wait_for",
]

OBJECT_STORE_BYTES = 80 << 20
READY_LIMIT_S = 300.0


class StartError(Exception):
    """The platform could not be started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where Ray's daemons listen: their address, the control store's port (0: any), and others."""

    address: str
    port: int
    metrics_port: int
    client_port: int


def start_ray(environment: dict[str, str], run_dir: Path, listen: Listen) -> str:
    """Starts the node's daemons and returns the address of its control store.

    Raises `StartError` with what Ray printed.
    """
    command = [
        *start_command(run_dir, listen.address, listen.metrics_port),
        "--head",
        f"--port={listen.port}",
        f"--ray-client-server-port={listen.client_port}",
        "--include-dashboard=false",
    ]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    if result.returncode != 0:
        raise StartError(f"Ray did not start:\n{result.stdout}\n{result.stderr}")
    return (run_dir / "ray_current_cluster").read_text().strip()


def start_command(run_dir: Path, address: str, metrics_port: int) -> list[str]:
    """`ray start` with what it takes for every node of a platform."""
    return [
        str(Path(sys.executable).with_name("ray")),
        "start",
        f"--node-ip-address={address}",
        f"--metrics-export-port={metrics_port}",
        f"--temp-dir={run_dir}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        # Replicas ask for no CPU; this only bounds what Ray would start besides them.
        "--num-cpus=2",
        "--include-log-monitor=false",
        "--disable-usage-stats",
        "--log-style=record",
    ]


def connect(address: str, environment: dict[str, str]) -> None:
    """Makes this process a driver of the node."""
    os.environ.update(environment)
    import ray

    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address=address, namespace="serve", log_to_driver=False, logging_level="ERROR")
    # Ray has taken the signal for itself, and would end us where the caller has things to undo.
    signal.signal(signal.SIGTERM, on_sigterm)


def disconnect() -> None:
    """Leaves the node. Before its daemons are ended: Ray would wait a minute for them to answer."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def deploy(config: dict[str, Any]) -> None:
    """Starts Serve and applies a configuration. Raises `StartError` when its shape is wrong."""
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        schema = ServeDeploySchema.model_validate(config)
    except ValidationError as error:
        raise StartError(f"the Serve configuration is wrong: {error}") from error
    serve.start(
        http_options=schema.http_options.model_dump(),
        grpc_options=schema.grpc_options.model_dump(),
    )
    # The declarative way, as a cluster applies its configuration: running streams survive it.
    _get_global_client().deploy_apps(schema)


def wait_for(applications: tuple[str, ...], show: Callable[[str, str], None]) -> None:
    """Waits until all applications run, telling `show` each one's state as it changes.

    Raises `StartError` when one fails, with Serve's reasons, or when it takes too long.
    """
    from ray import serve

    deadline = time.monotonic() + READY_LIMIT_S
    while True:
        statuses = serve.status().applications
        states = {
            name: str(statuses[name].status.value).lower() if name in statuses else "waiting"
            for name in applications
        }
        for name, state in states.items():
            show(name, state)
            if state in ("deploy_failed", "unhealthy"):
                raise StartError(_why_failed(name, statuses[name]))
        if set(states.values()) == {"running"}:
            return
        if time.monotonic() > deadline:
            raise StartError(f"not ready after {READY_LIMIT_S:.0f} s: {states}")
        time.sleep(0.2)


def drain(address: str, run_dir: Path) -> None:
    """Ends the applications in order, then Serve. A node that is silent is left to the caller."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except OSError:  # nobody is there; Ray would look for it for a minute
        return
    try:
        subprocess.run(
            [sys.executable, "-m", "deploy.shutdown", address],
            cwd=REPOSITORY,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **ray_token_environment(run_dir)},
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return


def _why_failed(name: str, status: Any) -> str:
    reasons = [status.message] + [d.message for d in status.deployments.values() if d.message]
    return f"application {name} failed: " + "\n".join(reason for reason in reasons if reason)

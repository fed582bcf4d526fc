"""Makes this machine, or container, a further Ray node of a platform that runs elsewhere.

    python -m deploy.worker --head ray-head:6379

Serve then places replicas here, too, and a proxy that answers as the head's does. The code, the
models and the data folder must be the same as there. Stays until the node ends. SIGTERM and SIGINT
end it in order: Serve starts the replicas elsewhere, and what runs here may finish.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from rich.console import Console

from deploy import node
from deploy.local import data_dir_of
from deploy.ports import free_port, own_address
from deploy.processes import end_processes
from deploy.ray_environment import ray_environment
from services.runtime.config import Settings, SettingsError

__all__ = ["main"]

DRAIN_S = 60


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.worker", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--head", required=True, help="HOST:PORT; the head's --ray-port")
    head = parser.parse_args().head
    try:
        settings = Settings.from_env()
        if settings.redis_url is None:
            raise SettingsError("REDIS_URL: expected the Redis that the head uses")
        redis_url = settings.redis_url.get_secret_value()
    except SettingsError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False)
        return 1
    node_id = uuid.uuid4().hex
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="orrery-", ignore_cleanup_errors=True) as folder:
        run_dir = Path(folder)
        environment = ray_environment(
            node_id, run_dir, free_port(), free_port(), data_dir_of(settings), redis_url
        )
        try:
            return _run(head, environment, run_dir, settings.metrics_port)
        finally:
            end_processes(node_id)


def _run(head: str, environment: dict[str, str], run_dir: Path, metrics_port: int) -> int:
    command = [
        *node.start_command(run_dir, own_address(), metrics_port),
        "--block",
        f"--address={head}",
    ]
    # A session of its own: Ctrl-C is for this process alone.
    with subprocess.Popen(command, env=environment, start_new_session=True) as ray:
        try:
            return ray.wait()
        except KeyboardInterrupt:
            _drain(ray, head, environment)
            return 0
        finally:
            ray.terminate()


def _drain(ray: subprocess.Popen[bytes], head: str, environment: dict[str, str]) -> None:
    """Waits until the node has ended, as Ray lets it once nothing runs there, or the time is up."""
    command = [
        node.RAY,
        "drain-node",
        f"--address={head}",
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=the worker is told to stop",
        f"--deadline-remaining-seconds={DRAIN_S}",
    ]
    environment = {**environment, "RAY_ADDRESS": head}  # whose node of this machine it is
    with contextlib.suppress(subprocess.TimeoutExpired):
        if subprocess.run(command, env=environment, timeout=DRAIN_S, check=False).returncode == 0:
            ray.wait(DRAIN_S)


if __name__ == "__main__":
    sys.exit(main())

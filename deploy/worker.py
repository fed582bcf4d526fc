"""Makes this machine, or container, a further Ray node of a platform that runs elsewhere.

    RAY_AUTH_TOKEN_PATH=FILE python -m deploy.worker --head ray-head:6379

Serve then places replicas here, too, and a proxy that answers as the head's does. The code, the
models and the data folder must be the same as there. Stays until the node ends. SIGTERM ends it in
order: Serve starts the replicas elsewhere, and what runs here may finish.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import uuid
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from deploy import node
from deploy.local import data_dir_of
from deploy.ports import free_port, own_address
from deploy.ray_environment import ray_environment
from deploy.ray_token import TOKEN_PATH
from services.runtime.config import Settings, SettingsError

__all__ = ["main"]

DRAIN_S = 60


def main() -> NoReturn:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.worker", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--head", required=True, help="HOST:PORT; the head's --ray-port")
    head = parser.parse_args().head
    try:
        settings = Settings.from_env()
        if settings.redis_url is None:
            raise SettingsError("REDIS_URL: expected the Redis that the head uses")
        if TOKEN_PATH not in os.environ:
            raise SettingsError(f"{TOKEN_PATH}: expected the file of the token that the head uses")
    except SettingsError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False)
        sys.exit(1)
    run_dir = Path(tempfile.mkdtemp(prefix="orrery-"))
    environment = ray_environment(
        uuid.uuid4().hex,
        run_dir,
        free_port(),
        free_port(),
        data_dir_of(settings),
        settings.redis_url.get_secret_value(),
    )
    # At SIGTERM Ray has its own node drained, and ends once nothing runs there or the time is up.
    environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = str(DRAIN_S)
    command = [
        *node.start_command(run_dir, own_address(), settings.metrics_port),
        "--block",
        f"--address={head}",
    ]
    os.execve(command[0], command, environment)  # noqa: S606 - our own program, fixed arguments


if __name__ == "__main__":
    main()

"""An expert shard in a process of its own, which tests kill.

python -m tests.fakes.moe_shard_process MODEL_FOLDER PORT
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from deploy.ports import free_port

__all__ = ["ShardProcess"]

REPOSITORY = Path(__file__).resolve().parents[2]


class ShardProcess:
    """The process, as its parent sees it. It listens on the same port each time it is started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Does not wait; the router does."""
        assert self._process is None
        arguments = [str(self._folder), str(self._port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.moe_shard_process", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY}:clients"},
        )

    def kill(self) -> None:
        """As `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """It is there, and says nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """After `stop`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


async def _serve(folder: str, port: str) -> None:
    from services.moe.shard.config import ShardConfig
    from tests.fakes.moe_cluster import MODEL_NAME, shard_server

    config = ShardConfig(model_name=MODEL_NAME, model_path=folder, num_threads=1)
    async with shard_server(config, port=int(port)):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))

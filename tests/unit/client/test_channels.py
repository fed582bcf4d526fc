"""Connections: how many, when made, and what survives a fork or another event loop."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

import orrery
from orrery.channels import channel_options
from tests.fakes.generation_server import generation_server_in_thread
from tests.tools import tool
from tests.unit.client.both_clients import AnyClient, AsyncFace, SyncFace
from tests.unit.client.conftest import MakeClient
from tests.unit.client.scripted import ScriptedServer, scripted_server, tokens


async def test_calls_are_spread_over_several_connections(
    server: ScriptedServer, make_client: MakeClient
) -> None:
    server.on("Generate", tokens("a"))
    client = make_client(num_channels=3)
    for _ in range(9):
        await client.call("generate", "x")
    assert len({seen.peer for seen in server.seen}) == 3


async def test_one_channel_is_one_connection(
    server: ScriptedServer, make_client: MakeClient
) -> None:
    server.on("Generate", tokens("a"))
    client = make_client(num_channels=1)
    for _ in range(4):
        await client.call("generate", "x")
    assert len({seen.peer for seen in server.seen}) == 1


async def test_making_and_closing_a_client_needs_no_server(client: AnyClient) -> None:
    await client.close()


def test_blocking_client_works_in_a_forked_child() -> None:
    """The child must not use channels of the parent: they do not survive the fork."""
    script = """
import os, sys
from orrery import Client
client = Client(sys.argv[1])
if sys.argv[2] == "used":
    client.generate("x", max_tokens=2)
child = os.fork()
if child == 0:
    ok = bool(client.generate("x", max_tokens=2).text)
    os._exit(0 if ok else 1)
assert os.waitpid(child, 0)[1] == 0
assert client.generate("x", max_tokens=2).text
"""
    environment = os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "1"}
    with generation_server_in_thread() as server:
        for before in ("unused", "used"):
            command = [sys.executable, "-c", script, server.target, before]
            subprocess.run(command, check=True, timeout=60, env=environment)


def test_async_client_serves_one_loop_after_another() -> None:
    with generation_server_in_thread() as server:
        client = orrery.AsyncClient(server.target)
        for _ in range(2):
            assert asyncio.run(client.generate("x", max_tokens=2)).text
        asyncio.run(client.close())


async def test_async_client_in_use_by_another_loop_says_so(server: ScriptedServer) -> None:
    server.on("Generate", tokens("a"))
    async with orrery.AsyncClient(server.target) as client:
        await client.generate("x")
        with pytest.raises(RuntimeError, match="one event loop"):
            await asyncio.to_thread(lambda: asyncio.run(client.generate("x")))


def certificate(folder: Path) -> tuple[bytes, bytes]:
    """A new key and its certificate for `localhost`, signed by itself."""
    key, signed = folder / "key.pem", folder / "certificate.pem"
    command = f"{tool('openssl')} req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {key} -out {signed}"
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    return key.read_bytes(), signed.read_bytes()


@pytest.mark.parametrize("face", [AsyncFace, SyncFace])
async def test_credentials_are_those_of_the_connection(
    tmp_path: Path, face: type[AsyncFace | SyncFace]
) -> None:
    key, signed = await asyncio.to_thread(certificate, tmp_path)
    served = grpc.ssl_server_credentials([(key, signed)])
    trusted = grpc.ssl_channel_credentials(signed)
    async with scripted_server(served) as server:
        server.on("Generate", tokens("secret"))
        target = server.target.replace("127.0.0.1", "localhost")
        client = face(target, credentials=trusted)
        assert (await client.call("generate", "x")).text == "secret"
        stranger = face(f"grpcs://{target}", max_retries=0)
        with pytest.raises(orrery.UnavailableError):
            await stranger.call("generate", "x")
        for each in (client, stranger):
            await each.close()


@pytest.mark.parametrize(
    ("target", "bypassed"),
    [
        ("127.0.0.1:9000", True),
        ("localhost:9000", True),
        ("[::1]:9000", True),
        ("dns:///127.0.0.1:9000", True),
        ("orrery.example.org:443", False),
        ("10.0.0.1:9000", False),
    ],
)
def test_http_proxy_is_bypassed_on_loopback_only(target: str, bypassed: bool) -> None:
    assert (("grpc.enable_http_proxy", 0) in channel_options(target)) is bypassed

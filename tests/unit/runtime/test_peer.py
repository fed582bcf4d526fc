"""Calls from one service to another: what travels beside them, and how errors come back."""

from __future__ import annotations

import asyncio
import time

import pytest

from orrery import methods
from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from services.runtime.errors import (
    DeadlineExceeded,
    DependencyDown,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Unauthenticated,
)
from services.runtime.peer import Caller, Peer
from services.runtime.rpc import Call
from tests.fakes.generation_server import generation_server

PROMPT = common_pb2.Prompt(text="hello")


def caller(timeout_s: float = 10.0, api_key: str | None = None) -> Caller:
    return Caller("id-1", api_key, time.monotonic() + timeout_s)


def test_caller_of_a_call_carries_its_id_key_and_deadline() -> None:
    call = Call("Ask", "r-1", 100.0, 107.0, "Bearer the-key")
    made = Caller.of(call, default_timeout_s=60.0)
    assert (made.request_id, made.api_key, made.deadline_s) == ("r-1", "the-key", 107.0)
    assert "the-key" not in repr(made)


def test_caller_of_a_call_without_deadline_gets_the_default() -> None:
    made = Caller.of(Call("Ask", "r-1", 100.0, None), default_timeout_s=60.0)
    assert (made.api_key, made.deadline_s) == (None, 160.0)


async def test_unary_answers_and_passes_on_the_key() -> None:
    async with generation_server(api_keys=("secret",)) as server:
        peer = Peer(server.target)
        request = pb.GetModelRequest()
        response = await peer.unary("", methods.GET_MODEL, request, caller(api_key="secret"))
        assert response.model == "toy"
        with pytest.raises(Unauthenticated):
            await peer.unary("", methods.GET_MODEL, request, caller())
        await peer.close()


async def test_error_of_the_other_service_comes_as_it_was_meant() -> None:
    async with generation_server() as server:
        peer = Peer(server.target)
        with pytest.raises(ModelNotFound):
            await peer.unary("", methods.GET_MODEL, pb.GetModelRequest(model="other"), caller())
        bad = pb.GenerateRequest(prompt=PROMPT, sampling=pb.SamplingParams(temperature=-1))
        with pytest.raises(InvalidRequest) as caught:
            async for _ in peer.server_stream("", methods.GENERATE, bad, caller()):
                pass
        assert caught.value.field == "temperature"
        await peer.close()


async def test_nobody_there_is_a_dependency_that_is_down() -> None:
    peer = Peer("127.0.0.1:1", max_retries=0)
    with pytest.raises(DependencyDown, match="'llama' does not answer"):
        await peer.unary("llama", methods.GET_MODEL, pb.GetModelRequest(), caller(2.0))
    await peer.close()


async def test_time_that_is_up_is_the_callers_deadline() -> None:
    peer = Peer("127.0.0.1:1")
    with pytest.raises(DeadlineExceeded):
        await peer.unary("llama", methods.GET_MODEL, pb.GetModelRequest(), caller(-1.0))
    await peer.close()


async def test_closing_a_stream_frees_what_it_held() -> None:
    async with generation_server() as server:
        peer = Peer(server.target)
        request = pb.GenerateRequest(prompt=PROMPT, sampling=pb.SamplingParams(max_tokens=400))
        stream = peer.server_stream("", methods.GENERATE, request, caller())
        await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(5):
            await _until_idle(peer)
        await peer.close()


async def test_calls_of_a_peer_that_is_closed_end_as_those_of_a_service_that_stops() -> None:
    async with generation_server() as server:
        peer = Peer(server.target)
        request = pb.GenerateRequest(prompt=PROMPT, sampling=pb.SamplingParams(max_tokens=400))
        stream = peer.server_stream("", methods.GENERATE, request, caller())
        await anext(stream)

        async def read() -> None:
            async for _ in stream:
                pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        await peer.close()
        with pytest.raises(NotReady, match="shutting down"):
            await reading
        with pytest.raises(NotReady, match="shutting down"):
            await peer.unary("", methods.GET_LOAD, pb.GetLoadRequest(), caller())


async def _until_idle(peer: Peer) -> None:
    load = await peer.unary("", methods.GET_LOAD, pb.GetLoadRequest(), caller())
    if load.num_running:
        await asyncio.sleep(0.01)
        await _until_idle(peer)

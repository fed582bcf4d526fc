"""Asking CLIP how like the prompt pictures are, over a real gRPC server with a scripted answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest

from orrery.v1 import embedding_pb2 as pb
from orrery.v1.embedding_pb2_grpc import (
    EmbeddingServiceServicer,
    add_EmbeddingServiceServicer_to_server,
)
from services.image.png import encode_png
from services.image.ranking import RANKED_SIDE, PeerRanker, best_first
from services.runtime.errors import (
    ContextTooLong,
    DependencyDown,
    Internal,
    InvalidRequest,
    NotReady,
    OrreryError,
)
from services.runtime.message_size import MAX_MESSAGE_BYTES
from services.runtime.peer import Caller, Peer
from services.runtime.rpc import Call, RpcPolicy, unary


class ScriptedSimilarity(EmbeddingServiceServicer):
    """Answers with the cosines it is given, and keeps what it was asked."""

    def __init__(self, cosines: list[float], failure: OrreryError | None = None) -> None:
        self.cosines = cosines
        self.failure = failure
        self.requests: list[pb.SimilarityRequest] = []
        self.rpc = RpcPolicy()

    @unary(pb.SimilarityResponse)
    async def Similarity(self, request: pb.SimilarityRequest, call: Call) -> pb.SimilarityResponse:
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        return pb.SimilarityResponse(rows=[pb.SimilarityRow(cosines=self.cosines)])


@asynccontextmanager
async def ranking(servicer: ScriptedSimilarity) -> AsyncIterator[PeerRanker]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    add_EmbeddingServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    peer = Peer(f"127.0.0.1:{port}")
    try:
        yield PeerRanker(peer, "clip")
    finally:
        await peer.close()
        await server.stop(grace=None)


def caller(seconds: float = 10.0) -> Caller:
    return Caller("request-1", None, time.monotonic() + seconds)


async def test_one_call_has_all_pictures() -> None:
    servicer = ScriptedSimilarity([0.25, 0.5])
    async with ranking(servicer) as ranker:
        cosines = await ranker.similarities("a lamp", [b"one", b"two"], caller())
    assert cosines == [0.25, 0.5]
    (request,) = servicer.requests
    assert [entry.text for entry in request.left] == ["a lamp"]
    assert [entry.image.data for entry in request.right] == [b"one", b"two"]


async def test_pictures_that_png_cannot_make_smaller_fit_the_platforms_messages() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (RANKED_SIDE, RANKED_SIDE, 3), np.uint8)
    servicer = ScriptedSimilarity([float(i) for i in range(16)])
    async with ranking(servicer) as ranker:
        cosines = await ranker.similarities("a lamp", [encode_png(noise)] * 48, caller())
    assert cosines == servicer.cosines * 3
    assert [len(request.right) for request in servicer.requests] == [16] * 3
    assert max(request.ByteSize() for request in servicer.requests) < MAX_MESSAGE_BYTES


async def test_check_asks_without_pictures() -> None:
    servicer = ScriptedSimilarity([1.0])
    async with ranking(servicer) as ranker:
        await ranker.check("a lamp", caller())
    (request,) = servicer.requests
    assert [entry.WhichOneof("kind") for entry in request.right] == ["text"]


async def test_prompt_too_long_for_clip_is_the_prompts_fault() -> None:
    failure = ContextTooLong("left[0].text: 90 tokens", field="left[0].text")
    async with ranking(ScriptedSimilarity([], failure)) as ranker:
        with pytest.raises(ContextTooLong) as caught:
            await ranker.check("a lamp", caller())
    assert (caught.value.field, caught.value.stage) == ("prompt", "rank")


@pytest.mark.parametrize("field", ["right[0].image", "left", "left and right"])
async def test_refused_picture_is_our_own_fault(field: str) -> None:
    failure = InvalidRequest(f"{field}: too much", field=field)
    async with ranking(ScriptedSimilarity([], failure)) as ranker:
        with pytest.raises(Internal):
            await ranker.similarities("a lamp", [b"one"], caller())


async def test_what_the_service_says_of_itself_is_passed_on() -> None:
    async with ranking(ScriptedSimilarity([], NotReady("loading"))) as ranker:
        with pytest.raises(NotReady, match="loading"):
            await ranker.check("a lamp", caller())


async def test_answer_of_another_length_is_no_answer() -> None:
    async with ranking(ScriptedSimilarity([0.5])) as ranker:
        with pytest.raises(DependencyDown):
            await ranker.similarities("a lamp", [b"one", b"two"], caller())


async def test_service_that_is_away_is_a_dependency_that_is_down() -> None:
    peer = Peer("127.0.0.1:9", max_retries=0)
    try:
        with pytest.raises(DependencyDown, match="clip"):
            await PeerRanker(peer, "clip").check("a lamp", caller(seconds=2.0))
    finally:
        await peer.close()


def test_best_first_and_equal_ones_in_their_order() -> None:
    assert best_first([0.1, 0.9, 0.1, 0.95]) == [3, 1, 0, 2]
    assert best_first([]) == []

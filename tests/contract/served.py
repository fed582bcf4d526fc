"""What a contract test talks to, and the few words it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.rpc import error_details_pb2, status_pb2

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from orrery.v1.generation_pb2_grpc import GenerationServiceStub

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Served:
    """A generation application: in this process or on the running platform."""

    target: str
    channel: grpc.aio.Channel
    metadata: Metadata  # with the application's name
    model: str
    folder: Path  # the checkpoint it serves
    http_url: str | None  # of the gateway in front of it, if there is one
    exact: bool  # float32, so that log-probabilities can be held to transformers' closely

    @property
    def stub(self) -> GenerationServiceStub:
        return GenerationServiceStub(self.channel)

    async def generate(self, request: pb.GenerateRequest) -> list[pb.GenerateResponse]:
        """All messages of one stream."""
        return [message async for message in self.stub.Generate(request, metadata=self.metadata)]

    async def load(self) -> pb.GetLoadResponse:
        response: pb.GetLoadResponse = await self.stub.GetLoad(
            pb.GetLoadRequest(), metadata=self.metadata
        )
        return response

    async def info(self) -> pb.GetModelResponse:
        response: pb.GetModelResponse = await self.stub.GetModel(
            pb.GetModelRequest(), metadata=self.metadata
        )
        return response

    async def wait_until_idle(self, limit_s: float) -> pb.GetLoadResponse:
        """The load once nothing runs and every block is free, or as it is when time is up."""
        end = time.monotonic() + limit_s
        while True:
            load = await self.load()
            if is_idle(load) or time.monotonic() > end:
                return load
            await asyncio.sleep(0.02)


def is_idle(load: pb.GetLoadResponse) -> bool:
    """Nothing runs, nothing waits, every block is free."""
    return (load.num_running, load.num_waiting, load.num_free_blocks) == (0, 0, load.num_blocks)


def text(value: str) -> common_pb2.Prompt:
    return common_pb2.Prompt(text=value)


def tokens(ids: Sequence[int]) -> common_pb2.Prompt:
    return common_pb2.Prompt(token_ids=common_pb2.TokenIds(ids=ids))


def chat(*contents: str) -> common_pb2.Prompt:
    """User and assistant in turn, the user first."""
    roles = (common_pb2.ROLE_USER, common_pb2.ROLE_ASSISTANT)
    turns = [
        common_pb2.ChatMessage(role=roles[number % 2], content=content)
        for number, content in enumerate(contents)
    ]
    return common_pb2.Prompt(chat=common_pb2.ChatMessages(messages=turns))


def greedy(**settings: object) -> pb.SamplingParams:
    """Greedy to exactly `max_tokens`, unless told otherwise."""
    return pb.SamplingParams(**{"temperature": 0.0, "ignore_eos": True, **settings})


def joined(messages: Sequence[pb.GenerateResponse], index: int = 0) -> str:
    """The text of one choice."""
    return "".join(d.text for m in messages for d in m.choices if d.index == index)


def token_ids(messages: Sequence[pb.GenerateResponse], index: int = 0) -> list[int]:
    """The token ids of one choice."""
    return [t for m in messages for d in m.choices if d.index == index for t in d.token_ids]


def ends(messages: AsyncIterable[pb.GenerateResponse] | Sequence[pb.GenerateResponse]) -> dict:
    """Finish reason by choice; fails when a choice ends twice."""
    reasons: dict[int, int] = {}
    for message in messages:
        for delta in message.choices:
            if delta.finish_reason != pb.FINISH_REASON_UNSPECIFIED:
                assert delta.index not in reasons, "a choice ended twice"
                reasons[delta.index] = delta.finish_reason
    return reasons


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call was refused."""

    code: grpc.StatusCode
    reason: str
    field: str | None
    request_id: str | None
    stage: str | None
    retry_after_s: float | None


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Reads the status and its `ErrorInfo`."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "orrery"
    assert status.message == error.details()
    assert status.code == error.code().value[0]
    said = info.metadata
    return Refusal(
        error.code(),
        info.reason,
        said.get("field"),
        said.get("request_id"),
        said.get("stage"),
        float(said["retry_after_s"]) if "retry_after_s" in said else None,
    )

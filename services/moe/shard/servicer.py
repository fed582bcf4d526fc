"""`ExpertShardService` over the shard's work: protobuf in, protobuf out. Knows nothing of Ray."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing

from orrery.v1 import common_pb2, retrieval_pb2
from orrery.v1 import expert_shard_pb2 as pb
from services.moe.model_facts import ModelFacts
from services.moe.shard import messages
from services.moe.shard.compute_stream import ComputeStream
from services.moe.shard.config import ShardConfig
from services.moe.shard.service import Computed, ShardService
from services.moe.tensors import dtype_number, to_message
from services.runtime.process import resident_bytes
from services.runtime.rpc import Call, RpcPolicy, bidi_stream, unary

__all__ = ["ShardServicer"]


class ShardServicer:
    """The RPCs of one shard."""

    def __init__(
        self, config: ShardConfig, model: ModelFacts, service: ShardService, rpc: RpcPolicy
    ) -> None:
        self._config = config
        self._model = model
        self._service = service
        self._rpc = rpc

    @property
    def rpc(self) -> RpcPolicy:
        """What every call goes through."""
        return self._rpc

    async def close(self) -> None:
        """Drains: refuses new calls, lets running ones finish in time."""
        await self._rpc.lifecycle.drain(self._config.drain_timeout_s)
        self._service.close()

    @bidi_stream(kept_open=True)
    async def Compute(
        self, requests: AsyncIterator[pb.ComputeRequest], call: Call
    ) -> AsyncGenerator[pb.ComputeResponse, None]:
        """Rows through their experts, of many messages at once."""

        def told(error: Exception) -> retrieval_pb2.ItemError:
            return messages.item_error(self._rpc.taxonomic(error, call.method, call.request_id))

        # More than may wait: what is beyond is to be refused, not left unread.
        stream = ComputeStream(self._compute, told, 2 * self._config.max_waiting_bytes)
        async with aclosing(stream.answers(requests)) as answers:
            async for answer in answers:
                yield answer

    @unary(pb.LoadExpertsResponse)
    async def LoadExperts(
        self, request: pb.LoadExpertsRequest, call: Call
    ) -> pb.LoadExpertsResponse:
        """Answers once they can be computed."""
        messages.check_weight_hash(request.weight_hash, self._model)
        keys = messages.expert_keys(request.experts, self._model)
        await self._service.load(keys, self._deadline_s(call))
        return pb.LoadExpertsResponse(
            request_id=call.request_id, expert_bytes=self._service.store.num_bytes
        )

    @unary(pb.DropExpertsResponse)
    async def DropExperts(
        self, request: pb.DropExpertsRequest, call: Call
    ) -> pb.DropExpertsResponse:
        """Calls under way still finish."""
        messages.check_weight_hash(request.weight_hash, self._model)
        keys = messages.expert_keys(request.experts, self._model)
        await self._service.drop(keys, self._deadline_s(call))
        return pb.DropExpertsResponse(
            request_id=call.request_id, expert_bytes=self._service.store.num_bytes
        )

    @unary(pb.GetShardResponse)
    async def GetShard(self, _request: pb.GetShardRequest, call: Call) -> pb.GetShardResponse:
        """What it holds, what it does."""
        store = self._service.store
        return pb.GetShardResponse(
            request_id=call.request_id,
            weight_hash=self._model.weight_hash,
            experts=messages.expert_ids(store.keys),
            expert_bytes=store.num_bytes,
            max_expert_bytes=store.max_bytes,
            num_rows_done=self._service.num_rows_done,
            num_running=self._service.num_calls,
            resident_bytes=resident_bytes(),
            dtype=dtype_number(self._model.dtype),
        )

    def _compute(
        self, request: pb.ComputeRequest
    ) -> pb.ComputeResponse | Awaitable[pb.ComputeResponse]:
        arrival_s = time.monotonic()
        work = messages.expert_rows(request, self._model)
        timeout_s = self._config.default_timeout_s
        if request.work.HasField("timeout_ms"):
            timeout_s = request.work.timeout_ms / 1000
        done = self._service.compute(work, arrival_s + timeout_s)
        if isinstance(done, Computed):
            return _answer(done, arrival_s)
        return _answered(done, arrival_s)

    def _deadline_s(self, call: Call) -> float:
        return time.monotonic() + call.left_s(self._config.default_timeout_s)


async def _answered(coming: Awaitable[Computed], arrival_s: float) -> pb.ComputeResponse:
    return _answer(await coming, arrival_s)


def _answer(done: Computed, arrival_s: float) -> pb.ComputeResponse:
    total_s = time.monotonic() - arrival_s
    return pb.ComputeResponse(
        rows=to_message(done.rows),
        timing=common_pb2.Timing(queue_ns=int(done.queue_s * 1e9), total_ns=int(total_s * 1e9)),
    )

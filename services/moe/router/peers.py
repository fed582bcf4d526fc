"""Expert shards over gRPC: the router's words to protobuf and back.

Calls are the router's own, not its callers': a batch has many. So they carry its key.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Iterable
from functools import partial

from torch import Tensor

from orrery import methods
from orrery.v1 import expert_shard_pb2 as pb
from orrery.v1.tensor_pb2 import TensorDtype
from services.moe.expert_key import ExpertKey
from services.moe.model_facts import ModelFacts
from services.moe.router.shard_stream import ShardStream
from services.moe.router.shards import ShardReport
from services.moe.shard_work import ShardWork
from services.moe.tensors import RowsFormat, dtype_number, read_rows, to_message
from services.runtime.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    NotReady,
    Overloaded,
)
from services.runtime.peer import Caller, Peer, error_of_item

__all__ = ["PeerShard"]


class PeerShard:
    """A `services.moe.router.shards.ShardClient`: one Serve application.

    `peer` must not retry by itself: the router knows better where else to ask.
    """

    def __init__(
        self, peer: Peer, application: str, model: ModelFacts, api_key: str | None
    ) -> None:
        self._peer = peer
        self._application = application
        self._model = model
        self._api_key = api_key
        self._stream: ShardStream | None = None

    def compute(self, work: ShardWork, timeout_s: float) -> asyncio.Future[Tensor]:
        request = pb.ExpertWork(
            weight_hash=self._model.weight_hash,
            layer=work.layer,
            expert_ids=work.expert_ids,
            num_rows=work.counts,
            rows=to_message(work.rows),
            timeout_ms=max(1, int(timeout_s * 1000)),
        )
        return self._open_stream().ask(request, timeout_s, partial(self._rows, len(work.rows)))

    async def load(self, keys: Iterable[ExpertKey], timeout_s: float) -> None:
        request = pb.LoadExpertsRequest(
            weight_hash=self._model.weight_hash, experts=_messages(keys)
        )
        await self._peer.unary(
            self._application, methods.LOAD_EXPERTS, request, self._caller(timeout_s)
        )

    async def drop(self, keys: Iterable[ExpertKey], timeout_s: float) -> None:
        request = pb.DropExpertsRequest(
            weight_hash=self._model.weight_hash, experts=_messages(keys)
        )
        await self._peer.unary(
            self._application, methods.DROP_EXPERTS, request, self._caller(timeout_s)
        )

    async def report(self, timeout_s: float) -> ShardReport:
        response = await self._peer.unary(
            self._application, methods.GET_SHARD, pb.GetShardRequest(), self._caller(timeout_s)
        )
        if response.dtype != dtype_number(self._model.dtype):
            name = TensorDtype.Name(response.dtype)
            raise NotReady(f"the shard {self._application!r} computes in another type: {name}")
        return ShardReport(
            weight_hash=response.weight_hash,
            keys=frozenset(ExpertKey(key.layer, key.expert) for key in response.experts),
            max_expert_bytes=response.max_expert_bytes,
        )

    async def close(self) -> None:
        """Gives up what is under way in its stream."""
        if self._stream is not None:
            await self._stream.close()

    def _open_stream(self) -> ShardStream:
        if self._stream is None or not self._stream.usable:
            peer, caller = self._peer, self._caller(math.inf)
            self._stream = ShardStream(
                lambda requests: peer.bidi_stream(
                    self._application, methods.COMPUTE_EXPERTS, requests, caller
                )
            )
        return self._stream

    def _rows(self, num_rows: int, response: pb.ComputeResponse) -> Tensor:
        if response.HasField("error"):
            error = error_of_item(response.error)
            if isinstance(error, DeadlineExceeded):  # who says so is there, and has too much to do
                raise Overloaded(error.message)
            raise error
        model = self._model
        expected = RowsFormat(model.hidden_size, model.dtype, num_rows)
        try:
            rows = read_rows(response.rows, expected, "rows")
        except InvalidRequest as wrong:  # no client is to blame
            raise Internal(f"the shard {self._application!r} answered with other rows") from wrong
        if len(rows) != num_rows:
            raise Internal(f"the shard {self._application!r} answered with other rows")
        return rows

    def _caller(self, timeout_s: float) -> Caller:
        return Caller(uuid.uuid4().hex, self._api_key, time.monotonic() + timeout_s)


def _messages(keys: Iterable[ExpertKey]) -> list[pb.ExpertId]:
    return [pb.ExpertId(layer=key.layer, expert=key.expert) for key in keys]

"""Expert shards over gRPC: the router's words to protobuf and back.

Calls are the router's own, not its callers': a batch has many. So they carry its key.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Iterable

from torch import Tensor

from orrery import methods
from orrery.v1 import expert_shard_pb2 as pb
from services.moe.expert_key import ExpertKey
from services.moe.model_facts import ModelFacts
from services.moe.router.shard_stream import ShardStream
from services.moe.router.shards import ShardReport, ShardWork
from services.moe.tensors import RowsFormat, read_rows, to_message
from services.runtime.errors import DeadlineExceeded, Internal, InvalidRequest
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

    async def compute(self, work: ShardWork, timeout_s: float) -> Tensor:
        stream = self._open_stream()
        request = pb.ExpertWork(
            weight_hash=self._model.weight_hash,
            layer=work.layer,
            expert_ids=work.expert_ids,
            num_rows=work.counts,
            rows=to_message(work.rows),
            timeout_ms=max(1, int(timeout_s * 1000)),
        )
        try:
            async with asyncio.timeout(timeout_s):
                response = await stream.ask(request)
        except TimeoutError:
            # It may be the connection that is silent: the next work goes over another stream.
            await stream.close()
            raise DeadlineExceeded(
                f"the shard {self._application!r} has not answered in time"
            ) from None
        if response.HasField("error"):
            raise error_of_item(response.error)
        return self._rows(response, work.rows)

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
        return ShardReport(
            weight_hash=response.weight_hash,
            keys=frozenset(ExpertKey(key.layer, key.expert) for key in response.experts),
            expert_bytes=response.expert_bytes,
            max_expert_bytes=response.max_expert_bytes,
            num_rows_done=response.num_rows_done,
        )

    async def close(self) -> None:
        """Gives up what is under way in its stream."""
        if self._stream is not None:
            await self._stream.close()

    def _open_stream(self) -> ShardStream:
        if self._stream is None or self._stream.ended:
            peer, caller = self._peer, self._caller(math.inf)
            self._stream = ShardStream(
                lambda requests: peer.bidi_stream(
                    self._application, methods.COMPUTE_EXPERTS, requests, caller
                )
            )
        return self._stream

    def _rows(self, response: pb.ComputeResponse, like: Tensor) -> Tensor:
        expected = RowsFormat(self._model.hidden_size, self._model.dtype, len(like))
        try:
            rows = read_rows(response.rows, expected, "rows")
        except InvalidRequest as error:  # no client is to blame
            raise Internal(f"the shard {self._application!r} answered with other rows") from error
        if len(rows) != len(like):
            raise Internal(f"the shard {self._application!r} answered with other rows")
        return rows.to(like.device)

    def _caller(self, timeout_s: float) -> Caller:
        return Caller(uuid.uuid4().hex, self._api_key, time.monotonic() + timeout_s)


def _messages(keys: Iterable[ExpertKey]) -> list[pb.ExpertId]:
    return [pb.ExpertId(layer=key.layer, expert=key.expert) for key in keys]

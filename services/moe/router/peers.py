"""Expert shards over gRPC: the router's words to protobuf and back.

Calls are the router's own, not its callers': a batch has many. So they carry its key.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable

from torch import Tensor

from orrery import methods
from orrery.v1 import expert_shard_pb2 as pb
from services.moe.expert_key import ExpertKey
from services.moe.model_facts import ModelFacts
from services.moe.router.shards import ShardReport, ShardWork
from services.moe.tensors import RowsFormat, read_rows, to_message
from services.runtime.errors import Internal, InvalidRequest
from services.runtime.peer import Caller, Peer

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

    async def compute(self, work: ShardWork, timeout_s: float) -> Tensor:
        request = pb.ComputeRequest(
            weight_hash=self._model.weight_hash,
            layer=work.layer,
            expert_ids=work.expert_ids,
            num_rows=work.counts,
            rows=to_message(work.rows),
        )
        response = await self._peer.unary(
            self._application, methods.COMPUTE_EXPERTS, request, self._caller(timeout_s)
        )
        expected = RowsFormat(self._model.hidden_size, self._model.dtype, len(work.rows))
        try:
            rows = read_rows(response.rows, expected, "rows")
        except InvalidRequest as error:  # no client is to blame
            raise Internal(f"the shard {self._application!r} answered with other rows") from error
        if len(rows) != len(work.rows):
            raise Internal(f"the shard {self._application!r} answered with other rows")
        return rows.to(work.rows.device)

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

    def _caller(self, timeout_s: float) -> Caller:
        return Caller(uuid.uuid4().hex, self._api_key, time.monotonic() + timeout_s)


def _messages(keys: Iterable[ExpertKey]) -> list[pb.ExpertId]:
    return [pb.ExpertId(layer=key.layer, expert=key.expert) for key in keys]

"""`MoeRouterService` over the router's work: protobuf in, protobuf out.

The same servicer runs under a plain `grpc.aio` server and inside Ray Serve. Knows nothing of Ray.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator

from torch import Tensor

from orrery.v1 import common_pb2, tensor_pb2
from orrery.v1 import moe_pb2 as pb
from services.moe.router import messages
from services.moe.router.config import RouterConfig
from services.moe.router.dispatcher import INLINE_NUMBERS, Dispatched
from services.moe.router.service import RouterService
from services.moe.tensors import dtype_number, to_message
from services.runtime.errors import InvalidRequest, ModelNotFound
from services.runtime.offload import offload_if_large
from services.runtime.process import resident_bytes
from services.runtime.rpc import Call, RpcPolicy, bidi_stream, unary

__all__ = ["RouterServicer"]


class RouterServicer:
    """The RPCs of one application: one model's sparse layers."""

    def __init__(self, config: RouterConfig, service: RouterService, rpc: RpcPolicy) -> None:
        self._config = config
        self._service = service
        self._rpc = rpc

    @property
    def rpc(self) -> RpcPolicy:
        """What every call goes through."""
        return self._rpc

    async def close(self) -> None:
        """Drains: refuses new calls, lets running ones finish in time."""
        await self._rpc.lifecycle.drain(self._config.drain_timeout_s)
        await self._service.close()

    @unary(pb.RouteResponse)
    async def Route(self, request: pb.RouteRequest, call: Call) -> pb.RouteResponse:
        """Which experts tokens go to. Of hidden states no expert is computed."""
        self._check_model(request.model)
        answer = pb.RouteResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            num_experts_per_token=self._service.model.gating.num_experts_per_token,
        )
        match request.WhichOneof("input"):
            case "hidden":
                layer, hidden = self._layer_input(request.hidden, "hidden")
                routed = await self._service.route(layer, hidden)
                answer.layers.append(messages.layer_routing(layer, routed))
            case "text":
                found = await self._service.route_text(request.text, self._deadline_s(call))
                answer.token_ids.extend(found.token_ids)
                answer.layers.extend(messages.layers_routing(found.layers))
            case "token_ids":
                ids = request.token_ids.ids
                found = await self._service.route_ids(ids, self._deadline_s(call))
                answer.token_ids.extend(found.token_ids)
                answer.layers.extend(messages.layers_routing(found.layers))
            case _:
                raise InvalidRequest(
                    "input: expected hidden states, a text or token ids", field="input"
                )
        answer.timing.total_ns = call.total_ns
        return answer

    @unary(pb.DispatchResponse)
    async def Dispatch(self, request: pb.DispatchRequest, call: Call) -> pb.DispatchResponse:
        """A sparse layer's output for hidden states."""
        self._check_model(request.model)
        layer, hidden = self._layer_input(request.input, "input")
        source = object()
        with self._service.dispatcher.batcher.source(source):
            done = await self._service.dispatch(layer, hidden, source, self._deadline_s(call))
        return pb.DispatchResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            hidden=await _message(done.hidden),
            placement_version=done.placement_version,
            num_dropped=done.num_dropped,
            timing=common_pb2.Timing(total_ns=call.total_ns),
        )

    @bidi_stream(kept_open=True)
    async def DispatchStream(
        self, requests: AsyncIterator[pb.DispatchStreamRequest], call: Call
    ) -> AsyncGenerator[pb.DispatchStreamResponse, None]:
        """The layers of a decoder's steps one after another."""
        source = object()
        with self._service.dispatcher.batcher.source(source):
            async for request in requests:
                self._check_model(request.model)
                layer, hidden = self._layer_input(request.input, "input")
                done: Dispatched = await self._service.dispatch(
                    layer, hidden, source, self._message_deadline_s(request, call)
                )
                yield pb.DispatchStreamResponse(
                    sequence=request.sequence,
                    hidden=await _message(done.hidden),
                    placement_version=done.placement_version,
                    num_dropped=done.num_dropped,
                )

    @unary(pb.GetPlacementResponse)
    async def GetPlacement(
        self, request: pb.GetPlacementRequest, call: Call
    ) -> pb.GetPlacementResponse:
        """Which shard holds which expert."""
        self._check_model(request.model)
        placement = self._service.placement
        return pb.GetPlacementResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            version=placement.version,
            experts=messages.expert_placements(placement),
            shards=messages.shard_statuses(
                self._service.shards, self._service.load(), self._service.model
            ),
        )

    @unary(pb.GetExpertLoadResponse)
    async def GetExpertLoad(
        self, request: pb.GetExpertLoadRequest, call: Call
    ) -> pb.GetExpertLoadResponse:
        """How many tokens went to each expert of each layer."""
        self._check_model(request.model)
        window_s = request.window_s if request.HasField("window_s") else None
        most_s = self._config.load_window_s
        if window_s is not None and not 1 <= window_s <= most_s:
            raise InvalidRequest(
                f"window_s: expected 1 to {most_s} seconds, got {window_s}", field="window_s"
            )
        load = self._service.load(window_s)
        return pb.GetExpertLoadResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            layers=messages.layer_loads(self._service.model, load),
            shards=messages.shard_statuses(self._service.shards, load, self._service.model),
            window_s=load.window_s,
        )

    @unary(pb.RebalanceResponse)
    async def Rebalance(self, request: pb.RebalanceRequest, call: Call) -> pb.RebalanceResponse:
        """Moves and replicates experts so that the shards' load evens out."""
        self._check_model(request.model)
        limit = request.max_shard_bytes if request.HasField("max_shard_bytes") else None
        done = await self._service.rebalance(
            limit, dry_run=request.dry_run, deadline_s=self._deadline_s(call)
        )
        answer = messages.rebalanced(done)
        answer.request_id, answer.model = call.request_id, self._config.model_name
        return answer

    @unary(pb.AnalyzeResponse)
    async def Analyze(self, request: pb.AnalyzeRequest, call: Call) -> pb.AnalyzeResponse:
        """How a text is routed, and what the gates' numbers say."""
        self._check_model(request.model)
        routed, found = await self._service.analyze(request.text, self._deadline_s(call))
        gating = self._service.model.gating
        return pb.AnalyzeResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            num_experts=gating.num_experts,
            num_experts_per_token=gating.num_experts_per_token,
            token_ids=routed.token_ids,
            tokens=routed.tokens,
            layers=map(messages.layer_analysis, found.layers),
            token_classes=map(messages.class_routing, found.classes),
            timing=common_pb2.Timing(total_ns=call.total_ns),
        )

    @unary(pb.GetMoeModelResponse)
    async def GetMoeModel(
        self, request: pb.GetMoeModelRequest, call: Call
    ) -> pb.GetMoeModelResponse:
        """Sizes, gating, limits."""
        self._check_model(request.model)
        config, model = self._config, self._service.model
        return pb.GetMoeModelResponse(
            request_id=call.request_id,
            model=config.model_name,
            weight_hash=model.weight_hash,
            hidden_size=model.hidden_size,
            num_experts=model.num_experts,
            num_experts_per_token=model.gating.num_experts_per_token,
            layers=model.layers,
            dtype=dtype_number(model.dtype),
            bytes_per_expert=model.bytes_per_expert,
            max_tokens=self._service.max_tokens,
            max_text_bytes=config.limits.max_text_bytes,
            capacity_factor=config.capacity.factor or 0.0,
            capacity_policy=messages.capacity_policy(config.capacity),
            aliases=config.aliases,
        )

    @unary(pb.MoeRouterServiceGetLoadResponse)
    async def GetLoad(
        self, _request: pb.MoeRouterServiceGetLoadRequest, call: Call
    ) -> pb.MoeRouterServiceGetLoadResponse:
        """What the service is doing right now."""
        dispatcher = self._service.dispatcher
        return pb.MoeRouterServiceGetLoadResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            num_running=self._rpc.lifecycle.num_in_flight - 1,
            num_waiting_tokens=dispatcher.num_waiting_tokens,
            num_tokens_done=dispatcher.num_tokens_done,
            num_dispatching=dispatcher.num_attempts,
            resident_bytes=resident_bytes(),
        )

    def _layer_input(self, message: pb.LayerInput, field: str) -> messages.LayerInput:
        service = self._service
        return messages.layer_input(message, service.model, service.max_tokens, field)

    def _deadline_s(self, call: Call) -> float:
        return time.monotonic() + call.left_s(self._config.limits.default_timeout_s)

    def _message_deadline_s(self, request: pb.DispatchStreamRequest, call: Call) -> float:
        """The nearer of the message's own and the stream's."""
        left_s = self._config.limits.default_timeout_s
        if request.HasField("timeout_ms"):
            if not request.timeout_ms:
                raise InvalidRequest("timeout_ms: expected at least 1", field="timeout_ms")
            left_s = request.timeout_ms / 1000
        return time.monotonic() + min(left_s, call.left_s(left_s))

    def _check_model(self, model: str) -> None:
        if not self._config.serves(model):
            raise ModelNotFound(
                f"model: this application serves {self._config.model_name!r}, not {model[:128]!r}",
                field="model",
            )


async def _message(hidden: Tensor) -> tensor_pb2.Tensor:
    return await offload_if_large(hidden.numel(), lambda: to_message(hidden), above=INLINE_NUMBERS)

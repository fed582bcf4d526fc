"""The router that contract tests talk to, in this process or on the platform; decoders over it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import torch
from torch import Tensor

from orrery.v1 import moe_pb2 as pb
from orrery.v1 import tensor_pb2
from orrery.v1.moe_pb2_grpc import MoeRouterServiceStub
from services.engine.config import EngineConfig
from services.engine.engine import LLMEngine
from services.engine.errors import ExpertsUnavailableError
from services.engine.expert_weights import load_experts, load_gates
from services.engine.layers.moe import SparseLayer, combine, expert_ffn, group_by_expert
from services.engine.request import FinishReason, Request, SamplingParams
from services.generation.config import RemoteExpertsConfig
from services.generation.remote_experts import RemoteExperts
from services.moe.tensors import to_message
from services.runtime.message_size import MAX_MESSAGE_BYTES
from tests.fakes.moe_model import NUM_EXPERTS

APPLICATION = "moe-router"
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
ENGINE = EngineConfig(
    dtype="float32", num_threads=1, kv_cache_bytes=8 << 20, max_num_seqs=8, block_size=8
)
_DTYPES = {
    tensor_pb2.TENSOR_DTYPE_FLOAT32: torch.float32,
    tensor_pb2.TENSOR_DTYPE_BFLOAT16: torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class ServedMoe:
    """A router, and what it told of its model.

    `num_streams`: those that others keep open, as decoders do.
    """

    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]
    model: pb.GetMoeModelResponse
    num_streams: int = 0

    @property
    def stub(self) -> MoeRouterServiceStub:
        return MoeRouterServiceStub(self.channel)

    async def call(self, name: str, request: Any) -> Any:
        """One unary RPC by its name."""
        return await getattr(self.stub, name)(request, metadata=self.metadata, timeout=60)

    def hidden(self, num_tokens: int, seed: int = 0) -> Tensor:
        """Hidden states as the model's layers get them."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(num_tokens, self.model.hidden_size, generator=generator)
        return rows.to(_DTYPES[self.model.dtype])

    def layer_input(self, num_tokens: int = 3, layer: int | None = None) -> pb.LayerInput:
        number = self.model.layers[0] if layer is None else layer
        return pb.LayerInput(layer=number, hidden=to_message(self.hidden(num_tokens)))

    def rows(self, message: tensor_pb2.Tensor) -> Tensor:
        flat = torch.frombuffer(bytearray(message.data), dtype=_DTYPES[message.dtype])
        return flat.view(*message.shape)

    async def load(self) -> pb.MoeRouterServiceGetLoadResponse:
        response: pb.MoeRouterServiceGetLoadResponse = await self.call(
            "GetLoad", pb.MoeRouterServiceGetLoadRequest()
        )
        return response

    async def check_idle(self, limit_s: float = 10.0) -> None:
        """Waits until nothing but those streams is held: no token waits, no shard is asked."""
        end = time.monotonic() + limit_s
        while True:
            load = await self.load()
            running = load.num_running > self.num_streams
            if not (running or load.num_waiting_tokens or load.num_dispatching):
                return
            assert time.monotonic() < end, f"something is still held: {load}"
            await asyncio.sleep(0.02)


@asynccontextmanager
async def served_moe(
    target: str,
    *,
    routed: bool,
    num_streams: int = 0,
    metadata: tuple[tuple[str, str], ...] = (),
) -> AsyncIterator[ServedMoe]:
    """The router that listens there. `metadata`: of every call, beside the application's name."""
    if routed:
        metadata = (*metadata, ("application", APPLICATION))
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        model = await MoeRouterServiceStub(channel).GetMoeModel(
            pb.GetMoeModelRequest(), metadata=metadata, timeout=60
        )
        yield ServedMoe(channel, metadata, model, num_streams)


@torch.inference_mode()
def local_layer(folder: Path, layer: int, hidden: Tensor) -> Tensor:
    """What a sparse layer gives with its experts in this process."""
    gate = load_gates(folder)[layer]
    experts = load_experts(folder, [(layer, e) for e in range(NUM_EXPERTS)])[layer]
    weights, ids = gate(hidden)
    groups = group_by_expert(ids)
    rows = hidden.index_select(0, groups.token_ids)
    outputs = expert_ffn(experts, rows, groups.expert_ids, groups.counts)
    return combine(outputs, groups.positions, weights)


# --- decoders over it ------------------------------------------------------------------------


@contextmanager
def remote_experts(
    target: str, timeout_s: float = 20.0, api_key: str | None = None
) -> Iterator[RemoteExperts]:
    """What a decoder with `experts: service` calls."""
    config = RemoteExpertsConfig(application="moe", grpc_target=target, timeout_s=timeout_s)
    experts = RemoteExperts(config, api_key)
    try:
        yield experts
    finally:
        experts.close()


def prompts(count: int, vocab_size: int = 96, seed: int = 0) -> list[list[int]]:
    """Of different lengths."""
    chance = random.Random(seed)
    lengths = [chance.randint(1, 24) for _ in range(count)]
    return [[chance.randrange(vocab_size) for _ in range(length)] for length in lengths]


class Decoder:
    """An engine over the model, alone in its thread."""

    def __init__(
        self,
        folder: Path,
        sparse_layer: SparseLayer | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        config = ENGINE.model_copy(update={"dtype": dtype})
        self.engine = LLMEngine.from_pretrained(folder, config, sparse_layer=sparse_layer)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        num_tokens: int = 8,
        on_step: Callable[[], None] = lambda: None,
    ) -> list[list[int] | None]:
        """The greedy continuation of each; None where the experts could not be reached."""
        params = SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True)
        for number, prompt in enumerate(prompts):
            self.engine.add_request(Request(str(number), list(prompt), params))
        tokens: list[list[int] | None] = [[] for _ in prompts]
        while self.engine.has_unfinished():
            for output in self.engine.step():
                number = int(output.request_id)
                for choice in output.outputs:
                    if choice.finish_reason is FinishReason.ERROR:
                        assert isinstance(output.error, ExpertsUnavailableError), output.error
                        tokens[number] = None
                    elif (so_far := tokens[number]) is not None:
                        so_far.extend(choice.token_ids)
            on_step()
        self.engine.check_integrity()
        return tokens

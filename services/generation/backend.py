"""The seam between the servicer and whatever decodes: Orrery's own engine, or vLLM.

Speaks the engine's vocabulary (`Request`, `RequestOutput`): a backend that has its own translates
into it. Knows nothing of gRPC, protobuf or Ray.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from services.engine.request import Request, RequestOutput

if TYPE_CHECKING:
    from torch import Tensor, dtype

__all__ = ["Backend", "BackendLoad", "CacheGeometry", "Experts", "ModelInfo"]


@dataclass(frozen=True, slots=True)
class CacheGeometry:
    """The paged key-value cache: tokens per block, blocks, bytes per block over all layers."""

    block_size: int
    num_blocks: int
    bytes_per_block: int
    prefix_caching: bool


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a backend serves: the model's shape and the engine's limits."""

    family: str
    backend: str
    num_parameters: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    dtype: str
    max_model_len: int  # tokens, prompt plus completion
    weight_hash: str
    has_chat_template: bool
    cache: CacheGeometry
    max_running: int  # sequences
    max_waiting: int  # requests
    max_tokens_per_step: int


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """What a backend is doing right now, and its counters since the start."""

    num_running: int
    num_waiting: int
    num_blocks: int
    num_free_blocks: int
    prefix_queries: int  # tokens looked up in the prefix cache
    prefix_hits: int  # tokens found there
    num_preemptions: int
    num_finished: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int

    @property
    def prefix_cache_hit_rate(self) -> float:
        return self.prefix_hits / self.prefix_queries if self.prefix_queries else 0.0


class Experts(Protocol):
    """What computes the sparse layers of a mixture of experts in place of the engine: a
    `services.engine.layers.moe.SparseLayer` that is somewhere else.
    """

    def __call__(self, layer: int, hidden: Tensor) -> Tensor: ...

    def wait_until_ready(self) -> None:
        """Raises `ExpertsUnavailableError` where it does not answer in time."""
        ...

    def check(self, weight_hash: str, dtype: dtype) -> None:
        """Raises `ConfigError` where it computes other weights, or in another type."""
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """One loaded model. The tokenizing methods are CPU work: callers mind their event loop.

    Errors are the engine's (`services.engine.errors`): `InvalidRequestError` and its kind for a
    request's fault, `QueueFullError` beyond the queue's limit, `EngineDeadError` when the backend
    can serve nothing any more.
    """

    @property
    def info(self) -> ModelInfo: ...

    @property
    def failure(self) -> str | None:
        """Why nothing is to be expected of the backend any more; None = it goes on."""
        ...

    def generate(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        """Streams what each step added; the last output is `finished`.

        Closing the generator, or cancelling the task that reads it, aborts the request: what it
        held is free at the next step. `request_id` is unique among the requests in flight.
        """
        ...

    def encode(self, text: str, add_special_tokens: bool) -> list[int]: ...

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool
    ) -> list[int]:
        """Messages have `role`, `content` and perhaps `name`.

        Raises `InvalidRequestError` when there is no chat template or it refuses the messages.
        """
        ...

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool) -> str: ...

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Each token's text for people to read."""
        ...

    def load(self) -> BackendLoad: ...

    async def close(self) -> None:
        """Ends what runs and frees the model. Later requests raise `EngineDeadError`."""
        ...

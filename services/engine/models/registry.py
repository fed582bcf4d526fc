"""Which decoder computes which family, and what every decoder offers.

A new family is a translation of its config in `hf_config.py` and a line here; its file, where it
is more than flags of an existing one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from torch import Tensor

from services.engine.attention import AttentionBackend, AttentionMetadata
from services.engine.checkpoint import TensorSource
from services.engine.config import Family, ModelConfig
from services.engine.errors import ConfigError
from services.engine.kv_cache import KVCache
from services.engine.layers.moe import SparseLayer
from services.engine.models.gpt import GPTDecoder
from services.engine.models.llama import LlamaDecoder
from services.engine.models.mixtral import sparse_decoder

__all__ = ["Decoder", "build_decoder"]


class Decoder(Protocol):
    """A decoder over flattened batches: T tokens of any number of sequences, no padding."""

    config: ModelConfig

    def __call__(
        self, token_ids: Tensor, cache: KVCache, meta: AttentionMetadata, attend: AttentionBackend
    ) -> Tensor:
        """int64 [T] -> [T, hidden_size], after the final norm; writes this step's K/V to `cache`"""
        ...

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """[N, hidden_size] -> float32 [N, vocab_size]"""
        ...


_DECODERS: Mapping[Family, Callable[[ModelConfig, TensorSource], Decoder]] = MappingProxyType(
    {
        "gpt2": GPTDecoder,
        "llama": LlamaDecoder,
        "mistral": LlamaDecoder,
        "qwen2": LlamaDecoder,
        "qwen3": LlamaDecoder,
        "mixtral": sparse_decoder,
        "qwen2_moe": sparse_decoder,
        "qwen3_moe": sparse_decoder,
    }
)


def build_decoder(
    config: ModelConfig, weights: TensorSource, sparse_layer: SparseLayer | None = None
) -> Decoder:
    """A decoder of the config's family, holding the weights that it takes from `weights`.

    `sparse_layer` computes its sparse layers in place of experts of its own. Raises `ConfigError`
    when it is given and the model has none.
    """
    if sparse_layer is None:
        return _DECODERS[config.family](config, weights)
    if config.moe is None:
        raise ConfigError("sparse_layer", f"this {config.family} model has no sparse layers")
    return sparse_decoder(config, weights, sparse_layer)

"""GPT-2: learned positions, LayerNorm, GELU, biases everywhere (Radford et al. 2019).

T = num_tokens of the step, flattened over sequences.
"""

from __future__ import annotations

from torch import Tensor, nn

from services.engine.attention import AttentionBackend, AttentionMetadata
from services.engine.checkpoint import TensorSource
from services.engine.config import ModelConfig
from services.engine.kv_cache import KVCache, LayerCache
from services.engine.layers.linear import Linear
from services.engine.layers.mlp import MLP
from services.engine.layers.norm import LayerNorm

__all__ = ["GPTDecoder"]


class GPTDecoder(nn.Module):
    """Takes its weights by the names of `GPT2LMHeadModel`, with or without `transformer.`."""

    def __init__(self, config: ModelConfig, weights: TensorSource) -> None:
        super().__init__()
        vocab, hidden = config.vocab_size, config.hidden_size
        prefix = "" if "wte.weight" in weights else "transformer."
        self.config = config
        self.embedding = nn.Parameter(
            weights.take(prefix + "wte.weight", (vocab, hidden)), requires_grad=False
        )
        self.position_embedding = nn.Parameter(
            weights.take(prefix + "wpe.weight", (config.max_position_embeddings, hidden)),
            requires_grad=False,
        )
        self.layers = nn.ModuleList(
            GPTLayer(config, weights, f"{prefix}h.{layer}.") for layer in range(config.num_layers)
        )
        self.norm = _layer_norm(config, weights, prefix + "ln_f")
        if config.tie_word_embeddings:
            weights.skip_tied("lm_head.weight", self.embedding)
            self.lm_head = Linear(self.embedding)
        else:
            self.lm_head = Linear(weights.take("lm_head.weight", (vocab, hidden)))

    def forward(
        self, token_ids: Tensor, cache: KVCache, meta: AttentionMetadata, attend: AttentionBackend
    ) -> Tensor:
        """int64 [T] -> [T, hidden_size], after the final norm"""
        x = self.embedding.index_select(0, token_ids)  # [T, hidden_size]
        x = x + self.position_embedding.index_select(0, meta.positions)
        for layer, layer_cache in zip(self.layers, cache.layers, strict=True):
            x = layer(x, layer_cache, meta, attend)
        normed: Tensor = self.norm(x)
        return normed

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """[N, hidden_size] -> float32 [N, vocab_size]"""
        logits: Tensor = self.lm_head(hidden)
        return logits.float()


class GPTLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))"""

    def __init__(self, config: ModelConfig, weights: TensorSource, prefix: str) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.attention_norm = _layer_norm(config, weights, prefix + "ln_1")
        self.attention = GPTAttention(config, weights, prefix + "attn.")
        self.mlp_norm = _layer_norm(config, weights, prefix + "ln_2")
        self.mlp = MLP(
            _conv1d(weights, prefix + "mlp.c_fc", hidden, inner),
            _conv1d(weights, prefix + "mlp.c_proj", inner, hidden),
            config.activation,
        )

    def forward(
        self, x: Tensor, cache: LayerCache, meta: AttentionMetadata, attend: AttentionBackend
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cache, meta, attend)
        y: Tensor = x + self.mlp(self.mlp_norm(x))  # [T, hidden_size]
        return y


class GPTAttention(nn.Module):
    """Multi-head attention; queries, keys and values are one product already in the checkpoint."""

    def __init__(self, config: ModelConfig, weights: TensorSource, prefix: str) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.scale = config.head_dim**-0.5
        hidden = config.hidden_size
        self.qkv = _conv1d(weights, prefix + "c_attn", hidden, 3 * hidden)
        self.out = _conv1d(weights, prefix + "c_proj", hidden, hidden)

    def forward(
        self, x: Tensor, cache: LayerCache, meta: AttentionMetadata, attend: AttentionBackend
    ) -> Tensor:
        # [T, 3, num_heads, head_dim] -> three of [T, num_heads, head_dim]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(1)
        out = attend(q, k, v, cache, meta, scale=self.scale, window=None)
        projected: Tensor = self.out(out.flatten(1))  # [T, hidden_size]
        return projected


def _layer_norm(config: ModelConfig, weights: TensorSource, name: str) -> LayerNorm:
    shape = (config.hidden_size,)
    return LayerNorm(
        weights.take(name + ".weight", shape), weights.take(name + ".bias", shape), config.norm_eps
    )


def _conv1d(weights: TensorSource, name: str, in_features: int, out_features: int) -> Linear:
    """GPT-2 stores its linear layers as "Conv1D", weight [in_features, out_features]."""
    weight = weights.take_transposed(name + ".weight", (in_features, out_features))
    return Linear(weight, weights.take(name + ".bias", (out_features,)))

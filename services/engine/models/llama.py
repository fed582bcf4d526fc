"""LLaMA 1/2/3.x, and what differs from it in flags of its config: Mistral, Qwen2, Qwen3.

Pre-norm decoder with RMSNorm, rotary positions, grouped-query attention and a gated MLP (Touvron
et al. 2023, arXiv:2302.13971). The flags, all in `ModelConfig`: a sliding window (Mistral), biases
(Qwen2), a norm of queries and keys (Qwen3), another MLP (`models/mixtral.py`).

T = num_tokens of the step, flattened over sequences.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from services.engine.attention import AttentionBackend, AttentionMetadata
from services.engine.checkpoint import TensorSource
from services.engine.config import ModelConfig
from services.engine.kv_cache import KVCache, LayerCache
from services.engine.layers.linear import Linear
from services.engine.layers.mlp import GatedMLP
from services.engine.layers.norm import RMSNorm
from services.engine.layers.rope import Rope, Rotation

__all__ = ["LlamaDecoder", "MakeMLP", "dense_mlp", "gated_mlp"]

MakeMLP = Callable[[ModelConfig, TensorSource, int], nn.Module]  # the int: number of the layer


class LlamaDecoder(nn.Module):
    """Takes its weights by the names of `LlamaForCausalLM`; each layer's MLP is of `make_mlp`."""

    def __init__(
        self, config: ModelConfig, weights: TensorSource, make_mlp: MakeMLP | None = None
    ) -> None:
        super().__init__()
        make_mlp = make_mlp or dense_mlp
        vocab, hidden = config.vocab_size, config.hidden_size
        self.config = config
        self.embedding = nn.Parameter(
            weights.take("model.embed_tokens.weight", (vocab, hidden)), requires_grad=False
        )
        self.rope = Rope(config, self.embedding.dtype, self.embedding.device)
        self.layers = nn.ModuleList(
            LlamaLayer(config, weights, layer, make_mlp) for layer in range(config.num_layers)
        )
        self.norm = RMSNorm(weights.take("model.norm.weight", (hidden,)), config.norm_eps)
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
        rotation = self.rope(meta.positions)
        for layer, layer_cache in zip(self.layers, cache.layers, strict=True):
            x = layer(x, rotation, layer_cache, meta, attend)
        normed: Tensor = self.norm(x)
        return normed

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """[N, hidden_size] -> float32 [N, vocab_size]"""
        logits: Tensor = self.lm_head(hidden)
        return logits.float()


class LlamaLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))"""

    def __init__(
        self, config: ModelConfig, weights: TensorSource, layer: int, make_mlp: MakeMLP
    ) -> None:
        super().__init__()
        prefix = f"model.layers.{layer}."
        hidden = (config.hidden_size,)
        self.attention_norm = RMSNorm(
            weights.take(prefix + "input_layernorm.weight", hidden), config.norm_eps
        )
        self.attention = LlamaAttention(
            config, weights, prefix + "self_attn.", config.window(layer)
        )
        self.mlp_norm = RMSNorm(
            weights.take(prefix + "post_attention_layernorm.weight", hidden), config.norm_eps
        )
        self.mlp = make_mlp(config, weights, layer)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        cache: LayerCache,
        meta: AttentionMetadata,
        attend: AttentionBackend,
    ) -> Tensor:
        x = self.attention(self.attention_norm(x), x, rotation, cache, meta, attend)
        y: Tensor = self.mlp(self.mlp_norm(x), x)  # [T, hidden_size]; both add to their residual
        return y


class LlamaAttention(nn.Module):
    """Grouped-query attention with rotary positions; queries, keys and values in one product."""

    def __init__(
        self, config: ModelConfig, weights: TensorSource, prefix: str, window: int | None
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.head_dim
        self.scale = config.head_dim**-0.5
        self.window = window
        q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.qkv = _fused_linear(
            weights,
            [prefix + name for name in ("q_proj", "k_proj", "v_proj")],
            [(q_size, config.hidden_size), *[(kv_size, config.hidden_size)] * 2],
            config.qkv_bias,
        )
        self.out = _fused_linear(
            weights, [prefix + "o_proj"], [(config.hidden_size, q_size)], config.out_bias
        )
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            dim = (config.head_dim,)
            self.q_norm = RMSNorm(weights.take(prefix + "q_norm.weight", dim), config.norm_eps)
            self.k_norm = RMSNorm(weights.take(prefix + "k_norm.weight", dim), config.norm_eps)

    def forward(
        self,
        x: Tensor,
        residual: Tensor,
        rotation: Rotation,
        cache: LayerCache,
        meta: AttentionMetadata,
        attend: AttentionBackend,
    ) -> Tensor:
        """[T, hidden_size] -> residual + [T, hidden_size]"""
        # [T, (num_heads + 2 * num_kv_heads), head_dim]: q heads, then k heads, then v heads
        qkv = self.qkv(x).view(x.shape[0], -1, self.head_dim)
        qk, v = qkv.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split([self.num_heads, self.num_kv_heads], dim=1)
            qk = torch.cat((self.q_norm(q), self.k_norm(k)), dim=1)
        Rope.rotate_(qk, rotation)  # queries and keys turn alike
        q, k = qk.split([self.num_heads, self.num_kv_heads], dim=1)
        out = attend(q, k, v, cache, meta, scale=self.scale, window=self.window)
        # [T, num_heads * head_dim] -> [T, hidden_size]
        summed: Tensor = self.out(out.view(x.shape[0], -1), residual)
        return summed


def dense_mlp(config: ModelConfig, weights: TensorSource, layer: int) -> GatedMLP:
    prefix = f"model.layers.{layer}.mlp."
    return gated_mlp(config, weights, prefix, config.intermediate_size)


def gated_mlp(config: ModelConfig, weights: TensorSource, prefix: str, inner: int) -> GatedMLP:
    """The MLP whose names begin with `prefix`, of intermediate size `inner`."""
    hidden = config.hidden_size
    names = [prefix + "gate_proj", prefix + "up_proj"]
    gate_up = _fused_linear(weights, names, [(inner, hidden)] * 2, config.mlp_bias)
    down = _fused_linear(weights, [prefix + "down_proj"], [(hidden, inner)], config.mlp_bias)
    return GatedMLP(gate_up, down, config.activation)


def _fused_linear(
    weights: TensorSource, names: list[str], shapes: list[tuple[int, int]], has_bias: bool
) -> Linear:
    """One layer that computes what the named ones would, their outputs side by side."""
    weight = weights.take_fused([name + ".weight" for name in names], shapes)
    if not has_bias:
        return Linear(weight)
    biases = [name + ".bias" for name in names]
    return Linear(weight, weights.take_fused(biases, [(rows,) for rows, _ in shapes]))

"""The demo architectures, as Hugging Face models of random weights.

Training uses the reference implementation of transformers, so what is saved is what everyone else
loads.
"""

from __future__ import annotations

import torch
from transformers import (
    AttentionInterface,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

MODEL_NAMES = ("llama", "gpt", "moe")
HIDDEN_SIZE = 128
NUM_LAYERS = 5
NUM_HEADS = 4
MAX_POSITIONS = 1024
NUM_EXPERTS = 8
NUM_EXPERTS_PER_TOKEN = 2
_ATTENTION = "training_causal"


def build_model(name: str, vocab_size: int, special_ids: dict[str, int]) -> PreTrainedModel:
    """A model of random weights. `special_ids` holds bos_token_id, eos_token_id, pad_token_id."""
    AttentionInterface.register(_ATTENTION, _causal_attention)
    if name == "llama":
        return LlamaForCausalLM(_llama_config(vocab_size, special_ids))
    if name == "gpt":
        return GPT2LMHeadModel(_gpt_config(vocab_size, special_ids))
    if name == "moe":
        return MixtralForCausalLM(_moe_config(vocab_size, special_ids))
    raise ValueError(f"model must be one of {MODEL_NAMES}, not {name!r}")


def _llama_config(vocab_size: int, special_ids: dict[str, int]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=3 * HIDDEN_SIZE,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_HEADS // 2,
        head_dim=HIDDEN_SIZE // NUM_HEADS,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.04,
        attn_implementation=_ATTENTION,
        **special_ids,
    )


def _moe_config(vocab_size: int, special_ids: dict[str, int]) -> MixtralConfig:
    """As the LLaMA, with experts half as wide as its MLP, two of which a token has."""
    return MixtralConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=3 * HIDDEN_SIZE // 2,
        num_local_experts=NUM_EXPERTS,
        num_experts_per_tok=NUM_EXPERTS_PER_TOKEN,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_HEADS // 2,
        head_dim=HIDDEN_SIZE // NUM_HEADS,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=1e-6,
        rope_theta=10_000.0,
        sliding_window=None,
        tie_word_embeddings=True,
        initializer_range=0.04,
        attn_implementation=_ATTENTION,
        **special_ids,
    )


def _gpt_config(vocab_size: int, special_ids: dict[str, int]) -> GPT2Config:
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=MAX_POSITIONS,
        n_embd=HIDDEN_SIZE,
        n_layer=NUM_LAYERS,
        n_head=NUM_HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.04,
        attn_implementation=_ATTENTION,
        **special_ids,
    )


def _causal_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Plain causal attention; on a CPU in bfloat16 its backward pass beats the fused kernel's.

    Shapes: query [batch, heads, length, head_dim], key and value with their own number of heads.
    Batches are padded on the right, where a causal mask is all that is needed.
    """
    batch, heads, length, head_dim = query.shape
    groups = heads // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    flat = (batch * heads, length, head_dim)
    mask = torch.full((length, length), float("-inf"), dtype=query.dtype).triu(1)
    scores = torch.baddbmm(  # [batch * heads, length, length]
        mask,
        query.reshape(flat),
        key.reshape(flat).transpose(1, 2),
        alpha=scaling if scaling is not None else head_dim**-0.5,
    )
    mixed = torch.bmm(scores.softmax(-1), value.reshape(flat))
    return mixed.view(batch, heads, length, head_dim).transpose(1, 2), None

"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) and its ways to reach further.

Each pair (i, i + head_dim/2) of a head is rotated by the angle `position · inv_freq[i]`. The
rotations of every position are computed once; a step only gathers its rows.

Dynamic NTK scaling makes the base depend on the length of the context. Keys are cached rotated and
shared between sequences, so here a rotation depends on the position alone: position p uses the
base of a context of p + 1 tokens. That is what transformers computes when it decodes token by
token with a cache, so the two agree for prompts within the trained length, however far the output
goes beyond it. (transformers rotates a prompt that is itself longer than the trained length all
by the base of its full length; a chunked or prefix-cached prompt could not be.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from services.engine.config import ModelConfig, RopeScaling
from services.engine.cpu_kernels import rows

__all__ = ["Rope", "Rotation"]

Rotation = tuple[Tensor, Tensor]  # cos, signed sin: [T, 1, head_dim] each


class Rope(nn.Module):
    """The table of rotations of all positions, `[context_length, head_dim]` cosines and sines.

    The sine of the first half is stored negated: rotating is then x · cos + swap(x) · sin, where
    swap exchanges the halves of the last axis.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        positions = torch.arange(config.context_length, dtype=torch.float32)
        inv_freq, magnitude = _inverse_frequencies(config, positions)
        angles = positions[:, None] * inv_freq  # [context_length, head_dim / 2]
        cos, sin = angles.cos() * magnitude, angles.sin() * magnitude
        self.register_buffer("cos", torch.cat((cos, cos), -1).to(device, dtype), persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), -1).to(device, dtype), persistent=False)

    def forward(self, positions: Tensor) -> Rotation:
        """int64 [T] -> the rotations of these positions, to be applied by `rotate_`"""
        cos = self.cos.index_select(0, positions).unsqueeze(1)  # [T, 1, head_dim]
        sin = self.sin.index_select(0, positions).unsqueeze(1)
        return cos, sin

    @staticmethod
    def rotate_(x: Tensor, rotation: Rotation) -> Tensor:
        """Rotates x [T, num_heads, head_dim] in place; heads follow each other in memory"""
        cos, sin = rotation
        if rows.supported(x):
            return rows.rotate_(x, cos, sin)
        swapped = x.roll(x.shape[-1] // 2, dims=-1)
        return x.copy_(torch.addcmul(x * cos, swapped, sin))


def _inverse_frequencies(config: ModelConfig, positions: Tensor) -> tuple[Tensor, float]:
    """float32 [head_dim / 2], or [context_length, head_dim / 2] where it depends on the position;
    and a factor on cosine and sine."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    scaling = config.rope_scaling
    if scaling is not None and scaling.rope_type == "dynamic":
        return _dynamic(config, scaling, positions, exponents), 1.0
    inv_freq = 1.0 / (config.rope_theta**exponents)
    if scaling is None:
        return inv_freq, 1.0
    if scaling.rope_type == "linear":
        return inv_freq / scaling.factor, 1.0
    if scaling.rope_type == "llama3":
        return _llama3(scaling, inv_freq), 1.0
    return _yarn(config, scaling, inv_freq), _yarn_magnitude(scaling)


def _dynamic(
    config: ModelConfig, scaling: RopeScaling, positions: Tensor, exponents: Tensor
) -> Tensor:
    """NTK-aware: the base grows so that the lowest frequency just spans the context."""
    length = (positions + 1).clamp(min=config.max_position_embeddings)
    stretch = scaling.factor * length / config.max_position_embeddings - (scaling.factor - 1)
    base = config.rope_theta * stretch ** (config.head_dim / (config.head_dim - 2))
    return 1.0 / (base[:, None] ** exponents)


def _llama3(scaling: RopeScaling, inv_freq: Tensor) -> Tensor:
    """Long wavelengths are interpolated, short ones kept, those between blended."""
    assert scaling.original_max_position_embeddings is not None
    assert scaling.low_freq_factor is not None
    assert scaling.high_freq_factor is not None
    rotations = scaling.original_max_position_embeddings * inv_freq / (2 * math.pi)
    kept = (rotations - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    kept = kept.clamp(0, 1)  # the share of the frequency that is not interpolated
    return (1 - kept) * inv_freq / scaling.factor + kept * inv_freq


def _yarn(config: ModelConfig, scaling: RopeScaling, inv_freq: Tensor) -> Tensor:
    """NTK by parts (section 3.2): interpolates a dimension the less, the more often it rotates."""
    assert scaling.original_max_position_embeddings is not None
    length, dim = scaling.original_max_position_embeddings, config.head_dim

    def dimension_of(rotations: float) -> float:
        """The dimension that rotates that often over the trained length."""
        return (
            dim * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(config.rope_theta))
        )

    low, high = dimension_of(scaling.beta_fast), dimension_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # a step instead of a division by zero
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return inv_freq / scaling.factor * ramp + inv_freq * (1 - ramp)


def _yarn_magnitude(scaling: RopeScaling) -> float:
    """The attention temperature of section 3.4, eq. 22, put on cosine and sine."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def magnitude(mscale: float) -> float:
        return 0.1 * mscale * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return magnitude(scaling.mscale) / magnitude(scaling.mscale_all_dim)
    return magnitude(1.0)

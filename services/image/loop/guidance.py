"""Classifier-free guidance: away from what the model draws without the prompt.

Ho and Salimans, "Classifier-Free Diffusion Guidance" (arXiv:2207.12598). Knows nothing of samplers.
"""

from __future__ import annotations

import torch

__all__ = ["guide", "needs_unconditional"]


def needs_unconditional(scale: float) -> bool:
    """Whether guidance of this scale looks at the output without the prompt."""
    return scale > 1.0


def guide(
    conditional: torch.Tensor,
    unconditional: torch.Tensor,
    scale: torch.Tensor,
    rescale: torch.Tensor,
) -> torch.Tensor:
    """The guided output `[n, C, h, w]`; `scale` and `rescale` are `[n, 1, 1, 1]`.

    `rescale` mixes in the same output with the conditional one's standard deviation, which keeps
    strong guidance from overexposing: Lin et al., "Common Diffusion Noise Schedules and Sample
    Steps are Flawed" (arXiv:2305.08891), section 3.4.
    """
    guided = unconditional + scale * (conditional - unconditional)
    factor = _deviation(conditional) / _deviation(guided)
    # Where nothing is to be rescaled, a constant output's 0 / 0 must not get in.
    return torch.where(rescale > 0, (rescale * factor + (1 - rescale)) * guided, guided)


def _deviation(output: torch.Tensor) -> torch.Tensor:
    """Each picture's standard deviation, but for a common factor. `Tensor.std` rounds differently
    for one picture than for several; sums over one contiguous row do not."""
    rows = output.flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    return centred.square().sum(1).sqrt().view(-1, 1, 1, 1)

"""One picture ready for the loop of steps: everything that is worked out before the first one.

Tensors are float32 on the model's device. `C` latent channels, `h` and `w` latent height and width,
`S` steps, `L` prompt positions of `D` numbers. Knows no model and no sampler.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

__all__ = ["KeptArea", "Prepared"]


@dataclass(frozen=True, slots=True, eq=False)
class KeptArea:
    """The part of a source that stays: after each step it is the source, noised to that step.

    `scales[i]` is what source and noise are multiplied with after step `i`.
    """

    mask: torch.Tensor  # [1, h, w], 1 = painted anew
    source: torch.Tensor  # [C, h, w]
    noise: torch.Tensor  # [C, h, w]
    scales: torch.Tensor  # [S, 2]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A picture before its first step. `generator` has drawn what precedes the steps' own noise."""

    latents: torch.Tensor  # [C, h, w], noised as the first step expects
    table: torch.Tensor  # [S, 10], columns as in `schedulers.plan.StepColumns`
    context: torch.Tensor  # [L, D]
    negative_context: torch.Tensor | None  # None = no guidance: one row instead of two
    guidance_scale: float
    guidance_rescale: float
    generator: torch.Generator  # on the CPU
    is_stochastic: bool  # whether its steps draw noise
    preview_every: int = 0
    kept: KeptArea | None = None
    model_channels: torch.Tensor | None = None  # [E, h, w], what an inpainting model sees besides
    num_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        tensors = [self.latents, self.table, self.context]
        tensors += [
            tensor for tensor in (self.negative_context, self.model_channels) if tensor is not None
        ]
        if self.kept is not None:
            tensors += [self.kept.mask, self.kept.source, self.kept.noise, self.kept.scales]
        object.__setattr__(self, "num_bytes", sum(tensor.nbytes for tensor in tensors))

    @property
    def num_steps(self) -> int:
        return self.table.shape[0]

    @property
    def num_rows(self) -> int:
        """Of the model's batch."""
        return 1 if self.negative_context is None else 2

    @property
    def size(self) -> tuple[int, int]:
        """Latent height and width: pictures of one size can share a call."""
        return self.latents.shape[1], self.latents.shape[2]

    @property
    def is_guided(self) -> bool:
        return self.negative_context is not None

"""One call of the model: a step of several pictures of one size, as one expression over tensors.

    rows of the model's batch:   conditional of all pictures | unconditional of the guided ones

Each picture has its own timestep, coefficients, guidance and noise; what differs between pictures
is a number in a table (`schedulers.plan`), not a branch. What is stacked here stays stacked until
other pictures take part. Knows nothing of queues and requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from services.image.loop.guidance import guide
from services.image.loop.prepared import Prepared
from services.image.schedulers.plan import StepColumns, advance, estimate_x0

__all__ = ["Call", "Denoiser", "Picture"]


class Denoiser(Protocol):
    """The part of a model that the loop of steps needs."""

    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        """`[R, C, h, w]`, `[R]`, `[R, L, D]` to the model's output, float32 `[R, C, h, w]`."""
        ...


@dataclass(eq=False, slots=True)
class Picture:
    """A picture in the batch and how far it is."""

    slot_id: int
    prepared: Prepared
    latents: torch.Tensor  # [C, h, w], perhaps a row of the call that made it
    x0: torch.Tensor  # [C, h, w], the last step's estimate of the picture without noise
    step: int = 0  # done

    @property
    def is_done(self) -> bool:
        return self.step == self.prepared.num_steps

    def preview(self) -> torch.Tensor:
        """The last estimate of the picture without noise, `[C, h, w]`, a tensor of its own."""
        kept = self.prepared.kept
        if kept is None:
            return self.x0.clone()
        return kept.mask * self.x0 + (1 - kept.mask) * kept.source

    @property
    def state_bytes(self) -> int:
        return self.prepared.num_bytes + self.latents.nbytes + self.x0.nbytes


class Call:
    """The stacked state of the pictures that take their steps together. `n` pictures."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = tuple(pictures)
        prepared = [picture.prepared for picture in pictures]
        self._latents = torch.stack([picture.latents for picture in pictures])  # [n, C, h, w]
        self._x0 = torch.stack([picture.x0 for picture in pictures])
        device = self._latents.device
        self._tables = torch.nn.utils.rnn.pad_sequence(
            [each.table for each in prepared], batch_first=True
        )  # [n, most steps, 10]
        self._steps = torch.tensor([picture.step for picture in pictures], device=device)
        self._index = torch.arange(len(prepared), device=device)
        self._guided = torch.tensor(
            [i for i, each in enumerate(prepared) if each.is_guided],
            device=device,
            dtype=torch.int64,
        )
        self._context = torch.stack(
            [each.context for each in prepared]
            + [each.negative_context for each in prepared if each.negative_context is not None]
        )  # [rows, L, D]
        guided = [each for each in prepared if each.is_guided]
        self._scale = _per_picture([each.guidance_scale for each in guided], device)
        self._rescale = _per_picture([each.guidance_rescale for each in guided], device)
        self._model_channels = _stack_model_channels(prepared)
        self._stochastic = [i for i, each in enumerate(prepared) if each.is_stochastic]
        self._kept = _StackedKeptAreas(prepared) if any(each.kept for each in prepared) else None

    @torch.inference_mode()
    def run(self, model: Denoiser) -> list[bool]:
        """Takes every picture one step further; says of each whether its numbers are finite.

        When the model raises, nothing has changed.
        """
        rows = self._tables[self._index, self._steps].unbind(1)
        columns = StepColumns(*(column.view(-1, 1, 1, 1) for column in rows))
        output = self._guided_output(model, columns)
        x0 = estimate_x0(columns, self._latents, output)
        x = advance(columns, self._latents, output, x0, self._x0)
        for i in self._stochastic:
            x[i] += columns.from_noise[i] * self._draw(i)
        if self._kept is not None:
            self._kept.restore(x, self._steps)
        self._latents, self._x0 = x, x0
        self._steps += 1
        for picture, its_x, its_x0 in zip(self.pictures, x.unbind(), x0.unbind(), strict=True):
            picture.latents, picture.x0 = its_x, its_x0
            picture.step += 1
        finite: list[bool] = x.isfinite().flatten(1).all(1).tolist()
        return finite

    def _guided_output(self, model: Denoiser, columns: StepColumns) -> torch.Tensor:
        """The model's output with guidance, `[n, C, h, w]`."""
        num_pictures = len(self.pictures)
        rows = columns.input_scale * self._latents
        timesteps = columns.timestep.flatten()
        if self._model_channels is not None:
            rows = torch.cat([rows, self._model_channels], 1)
        if len(self._guided):
            rows = torch.cat([rows, rows[self._guided]])
            timesteps = torch.cat([timesteps, timesteps[self._guided]])
        output = model.predict(rows, timesteps, self._context)
        if not len(self._guided):
            return output
        conditional, unconditional = output[:num_pictures], output[num_pictures:]
        guided = guide(conditional[self._guided], unconditional, self._scale, self._rescale)
        return conditional.index_copy(0, self._guided, guided)

    def _draw(self, i: int) -> torch.Tensor:
        """The picture's own noise, whatever is beside it: from its own generator, on the CPU."""
        shape = self._latents.shape[1:]
        noise = torch.randn(shape, generator=self.pictures[i].prepared.generator)
        return noise.to(self._latents.device, non_blocking=True)


class _StackedKeptAreas:
    """What stays of the sources, of those pictures of a call that have one."""

    def __init__(self, prepared: Sequence[Prepared]) -> None:
        kept = [(i, each.kept) for i, each in enumerate(prepared) if each.kept is not None]
        areas = [area for _, area in kept]
        device = areas[0].mask.device
        self._index = torch.tensor([i for i, _ in kept], device=device)
        self._row = torch.arange(len(kept), device=device)
        self._mask = torch.stack([area.mask for area in areas])  # [k, 1, h, w]
        self._source = torch.stack([area.source for area in areas])  # [k, C, h, w]
        self._noise = torch.stack([area.noise for area in areas])
        self._scales = torch.nn.utils.rnn.pad_sequence(
            [area.scales for area in areas], batch_first=True
        )  # [k, most steps, 2]

    def restore(self, x: torch.Tensor, steps: torch.Tensor) -> None:
        """Puts the kept areas back into `x`, in place, noised as what surrounds them."""
        scales = self._scales[self._row, steps[self._index]].view(-1, 2, 1, 1, 1)
        kept = scales[:, 0] * self._source + scales[:, 1] * self._noise
        x[self._index] = self._mask * x[self._index] + (1 - self._mask) * kept


def _per_picture(numbers: Sequence[float], device: torch.device) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device=device).view(-1, 1, 1, 1)


def _stack_model_channels(prepared: Sequence[Prepared]) -> torch.Tensor | None:
    """`[n, E, h, w]`: of one model, all pictures have them or none."""
    channels = [each.model_channels for each in prepared if each.model_channels is not None]
    assert len(channels) in (0, len(prepared))
    return torch.stack(channels) if channels else None

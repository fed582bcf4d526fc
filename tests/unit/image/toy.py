"""Toys for the engine's tests: a model of plain arithmetic, pictures of random coefficients."""

from __future__ import annotations

from collections.abc import Callable

import torch

from services.image.loop.engine import Denoised, Failed, ImageEngine, StepEvent
from services.image.loop.prepared import KeptArea, Prepared
from services.image.schedulers.plan import StepColumns

__all__ = ["Broken", "ToyDenoiser", "alone", "run_out", "toy_picture"]

CHANNELS = 3
CONTEXT = (2, 4)
BAD = 1e6  # in a context: the model breaks on that row


class Broken(RuntimeError):
    """What the toy raises."""


class ToyDenoiser:
    """Every row by itself, of plain products and sums: bit-identical whatever the batch."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int]] = []  # rows, height, width
        self.before_call: Callable[[], None] = lambda: None

    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        self.before_call()
        assert latents.shape[0] == timesteps.shape[0] == context.shape[0]
        self.calls.append((latents.shape[0], *latents.shape[2:]))
        if (context == BAD).any():
            raise Broken("a row that cannot be computed")
        shift = context[:, 0, 0] + timesteps * 1e-3
        return latents[:, :CHANNELS] * 0.5 + shift.view(-1, 1, 1, 1)


def toy_picture(
    seed: int,
    *,
    num_steps: int = 4,
    size: tuple[int, int] = (4, 4),
    guided: bool = True,
    stochastic: bool = False,
    kept: bool = False,
    preview_every: int = 0,
    fault: float | None = None,
) -> Prepared:
    """A picture whose coefficients, noise and prompt come from `seed`. `fault` is put where the
    prompt is: `BAD` breaks the model, NaN gets into the latents."""
    generator = torch.Generator().manual_seed(seed)
    shape = (CHANNELS, *size)
    table = torch.rand(num_steps, len(StepColumns._fields), generator=generator) - 0.3
    context = torch.rand(CONTEXT, generator=generator)
    if fault is not None:
        context[0, 0] = fault
    area = None
    if kept:
        area = KeptArea(
            mask=torch.rand(1, *size, generator=generator).round(),
            source=torch.randn(shape, generator=generator),
            noise=torch.randn(shape, generator=generator),
            scales=torch.rand(num_steps, 2, generator=generator),
        )
    return Prepared(
        latents=torch.randn(shape, generator=generator),
        table=table,
        context=context,
        negative_context=torch.rand(CONTEXT, generator=generator) if guided else None,
        guidance_scale=1.0 + seed % 7,
        guidance_rescale=(seed % 3) / 2,
        generator=generator,
        is_stochastic=stochastic,
        preview_every=preview_every,
        kept=area,
    )


def run_out(engine: ImageEngine) -> dict[int, StepEvent]:
    """Steps until nobody is left; the last event of every slot."""
    last: dict[int, StepEvent] = {}
    while (outcome := engine.step()) is not None:
        engine.check_integrity()
        for event in outcome.events:
            assert not isinstance(last.get(event.slot_id), Denoised | Failed)
            last[event.slot_id] = event
    return last


def alone(prepared: Prepared) -> torch.Tensor:
    """The latents of a picture that was in the batch by itself."""
    engine = ImageEngine(ToyDenoiser())
    slot_id = engine.add(prepared)
    event = run_out(engine)[slot_id]
    assert isinstance(event, Denoised)
    return event.latents

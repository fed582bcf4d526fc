"""What a caller asks for, checked field by field before the engine sees it.

Fills in the defaults. Every refusal is an `InvalidRequest` that names the field of the contract.
Knows nothing of protobuf, and does no work on pixels.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from typing import TypeVar

from services.image.config import ImageConfig
from services.image.served_model import ServedModel
from services.image.types import PreviewKind, Sampling, SchedulerName
from services.runtime.errors import ContextTooLong, InvalidRequest

__all__ = [
    "Batch",
    "Parameters",
    "PreviewWish",
    "check_batch",
    "check_negative_prompt",
    "check_num_tokens",
    "check_prompt",
    "check_sampling",
    "check_size",
    "check_strength",
    "invalid",
]

# Seeds are told and given as integers of 64 bits with a sign.
SEED_END = 1 << 63
# Drawn ones are short, for whoever types them again.
_DRAWN_SEED_END = 1 << 32

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PreviewWish:
    """That previews are wanted; None = as often as the application's default."""

    every: int | None
    kind: PreviewKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """As the caller gave them. None = the default."""

    negative_prompt: str = ""
    n: int | None = None
    width: int | None = None
    height: int | None = None
    num_steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    scheduler: SchedulerName | None = None
    eta: float | None = None
    karras_sigmas: bool | None = None
    seed: int | None = None
    previews: PreviewWish | None = None
    rank_by_similarity: bool = False
    top_n: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The pictures of one call, and which of them are returned."""

    seeds: tuple[int, ...]
    preview_every: int
    preview_kind: PreviewKind
    top_n: int | None  # None: all, in the order they are done; else the best ranked


def invalid(field: str, what: str) -> InvalidRequest:
    """The refusal of a field."""
    return InvalidRequest(f"{field}: {what}", field=field)


def check_prompt(text: str, max_bytes: int) -> None:
    """Raises `InvalidRequest` for one that is empty or absurdly long."""
    if not text.strip():
        raise invalid("prompt", "expected at least one character other than white space")
    _check_bytes(text, max_bytes, "prompt")


def check_negative_prompt(text: str, sampling: Sampling, max_bytes: int) -> None:
    """Raises `InvalidRequest` where it would have no effect."""
    field = "parameters.negative_prompt"
    if text and sampling.guidance_scale <= 1.0:
        raise invalid(field, "has an effect only with a guidance_scale above 1")
    _check_bytes(text, max_bytes, field)


def check_num_tokens(num_tokens: int, model: ServedModel, field: str) -> None:
    """Raises `ContextTooLong`."""
    if num_tokens > model.max_prompt_tokens:
        raise ContextTooLong(
            f"{field}: {num_tokens} tokens; the model reads {model.max_prompt_tokens}", field=field
        )


def check_sampling(parameters: Parameters, config: ImageConfig, model: ServedModel) -> Sampling:
    """How the noise is taken away. Raises `InvalidRequest`."""
    defaults, limits = config.defaults, config.limits
    num_steps = _or(parameters.num_steps, defaults.num_steps)
    if not 1 <= num_steps <= limits.max_num_steps:
        raise invalid(
            "parameters.num_steps", f"expected 1 to {limits.max_num_steps}, got {num_steps}"
        )
    guidance = _or(parameters.guidance_scale, defaults.guidance_scale)
    _check_within(
        guidance, 1.0, limits.max_guidance_scale, "parameters.guidance_scale", "1 = no guidance"
    )
    rescale = _or(parameters.guidance_rescale, 0.0)
    _check_within(rescale, 0.0, 1.0, "parameters.guidance_rescale")
    if rescale and guidance <= 1.0:
        raise invalid(
            "parameters.guidance_rescale", "has an effect only with a guidance_scale above 1"
        )
    scheduler = _or(parameters.scheduler, defaults.scheduler)
    eta = _or(parameters.eta, 0.0)
    _check_within(eta, 0.0, 1.0, "parameters.eta")
    if eta and scheduler is not SchedulerName.DDIM:
        raise invalid("parameters.eta", f"is of the scheduler 'ddim', not of {scheduler.value!r}")
    karras = parameters.karras_sigmas
    if karras and scheduler is SchedulerName.DDIM:
        raise invalid("parameters.karras_sigmas", "the scheduler 'ddim' has none")
    if karras is None:
        karras = model.default_karras_sigmas and scheduler is not SchedulerName.DDIM
    return Sampling(num_steps, scheduler, guidance, rescale, eta, karras)


def check_size(width: int, height: int, config: ImageConfig, model: ServedModel) -> None:
    """Raises `InvalidRequest` for a size that the model cannot make or may not be asked for."""
    limits, multiple = config.limits, model.size_multiple
    for field, value, most in (
        ("parameters.width", width, limits.max_width),
        ("parameters.height", height, limits.max_height),
    ):
        if not 1 <= value <= most or value % multiple:
            raise invalid(field, f"expected a multiple of {multiple} up to {most}, got {value}")
    if width * height > limits.max_pixels:
        raise invalid(
            "parameters.width",
            f"{width} x {height} pixels; expected at most {limits.max_pixels} in all",
        )


def check_batch(parameters: Parameters, config: ImageConfig) -> Batch:
    """How many, from which seeds, with which previews, ranked or not. Raises `InvalidRequest`."""
    num_pictures = _or(parameters.n, 1)
    if not 1 <= num_pictures <= config.limits.max_n:
        raise invalid("parameters.n", f"expected 1 to {config.limits.max_n}, got {num_pictures}")
    seed = parameters.seed
    if seed is None:
        seed = secrets.randbelow(_DRAWN_SEED_END)
    if seed + num_pictures > SEED_END:
        raise invalid("parameters.seed", "expected all seeds of the call to be below 2^63")
    every, kind = 0, PreviewKind.DECODED
    if parameters.previews is not None:
        every = _or(parameters.previews.every, config.defaults.preview_every)
        kind = parameters.previews.kind
        if every < 1:
            raise invalid("parameters.previews.every_num_steps", "expected at least 1")
    return Batch(
        seeds=tuple(range(seed, seed + num_pictures)),
        preview_every=every,
        preview_kind=kind,
        top_n=_top_n(parameters, num_pictures, config),
    )


def check_strength(strength: float | None, num_steps: int, config: ImageConfig) -> float:
    """How far from the picture an edit goes. Raises `InvalidRequest` where no step is left."""
    value = _or(strength, config.defaults.strength)
    if not 0.0 < value <= 1.0:  # NaN is neither
        raise invalid("strength", f"expected above 0, to 1, got {value:g}")
    if int(num_steps * value) < 1:
        raise invalid("strength", f"{value:g} of {num_steps} steps leaves none to be done")
    return value


def _top_n(parameters: Parameters, num_pictures: int, config: ImageConfig) -> int | None:
    top_n = parameters.top_n
    if not parameters.rank_by_similarity:
        if top_n is not None:
            raise invalid("parameters.top_n", "has an effect only with rank_by_similarity")
        return None
    if config.ranking_application is None:
        raise invalid(
            "parameters.rank_by_similarity", "this application has no CLIP application to ask"
        )
    if top_n is not None and not 1 <= top_n <= num_pictures:
        raise invalid("parameters.top_n", f"expected 1 to n ({num_pictures}), got {top_n}")
    return _or(top_n, num_pictures)


def _check_bytes(text: str, max_bytes: int, field: str) -> None:
    num_bytes = len(text.encode())
    if num_bytes > max_bytes:
        raise invalid(field, f"{num_bytes} bytes; expected at most {max_bytes}")


def _check_within(value: float, least: float, most: float, field: str, note: str = "") -> None:
    if not (math.isfinite(value) and least <= value <= most):
        note = f" ({note})" if note else ""
        raise invalid(field, f"expected {least:g} to {most:g}{note}, got {value:g}")


def _or(value: T | None, default: T) -> T:
    return default if value is None else value

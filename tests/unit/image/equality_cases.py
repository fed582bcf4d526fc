"""Pictures that diffusers' own pipelines make: what every step loop of ours must make too.

Each case is a request, and the kind of folder it is made with. `DiffusersReference` makes the
same picture from the same weights, seed, sampler and steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from services.image.types import PictureRequest, Pixels, Sampling, SchedulerName, Source
from tests.fakes.random_diffusion import random_diffusion_folder

__all__ = ["CASES", "MAX_DIFFERENCE", "DiffusersReference", "EqualityCase", "FolderKind"]

# Of 255, in float32.
MAX_DIFFERENCE = 2

_SCHEDULERS = {
    SchedulerName.DDIM: diffusers.DDIMScheduler,
    SchedulerName.EULER: diffusers.EulerDiscreteScheduler,
    SchedulerName.EULER_ANCESTRAL: diffusers.EulerAncestralDiscreteScheduler,
    SchedulerName.DPM_SOLVER_PP_2M: diffusers.DPMSolverMultistepScheduler,
}


@dataclass(frozen=True)
class FolderKind:
    """Which random folder: hashable, so that a test makes each once."""

    prediction_type: str = "epsilon"
    in_channels: int = 4
    options: tuple[tuple[str, Any], ...] = ()

    def make(self, path: Path) -> Path:
        return random_diffusion_folder(
            path,
            prediction_type=self.prediction_type,
            in_channels=self.in_channels,
            **dict(self.options),
        )


@dataclass(frozen=True)
class EqualityCase:
    name: str
    request: PictureRequest
    folder: FolderKind = FolderKind()


_EPSILON = FolderKind()
_V = FolderKind("v_prediction")
_INPAINTING = FolderKind(in_channels=9)
# The noise schedule of Stable Diffusion 2.1 as repaired by "Common Diffusion Noise Schedules ...".
_ZERO_SNR = FolderKind(
    "v_prediction", options=(("rescale_betas_zero_snr", True), ("timestep_spacing", "trailing"))
)
# As of the first folders: diffusers' pipelines set both options right.
_OUTDATED = FolderKind(options=(("clip_sample", True), ("steps_offset", 0)))


def _cases() -> Iterator[EqualityCase]:
    for scheduler in SchedulerName:
        plain = _request(scheduler)
        yield EqualityCase(f"{scheduler}-guided", plain)
        yield EqualityCase(f"{scheduler}-unguided", _with(plain, guidance_scale=1.0))
        yield EqualityCase(f"{scheduler}-v", plain, _V)
        yield EqualityCase(f"{scheduler}-zero-snr", _with(plain, num_steps=5), _ZERO_SNR)
        yield EqualityCase(f"{scheduler}-rescaled", _with(plain, guidance_rescale=0.7), _V)
        negative = replace(plain, negative_prompt="blue, blurred")
        yield EqualityCase(f"{scheduler}-negative-prompt", negative)
        yield EqualityCase(f"{scheduler}-many-steps", _with(plain, num_steps=23))
        yield EqualityCase(f"{scheduler}-one-step", _with(plain, num_steps=1))
        yield EqualityCase(f"{scheduler}-wide", replace(plain, width=56, height=24))
        for strength in (0.3, 0.75, 1.0):
            image = replace(plain, source=_source(strength))
            yield EqualityCase(f"{scheduler}-image-{strength}", image)
            masked = replace(plain, source=_source(strength, masked=True))
            yield EqualityCase(f"{scheduler}-mask-{strength}", masked)
            yield EqualityCase(f"{scheduler}-mask-9-{strength}", masked, _INPAINTING)
        masked = replace(plain, source=_source(0.6, masked=True))
        yield EqualityCase(f"{scheduler}-mask-v-unguided", _with(masked, guidance_scale=1.0), _V)
    for scheduler in (SchedulerName.EULER, SchedulerName.DPM_SOLVER_PP_2M):
        karras = _with(_request(scheduler), karras_sigmas=True)
        yield EqualityCase(f"{scheduler}-karras", karras)
        yield EqualityCase(f"{scheduler}-karras-v", karras, _V)
        yield EqualityCase(f"{scheduler}-karras-image", replace(karras, source=_source(0.5)))
    for eta in (0.4, 1.0):
        stochastic = _with(_request(SchedulerName.DDIM), eta=eta)
        yield EqualityCase(f"ddim-eta-{eta}", stochastic)
        yield EqualityCase(f"ddim-eta-{eta}-v", stochastic, _V)
        yield EqualityCase(f"ddim-eta-{eta}-image", replace(stochastic, source=_source(0.5)))
        masked = replace(stochastic, source=_source(0.5, masked=True))
        yield EqualityCase(f"ddim-eta-{eta}-mask", masked)
        yield EqualityCase(f"ddim-eta-{eta}-mask-9", masked, _INPAINTING)
    yield EqualityCase("ddim-outdated", _request(SchedulerName.DDIM), _OUTDATED)


def _request(scheduler: SchedulerName) -> PictureRequest:
    return PictureRequest(
        prompt="a red circle left of a blue square",
        negative_prompt="",
        width=32,
        height=32,
        seed=11,
        sampling=Sampling(num_steps=8, scheduler=scheduler, guidance_scale=5.0),
    )


def _with(request: PictureRequest, **changes: Any) -> PictureRequest:
    return replace(request, sampling=replace(request.sampling, **changes))


def _source(strength: float, *, masked: bool = False) -> Source:
    """A slope of colours, with a mask that is not of whole latent pixels."""
    y, x = np.mgrid[0:32, 0:32] / 31
    pixels = (np.stack([x, y, (x + y) / 2], axis=-1) * 255).round().astype(np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[5:22, 10:31] = 255
    return Source(pixels, strength, mask if masked else None)


CASES = tuple(_cases())


class DiffusersReference:
    """diffusers' pipelines over one folder, whose weights are loaded once."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # That it sets an outdated option right.
            warnings.simplefilter("ignore", FutureWarning)
            self._parts = diffusers.DiffusionPipeline.from_pretrained(folder).components

    def picture(self, request: PictureRequest) -> Pixels:
        """`uint8 [height, width, 3]` by the pipeline that fits the request."""
        sampling, source = request.sampling, request.source
        pipeline_class: Any = diffusers.StableDiffusionPipeline
        inputs: dict[str, Any] = {"width": request.width, "height": request.height}
        if source is None:
            inputs["guidance_rescale"] = sampling.guidance_rescale
        elif source.mask is None:
            pipeline_class = diffusers.StableDiffusionImg2ImgPipeline
            inputs = {}
        else:
            pipeline_class = diffusers.StableDiffusionInpaintPipeline
            inputs["mask_image"] = Image.fromarray(source.mask)
        if source is not None:
            inputs |= {"image": Image.fromarray(source.pixels), "strength": source.strength}
        options = {"use_karras_sigmas": True} if sampling.karras_sigmas else {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            scheduler = _SCHEDULERS[sampling.scheduler].from_config(
                self._parts["scheduler"].config, **options
            )
            parts = self._parts | {"scheduler": scheduler}
            pipeline = pipeline_class(**parts, requires_safety_checker=False)
            pipeline.set_progress_bar_config(disable=True)
            made = pipeline(
                request.prompt,
                negative_prompt=request.negative_prompt,
                num_inference_steps=sampling.num_steps,
                guidance_scale=sampling.guidance_scale,
                eta=sampling.eta,
                generator=torch.Generator().manual_seed(request.seed),
                **inputs,
            )
        return np.asarray(made.images[0])

"""A Stable Diffusion folder in memory: texts and pictures to latents, a step of the UNet, pixels.

The modules are diffusers' and transformers'; the loop of steps is not here. Only the UNet, which
takes nearly all of the time, computes in the chosen precision. Knows nothing of requests, samplers
and batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from services.engine.devices import has_bfloat16
from services.image.model.autoencoder import Autoencoder
from services.image.model.folder import ModelFolder
from services.image.model.invariance import make_batch_invariant
from services.image.model.lora import LoraOptions, merge_lora
from services.image.model.modules import load_module, parameter_bytes, placed
from services.image.model.text_encoder import TextEncoder
from services.image.schedulers.noise_schedule import NoiseSchedule
from services.image.types import Pixels
from services.runtime.model_files import ModelFolderError, hash_files

__all__ = ["DiffusionModel", "LoraOptions", "ModelOptions"]

DType: TypeAlias = Literal["float32", "bfloat16", "float16"]

_DTYPES: dict[DType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

# What a UNet may ask for besides latents, timestep and text; nothing here gives it any.
_UNSUPPORTED_UNET = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
)


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How to load a model."""

    device: str = "cpu"
    # Of the UNet. auto: bfloat16 where the device multiplies it by instructions of its own.
    dtype: DType | Literal["auto"] = "float32"
    loras: tuple[LoraOptions, ...] = ()
    tile_size: int = 512  # pixels a side; larger pictures are encoded and decoded in tiles


class DiffusionModel:
    """Any thread may call any method, several at once: nothing is changed but a cache of texts.

    `C` latent channels, `L` tokens of `D` numbers, `f` pixels to a latent pixel.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        autoencoder: Autoencoder,
        text_encoder: TextEncoder,
        schedule: NoiseSchedule,
        *,
        weight_hash: str,
        options: ModelOptions,
    ) -> None:
        self._unet = unet
        self._autoencoder = autoencoder
        self._text_encoder = text_encoder
        self.schedule = schedule
        self.weight_hash = weight_hash  # of all that decides what a picture looks like
        self.options = options
        self.device = torch.device(options.device)
        self.dtype = _DTYPE_NAMES[unet.dtype]
        self.parameter_bytes = (
            parameter_bytes(unet) + autoencoder.parameter_bytes + text_encoder.parameter_bytes
        )
        if self.device.type == "cpu":
            make_batch_invariant(unet)

    @classmethod
    def load(cls, path: str | Path, options: ModelOptions | None = None) -> DiffusionModel:
        """Reads a diffusers folder and merges the LoRAs into it.

        Raises `ModelFolderError`, which names the file and what is wrong with it: an unsupported
        pipeline, part or option, a missing or an unused tensor, weights that are pickled.
        """
        options = options or ModelOptions()
        folder = ModelFolder.open(Path(path))
        try:
            schedule = NoiseSchedule.from_file(folder.path / "scheduler" / "scheduler_config.json")
        except ValueError as error:
            raise ModelFolderError(str(error)) from error
        _check_unet(folder)
        unet = load_module(UNet2DConditionModel, folder, "unet")
        vae = load_module(AutoencoderKL, folder, "vae")
        text_model = load_module(CLIPTextModel, folder, "text_encoder")
        for lora in options.loras:
            merge_lora(lora, unet, text_model)
        files = folder.decisive_files()
        merged = [f"{hash_files(lora.files(), lora.path)} {lora.scale!r}" for lora in options.loras]
        return cls(
            placed(unet, options.device, _dtype(options)),
            Autoencoder(placed(vae, options.device), options.tile_size),
            TextEncoder(_load_tokenizer(folder), placed(text_model, options.device)),
            schedule,
            weight_hash=hash_files(files, folder.path, *merged),
            options=options,
        )

    @property
    def prediction_type(self) -> str:
        """ "epsilon" or "v_prediction"."""
        return self.schedule.options.prediction_type

    @property
    def loras(self) -> tuple[LoraOptions, ...]:
        return self.options.loras

    @property
    def latent_channels(self) -> int:
        return self._autoencoder.latent_channels

    @property
    def is_inpainting(self) -> bool:
        """Whether the UNet sees a mask and the picture without what it covers."""
        return int(self._unet.config.in_channels) != self.latent_channels

    @property
    def downscale(self) -> int:
        return self._autoencoder.downscale

    @property
    def size_multiple(self) -> int:
        """What a picture's width and height must be a multiple of."""
        return self.downscale

    @property
    def default_size(self) -> tuple[int, int]:
        """Width and height, in pixels, of the pictures the model was trained on."""
        size = self._unet.config.sample_size
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return int(width) * self.downscale, int(height) * self.downscale

    @property
    def max_prompt_tokens(self) -> int:
        return self._text_encoder.max_tokens

    def count_tokens(self, text: str) -> int:
        """With the two that CLIP puts around a text."""
        return self._text_encoder.count_tokens(text)

    def encode_prompts(self, texts: Sequence[str]) -> torch.Tensor:
        """`[len(texts), L, D]`, float32. Raises `ValueError` for a text that is too long."""
        return self._text_encoder.encode(texts)

    @torch.inference_mode()
    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        """The UNet's output, float32 `[R, C, h, w]`, for float32 `[R, C, h, w]` (with the channels
        of `Beginning.model_channels` after them for an inpainting model), `[R]`, `[R, L, D]`.
        """
        dtype = self._unet.dtype
        output: torch.Tensor = self._unet(
            latents.to(dtype), timesteps, context.to(dtype), return_dict=False
        )[0]
        return output.float()

    def encode_picture(
        self,
        pixels: Pixels,
        generator: torch.Generator,
        erased: npt.NDArray[np.bool_] | None = None,
    ) -> torch.Tensor:
        """Latents `[C, h, w]`, drawn from the autoencoder's posterior with `generator`."""
        return self._autoencoder.encode(pixels, generator, erased)

    def decode(self, latents: torch.Tensor) -> Pixels:
        """`[C, h, w]` to `uint8 [h * f, w * f, 3]`."""
        return self._autoencoder.decode(latents)


def _dtype(options: ModelOptions) -> torch.dtype:
    if options.dtype != "auto":
        return _DTYPES[options.dtype]
    return torch.bfloat16 if has_bfloat16(torch.device(options.device)) else torch.float32


def _check_unet(folder: ModelFolder) -> None:
    path = folder.path / "unet" / "config.json"
    config, vae = folder.config("unet"), folder.config("vae")
    for name in _UNSUPPORTED_UNET:
        if config.get(name) is not None:
            raise ModelFolderError(f"{path}: {name}: {config[name]!r} is not supported")
    channels = int(vae.get("latent_channels", 4))
    # Latents, a mask, the latents of what the mask leaves.
    if config.get("in_channels", 4) not in (channels, 2 * channels + 1):
        raise ModelFolderError(
            f"{path}: in_channels: {config['in_channels']} is not supported; "
            f"expected {channels}, or {2 * channels + 1} for inpainting"
        )
    if config.get("out_channels", 4) != channels:
        raise ModelFolderError(
            f"{path}: out_channels: {config['out_channels']} is not supported; expected {channels}"
        )


def _load_tokenizer(folder: ModelFolder) -> CLIPTokenizer:
    path = folder.path / "tokenizer"
    try:
        return CLIPTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path}: {error}") from error

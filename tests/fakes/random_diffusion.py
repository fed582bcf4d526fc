"""Tiny Stable Diffusion folders with random weights, written by diffusers: 32x32 pictures.

Every parameter is random, norms and biases too, so that a weight left out or misplaced shows in the
pixels. The tokenizer knows every byte and merges nothing: any text is its letters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = ["PICTURE_SIZE", "SCHEDULER_CONFIG", "random_diffusion_folder"]

PICTURE_SIZE = 32  # the default; any multiple of 8 can be made
_LATENT_CHANNELS = 4
_CONTEXT_SIZE = 16
_MAX_TOKENS = 77

# As Stable Diffusion 1.x has it, under the class name of DDIM.
SCHEDULER_CONFIG: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.42.1",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "trained_betas": None,
}


def random_diffusion_folder(
    path: Path,
    *,
    prediction_type: str = "epsilon",
    in_channels: int = 4,
    seed: int = 0,
    **scheduler_options: Any,
) -> Path:
    """Writes such a folder (about 400 KB) to `path` and returns it.

    `in_channels`: 4, or 9 for an inpainting UNet. `scheduler_options` go over `SCHEDULER_CONFIG`.
    """
    path.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tokenizer = _byte_tokenizer(path / "tokenizer")
    parts = {
        "unet": _random_unet(in_channels),
        "vae": _random_autoencoder(),
        "text_encoder": _random_text_encoder(tokenizer),
    }
    for name, module in parts.items():
        _randomize(module, generator)
        module.save_pretrained(path / name)
    scheduler = SCHEDULER_CONFIG | {"prediction_type": prediction_type} | scheduler_options
    _write_json(path / "scheduler" / "scheduler_config.json", scheduler)
    _write_json(
        path / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline"
            if in_channels == _LATENT_CHANNELS
            else "StableDiffusionInpaintPipeline",
            "_diffusers_version": "0.42.1",
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    return path


def _random_unet(in_channels: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=PICTURE_SIZE // 4,
        in_channels=in_channels,
        out_channels=_LATENT_CHANNELS,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=_CONTEXT_SIZE,
    )


def _random_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=_LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=PICTURE_SIZE,
        scaling_factor=0.5,
    )


def _random_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_CONTEXT_SIZE,
            intermediate_size=2 * _CONTEXT_SIZE,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=_MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _byte_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer without merges: every byte, inside a word and at its end."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = iter(range(256, 512))
    letters = [chr(byte if byte in printable else next(shifted)) for byte in range(256)]
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[],
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=_MAX_TOKENS,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _randomize(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights as large as keeps the signal's size from layer to layer, norms around one."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:
                fan_in = 1.0 if "embedding.weight" in name else parameter[0].numel() ** 0.5
                parameter.normal_(0.0, 1.0 / fan_in, generator=generator)
            else:
                around = 1.0 if name.endswith("weight") else 0.0
                parameter.normal_(around, 0.2, generator=generator)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))

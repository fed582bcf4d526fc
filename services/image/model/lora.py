"""LoRA files: low-rank changes to a model's weights, merged into them when it is loaded.

Hu et al., "LoRA" (arXiv:2106.09685): `W' = W + scale * alpha / rank * B A`. The names that users'
files have (kohya's trainers, diffusers, PEFT) become the modules' own by diffusers' conversions;
whatever of a file finds no place is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from diffusers.utils.state_dict_utils import StateDictType
from peft.utils.other import get_pattern_key
from safetensors import safe_open

from services.image.model.folder import read_json
from services.runtime.model_files import ModelFolderError

__all__ = ["LoraOptions", "merge_lora"]

Tensors: TypeAlias = dict[str, torch.Tensor]
Settings: TypeAlias = dict[str, Any]

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_PEFT_PREFIX = "base_model.model."
_METADATA = "lora_adapter_metadata"  # where diffusers keeps PEFT's settings in the file
_MAGNITUDES = ("dora_scale", "lora_magnitude_vector")


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """A LoRA to merge: a safetensors file, or a folder with one."""

    name: str
    path: Path
    scale: float = 1.0

    @property
    def file(self) -> Path:
        """Raises `ModelFolderError` where there is none, or more than one."""
        if self.path.is_file():
            if self.path.suffix != ".safetensors":
                raise ModelFolderError(f"{self.path}: expected a safetensors file")
            return self.path
        files = sorted(self.path.glob("*.safetensors"))
        if len(files) != 1:
            raise ModelFolderError(f"{self.path}: expected one safetensors file, got {len(files)}")
        return files[0]

    def files(self) -> list[Path]:
        """All that decides what is merged."""
        config = self.file.parent / "adapter_config.json"
        return [config, self.file] if config.is_file() else [self.file]


def merge_lora(lora: LoraOptions, unet: torch.nn.Module, text_encoder: torch.nn.Module) -> None:
    """Adds the LoRA to the weights, in place.

    Raises `ModelFolderError` naming the file and what in it cannot be merged.
    """
    parts = {"unet": unet, "text_encoder": text_encoder}
    try:
        tensors, settings = _read(lora, unet)
        for name in tensors:
            if not name.startswith(tuple(f"{part}." for part in parts)):
                raise ValueError(f"{name}: belongs to no part of the model")
        for part, module in parts.items():
            own = {
                name.removeprefix(f"{part}."): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{part}.")
            }
            _merge(_renamed(part, own, module), settings.get(part), lora.scale, module)
    except Exception as error:  # other libraries convert here what strangers wrote
        raise ModelFolderError(f"{lora.file}: {error}") from error


def _read(lora: LoraOptions, unet: torch.nn.Module) -> tuple[Tensors, dict[str, Settings]]:
    """Tensors by part and name in it, and PEFT's settings by part where there are any."""
    with safe_open(lora.file, framework="pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        metadata = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
    if not tensors:
        raise ValueError("holds no tensors")
    for name in tensors:
        if any(kind in name for kind in _MAGNITUDES):
            raise ValueError(f"{name}: DoRA is not supported")
    if all(name.startswith(_PEFT_PREFIX) for name in tensors):
        config = read_json(lora.file.parent / "adapter_config.json")
        own = {name.removeprefix(_PEFT_PREFIX): tensor for name, tensor in tensors.items()}
        modules = {name for name, _ in unet.named_modules()}
        part = "unet" if next(iter(own)).split(".lora_")[0] in modules else "text_encoder"
        return {f"{part}.{name}": tensor for name, tensor in own.items()}, {part: config}
    settings: dict[str, Settings] = {}
    for name, value in metadata.items():
        part, _, key = name.partition(".")
        settings.setdefault(part, {})[key] = value
    renamed, _ = StableDiffusionLoraLoaderMixin.lora_state_dict(_without_alphas(tensors))
    return renamed, settings


def _without_alphas(tensors: Tensors) -> Tensors:
    """kohya's files: each module's alpha, over its rank, multiplied into its weights."""
    scaled = dict(tensors)
    for name in tensors:
        if name.endswith(".alpha"):
            alpha = float(scaled.pop(name))
            module = name.removesuffix(".alpha")
            down, up = f"{module}.lora_down.weight", f"{module}.lora_up.weight"
            if down not in tensors or up not in tensors:
                raise ValueError(f"{name}: belongs to no module")
            scaled[up] = tensors[up] * (alpha / tensors[down].shape[0])
    return scaled


def _renamed(part: str, tensors: Tensors, module: torch.nn.Module) -> Tensors:
    """By the module's own names, PEFT's after them."""
    named = tensors
    if tensors and not any("lora_A" in name for name in tensors):
        if part == "unet":
            named = convert_unet_state_dict_to_peft(tensors)
        else:
            # The one kind whose table has the names of all of them; a guess goes by single names.
            named = convert_state_dict_to_peft(tensors, StateDictType.DIFFUSERS_OLD)
    if hasattr(module, "text_model"):
        return named
    # Of older files: CLIP's text model is flat in transformers now.
    return {name.removeprefix("text_model."): tensor for name, tensor in named.items()}


def _merge(
    tensors: Tensors, settings: Settings | None, scale: float, module: torch.nn.Module
) -> None:
    left = set(tensors)
    modules = dict(module.named_modules())
    for name in tensors:
        target = name.removesuffix(_DOWN)
        if not name.endswith(_DOWN) or target + _UP not in tensors:
            continue
        left -= {target + _DOWN, target + _UP}
        down, up = tensors[target + _DOWN], tensors[target + _UP]
        layer = modules.get(target)
        if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            raise ValueError(f"{target}: the model has no such layer")
        change = (up.flatten(1) @ down.flatten(1)).view(up.shape[0], *down.shape[1:])
        if change.dim() > 2 and isinstance(layer, torch.nn.Linear):
            change = change.flatten(1)  # a convolution of one pixel
        if change.shape != layer.weight.shape:
            raise ValueError(
                f"{target}: is of shape {tuple(change.shape)}, "
                f"the model's layer of {tuple(layer.weight.shape)}"
            )
        factor = scale * _alpha_over_rank(settings, target, down.shape[0])
        with torch.no_grad():
            layer.weight += factor * change
    if left:
        raise ValueError(f"not used: {', '.join(sorted(left)[:5])}")


def _alpha_over_rank(settings: Mapping[str, Any] | None, target: str, rank: int) -> float:
    """By PEFT's settings; 1 where there are none."""
    if settings is None:
        return 1.0
    if settings.get("use_dora"):
        raise ValueError("use_dora: DoRA is not supported")
    patterns = settings.get("alpha_pattern") or {}
    key = get_pattern_key(patterns.keys(), target)
    alpha = float(patterns.get(key, settings.get("lora_alpha", rank)))
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)

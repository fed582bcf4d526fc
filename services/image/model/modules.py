"""Loading and placing the modules of a diffusers folder. Knows nothing of what they compute."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError

from services.image.model.folder import ModelFolder
from services.runtime.model_files import ModelFolderError

__all__ = ["load_module", "parameter_bytes", "placed"]


def load_module(module_class: Any, folder: ModelFolder, part: str) -> Any:
    """The module, float32. Raises `ModelFolderError` where its tensors are not those it needs."""
    path = folder.path / part
    folder.config(part)
    try:
        module, info = module_class.from_pretrained(
            path,
            use_safetensors=True,
            variant=folder.variant(part),
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelFolderError(f"{path}: {error}") from error
    for kind, told in (("missing_keys", "missing"), ("unexpected_keys", "not used")):
        if info[kind]:
            raise ModelFolderError(f"{path}: {told}: {', '.join(sorted(info[kind])[:5])}")
    return module


def placed(module: Any, device: str, dtype: torch.dtype = torch.float32) -> Any:
    """On the device, in the precision, for computing only."""
    return module.to(device, dtype).eval().requires_grad_(False)


def parameter_bytes(module: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())

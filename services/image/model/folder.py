"""A diffusers folder on disk: its parts, and that this service can run them.

Refuses at load, by name, what would make other pictures than diffusers' own pipeline, and weights
that are pickled: a pickle runs code when it is loaded. Knows nothing of what the weights mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.runtime.model_files import ModelFolderError

__all__ = ["ModelFolder", "read_json"]

_PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
)
_PARTS: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
# Of a pipeline that makes pictures alone: neither looks at the prompt nor at the latents.
_UNUSED = frozenset({"safety_checker", "feature_extractor", "scheduler"})
_WEIGHTS = "*.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack")
_VARIANTS = ("", "fp16", "bf16", "fp32")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder whose `model_index.json` this service can serve."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Raises `ModelFolderError`."""
        if not path.is_dir():
            raise ModelFolderError(f"{path}: no such folder")
        index_path = path / "model_index.json"
        index = read_json(index_path)
        pipeline = index.get("_class_name")
        if pipeline not in _PIPELINES:
            raise ModelFolderError(
                f"{index_path}: _class_name: {pipeline} cannot be served; "
                f"expected one of {', '.join(_PIPELINES)}"
            )
        for part, value in index.items():
            if isinstance(value, list) and part not in _UNUSED:
                _check_part(index_path, part, value)
        for part in _PARTS:
            if part not in index:
                raise ModelFolderError(f"{index_path}: {part}: missing")
        return cls(path)

    def config(self, part: str) -> dict[str, Any]:
        """`config.json` of a part. Raises `ModelFolderError`."""
        return read_json(self.path / part / "config.json")

    def variant(self, part: str) -> str | None:
        """Under which name the part has its safetensors; None = the plain one.

        Raises `ModelFolderError` where it has none.
        """
        folder = self.path / part
        files = [path.name for path in folder.glob(_WEIGHTS)]
        for variant in _VARIANTS:
            if variant in map(_variant_of, files):
                return variant or None
        pickled = sorted(path.name for each in _PICKLES for path in folder.glob(each))
        if pickled:
            raise ModelFolderError(f"{folder / pickled[0]}: is pickled; expected safetensors")
        raise ModelFolderError(f"{folder}: holds no safetensors weights")

    def _weights(self, part: str) -> list[Path]:
        variant = self.variant(part) or ""
        files = (self.path / part).glob(_WEIGHTS)
        return [path for path in files if _variant_of(path.name) == variant]

    def decisive_files(self) -> list[Path]:
        """All that decides what a picture looks like."""
        found = {self.path / "model_index.json", self.path / "scheduler" / "scheduler_config.json"}
        for part in _PARTS:
            for kind in ("*.json", "*.txt"):
                found.update((self.path / part).glob(kind))
            if part != "tokenizer":
                found.update(self._weights(part))
        return sorted(found)


def read_json(path: Path) -> dict[str, Any]:
    """Raises `ModelFolderError` where it is not an object in JSON."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path}: expected a JSON object")
    return content


def _check_part(index_path: Path, part: str, value: list[Any]) -> None:
    class_name = value[-1]
    if part in _PARTS:
        if class_name not in _PARTS[part]:
            raise ModelFolderError(
                f"{index_path}: {part}: {class_name} cannot be served; "
                f"expected {' or '.join(_PARTS[part])}"
            )
    elif class_name is not None:
        raise ModelFolderError(f"{index_path}: {part}: {class_name} is not supported")


def _variant_of(file_name: str) -> str:
    """ "fp16" of "model.fp16.safetensors" and of "model.fp16-00001-of-00002.safetensors"."""
    parts = file_name.removesuffix(".safetensors").split(".")
    return parts[1].split("-")[0] if len(parts) > 1 else ""

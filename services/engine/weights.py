"""From a Hugging Face folder, or a hub name, to a decoder that holds its weights.

`checkpoint.py` reads the tensors, `models/registry.py` picks the decoder; this module finds the
folder and ties the two together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from services.engine.checkpoint import Checkpoint, read_json
from services.engine.config import DType, ModelConfig
from services.engine.errors import CheckpointError, ConfigError
from services.engine.layers.moe import SparseLayer
from services.engine.models.registry import Decoder, build_decoder

__all__ = [
    "LoadedModel",
    "load_model",
    "open_checkpoint",
    "read_model_config",
    "resolve_model",
]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*|[\w-][\w.-]*")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A decoder with its weights. `weight_hash` is that of `Checkpoint.content_hash`."""

    decoder: Decoder
    config: ModelConfig
    path: Path
    weight_hash: str
    num_parameters: int
    dtype: torch.dtype
    device: torch.device


def load_model(
    path_or_name: str | Path,
    dtype: DType = "auto",
    device: str = "cpu",
    *,
    sparse_layer: SparseLayer | None = None,
) -> LoadedModel:
    """Loads a folder in Hugging Face layout, or by hub name where there is network.

    dtype "auto" keeps every bit: bfloat16 for a checkpoint in bfloat16, float32 for any other.
    `sparse_layer` computes the sparse layers of a mixture of experts elsewhere: their weights are
    then neither loaded nor needed. `num_parameters` counts what the folder has of them.
    Raises `ConfigError` for what `config.json` asks and the engine lacks, `CheckpointError` for a
    missing folder, and for a missing, unused or misshapen tensor, naming it.
    """
    folder = resolve_model(path_or_name)
    config = read_model_config(folder)
    with open_checkpoint(folder, dtype, device) as checkpoint:
        decoder = build_decoder(config, checkpoint, sparse_layer)
        checkpoint.check_all_taken()
        return LoadedModel(
            decoder=decoder,
            config=config,
            path=folder,
            weight_hash=checkpoint.content_hash(),
            num_parameters=checkpoint.num_parameters,
            dtype=checkpoint.dtype,
            device=checkpoint.device,
        )


def open_checkpoint(folder: Path, dtype: DType = "auto", device: str = "cpu") -> Checkpoint:
    """The tensors of a folder, to be converted as `load_model` does."""
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(
            "device", f"expected a torch device such as cpu, got {device!r}"
        ) from error
    return Checkpoint(folder, _DTYPES.get(dtype), where)


def read_model_config(folder: Path) -> ModelConfig:
    """The `ModelConfig` of a folder, from `config.json` and, where present, generation_config."""
    generation = folder / "generation_config.json"
    return ModelConfig.from_hf(
        read_json(folder / "config.json"), read_json(generation) if generation.is_file() else None
    )


def resolve_model(path_or_name: str | Path) -> Path:
    """The folder of a model: a path as it is, a hub name as its downloaded snapshot.

    What looks like a path is never looked up on the hub. Raises `CheckpointError` where nothing
    is found.
    """
    path = Path(path_or_name).expanduser()
    name = str(path_or_name)
    if name and path.is_dir():
        return path
    if isinstance(path_or_name, Path) or not _HUB_NAME.fullmatch(name) or _starts_in_folder(path):
        raise CheckpointError(f"{path_or_name}: no such folder")
    return _download(name)


def _starts_in_folder(path: Path) -> bool:
    """Whether `models/typo` is meant as a path, because there is a folder `models` here."""
    return len(path.parts) > 1 and Path(path.parts[0]).is_dir()


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download  # slow to import, and seldom needed
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{name}: neither a folder here nor downloadable from the Hugging Face hub ({error})"
        ) from error

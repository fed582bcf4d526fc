"""A model's folder on disk: where it is, what its weights hash to, that they are safetensors.

Knows nothing of what the weights mean.
"""

from __future__ import annotations

from pathlib import Path

from services.runtime.model_files import ModelFolderError, hash_files

__all__ = ["content_hash", "find_folder"]

_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_WEIGHTS = "*.safetensors"


def find_folder(name: str) -> Path:
    """A path as it is, a hub name as its downloaded snapshot. Raises `ModelFolderError`."""
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")):
        raise ModelFolderError(f"{name}: no such folder")
    from huggingface_hub import snapshot_download  # slow to import, and seldom needed
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelFolderError(
            f"{name}: neither a folder here nor downloadable from the Hugging Face hub ({error})"
        ) from error


def content_hash(folder: Path) -> str:
    """SHA-256, in hex, over the names and contents of all that decides a model's vectors.

    Raises `ModelFolderError` where a part of the model has pickled weights and no safetensors:
    a pickle runs code when it is loaded.
    """
    if not any(folder.rglob(_WEIGHTS)):
        raise ModelFolderError(f"{folder}: holds no safetensors weights")
    for part in {path.parent for pattern in _PICKLES for path in folder.rglob(pattern)}:
        if not any(part.glob(_WEIGHTS)):
            raise ModelFolderError(f"{part}: weights are pickled; expected safetensors")
    decisive = [*folder.rglob(_WEIGHTS), *folder.rglob("*config.json"), folder / "modules.json"]
    return hash_files(sorted(path for path in decisive if path.is_file()), folder)

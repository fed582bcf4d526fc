"""A model's files on disk: what they hash to, and what is raised where they cannot be served.

Knows no kind of model, and reads no weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["ModelFolderError", "hash_files"]

_BLOCK_BYTES = 1 << 20


class ModelFolderError(ValueError):
    """A model cannot be loaded; the message names the folder or file and what is wrong with it."""


def hash_files(files: Iterable[Path], root: Path, *more: str) -> str:
    """SHA-256, in hex, over names below `root`, contents, and `more` that decides.

    A file outside of `root` goes by its own name. The order of the files counts.
    """
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(root) if path.is_relative_to(root) else path.name
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    for text in more:
        digest.update(f"{text}\0".encode())
    return digest.hexdigest()

"""The tokenizer of an embedding model, as chunking counts with it."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

__all__ = ["load_tokenizer"]


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer of a model's folder, neither truncating nor padding.

    Raises `FileNotFoundError` when the folder has no `tokenizer.json`.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; chunking needs the model's fast tokenizer")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer

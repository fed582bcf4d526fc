"""A small mixture of experts with random weights and a tokenizer of single letters."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from tests.fakes.random_models import save_random_model

__all__ = ["NUM_EXPERTS", "NUM_LAYERS", "moe_folder"]

NUM_LAYERS, NUM_EXPERTS = 3, 8


def moe_folder(folder: Path, name: str = "mixtral", **overrides: object) -> Path:
    """Writes the model to `folder` and returns it."""
    if name == "mixtral":
        overrides = {"num_local_experts": NUM_EXPERTS, **overrides}
    save_random_model(folder, name, **overrides)
    letters = [chr(code) for code in range(32, 127)]
    vocabulary = {"<unk>": 0, **{letter: i for i, letter in enumerate(letters, start=1)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder

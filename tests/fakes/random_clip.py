"""A small CLIP folder with random weights, as transformers writes it: model, tokenizer, processor.

Every parameter is random, norms and biases too, so that one that is left out or misplaced shows.
The two towers differ in width, so that one taken for the other does as well. The vectors of
different texts and pictures are far apart; what they mean is chance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip import CLIPImageProcessorPil

from training.images.clip_tokenizer import MAX_TOKENS, build_tokenizer

IMAGE_SIZE = 32
PATCH_SIZE = 8
DIMENSIONS = 24
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_TOKENS,
}
_VISION = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
}


def random_clip_folder(
    path: Path | str,
    *,
    seed: int = 0,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    processor: dict[str, Any] | None = None,
) -> Path:
    """Writes the folder and returns it.

    `text`, `vision` and `processor` replace fields of the towers' configurations and of the
    image processor's.
    """
    folder = Path(path)
    tokenizer = build_tokenizer()
    model = CLIPModel(_config(tokenizer, text or {}, vision or {})).eval()
    _randomize(model, seed)
    model.save_pretrained(folder)
    size = model.config.vision_config.image_size
    settings = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    image_processor = CLIPImageProcessorPil(**{**settings, **(processor or {})})
    CLIPProcessor(image_processor, tokenizer).save_pretrained(folder)
    _write_preprocessor_config(folder, image_processor)
    return folder


def _config(tokenizer: CLIPTokenizer, text: dict[str, Any], vision: dict[str, Any]) -> CLIPConfig:
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPConfig(
        text_config={**_TEXT, "vocab_size": len(tokenizer), **special, **text},
        vision_config={**_VISION, **vision},
        projection_dim=DIMENSIONS,
    )


def _randomize(model: CLIPModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "logit_scale":
                continue  # as trained ones begin: it is no weight of a tower
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.normal_(around, 0.2, generator=generator)


def _write_preprocessor_config(folder: Path, image_processor: CLIPImageProcessorPil) -> None:
    """Beside what newer transformers write: published folders have this file."""
    settings = image_processor.to_dict()
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")

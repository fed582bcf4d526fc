"""Write a trained demo model as a Hugging Face folder with its tokenizer, record and card."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedModel

from training.card import write_card
from training.tokenizer import save_tokenizer


def export_model(
    model: PreTrainedModel, tokenizer: Tokenizer, folder: Path, record: dict[str, Any]
) -> None:
    """Write `model` in bfloat16 with its tokenizer into `folder`, and `record` as training.json."""
    folder.mkdir(parents=True, exist_ok=True)
    exported = copy.deepcopy(model).to(torch.bfloat16)
    exported.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        bos_token_id=exported.config.bos_token_id,
        eos_token_id=exported.config.eos_token_id,
        pad_token_id=exported.config.pad_token_id,
    )
    exported.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # the writer makes it private
    save_tokenizer(tokenizer, folder)
    (folder / "training.json").write_text(json.dumps(record) + "\n")
    write_card(folder)

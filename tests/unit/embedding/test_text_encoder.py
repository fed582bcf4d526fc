"""Our vectors are those of sentence-transformers' `encode`, whatever the folder's modules."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from services.embedding.encoder import Encoder, EncoderOptions, Vectors
from services.embedding.loading import load_encoder
from services.embedding.precision import MIN_COSINE
from services.embedding.tokenization import TokenizedInput
from services.runtime.model_files import ModelFolderError
from tests.unit.embedding.conftest import PROMPTS, save_encoder
from tests.unit.embedding.texts import TEXTS

FLOAT32 = EncoderOptions(dtype="float32")


def tokenized(encoder: Encoder, prompt: str = "") -> list[TokenizedInput]:
    tokenizer = encoder.tokenizer
    length = 0 if encoder.counts_prompt else tokenizer.prompt_length(prompt)
    contents = tokenizer.content_ids([prompt + text for text in TEXTS])
    return [tokenizer.build(ids, length) for ids in contents]


def expected(folder: Path | str, prompt: str | None = None) -> Vectors:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors: Vectors = model.encode(list(TEXTS), prompt=prompt, show_progress_bar=False)
    return vectors


def cosines(left: Vectors, right: Vectors) -> Vectors:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    result: Vectors = (left * right).sum(axis=1) / norms
    return result


def test_default_model_gives_the_vectors_of_encode(minilm_folder: str) -> None:
    encoder = load_encoder(minilm_folder, FLOAT32)
    assert (encoder.dimensions, encoder.dtype, encoder.normalized) == (384, "float32", True)
    assert encoder.tokenizer.max_input_tokens == 256
    vectors = encoder.embed(tokenized(encoder))
    np.testing.assert_allclose(vectors, expected(minilm_folder), atol=1e-5)


def test_bfloat16_keeps_the_vectors_and_their_length(minilm_folder: str) -> None:
    encoder = load_encoder(minilm_folder, EncoderOptions(dtype="bfloat16"))
    assert encoder.dtype == "bfloat16"
    vectors = encoder.embed(tokenized(encoder))
    assert vectors.dtype == np.float32
    assert cosines(vectors, expected(minilm_folder)).min() >= MIN_COSINE
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_auto_computes_in_one_of_the_two_and_keeps_the_vectors(minilm_folder: str) -> None:
    encoder = load_encoder(minilm_folder, EncoderOptions())
    assert encoder.dtype in ("float32", "bfloat16")
    vectors = encoder.embed(tokenized(encoder))
    assert cosines(vectors, expected(minilm_folder)).min() >= MIN_COSINE


@pytest.mark.parametrize(
    ("pooling", "tail"),
    [
        ("cls", ""),
        ("mean", "n"),
        ("max", ""),
        ("lasttoken", "n"),
        ("weightedmean", "d"),
        ("cls", "dn"),
    ],
)
@pytest.mark.parametrize("prompt", ["", PROMPTS["query"]])
def test_any_modules_give_the_vectors_of_encode(
    tmp_path: Path, minilm_folder: str, pooling: str, tail: str, prompt: str
) -> None:
    folder = save_encoder(tmp_path, minilm_folder, pooling=pooling, tail=tail)
    encoder = load_encoder(str(folder), FLOAT32)
    assert encoder.dimensions == (24 if "d" in tail else 48)
    assert encoder.normalized == tail.endswith("n")
    vectors = encoder.embed(tokenized(encoder, prompt))
    np.testing.assert_allclose(vectors, expected(folder, prompt), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_prompt_left_out_of_pooling_is_left_out(
    tmp_path: Path, minilm_folder: str, pooling: str
) -> None:
    folder = save_encoder(tmp_path, minilm_folder, pooling=pooling, include_prompt=False)
    encoder = load_encoder(str(folder), FLOAT32)
    assert not encoder.counts_prompt
    query, plain = tokenized(encoder, PROMPTS["query"]), tokenized(encoder)
    mixed = [item for pair in zip(query, plain, strict=True) for item in pair]
    vectors = encoder.embed(mixed)  # both prompt lengths in one batch
    np.testing.assert_allclose(vectors[::2], expected(folder, PROMPTS["query"]), atol=1e-5)
    np.testing.assert_allclose(vectors[1::2], expected(folder), atol=1e-5)


def test_prompts_are_those_of_the_folder_unless_configured(cls_folder: Path) -> None:
    own = load_encoder(str(cls_folder), FLOAT32)
    assert (own.query_prompt, own.passage_prompt) == (PROMPTS["query"], PROMPTS["passage"])
    options = EncoderOptions(dtype="float32", query_prompt="ask: ", passage_prompt="")
    configured = load_encoder(str(cls_folder), options)
    assert (configured.query_prompt, configured.passage_prompt) == ("ask: ", "")


def test_normalize_makes_unit_length_of_a_folder_that_does_not(cls_folder: Path) -> None:
    encoder = load_encoder(str(cls_folder), EncoderOptions(dtype="float32", normalize=True))
    assert encoder.normalized
    vectors = encoder.embed(tokenized(encoder))
    plain = expected(cls_folder)
    np.testing.assert_allclose(
        vectors, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-5
    )


def test_max_input_tokens_cuts_sooner_and_not_beyond_the_positions(cls_folder: Path) -> None:
    encoder = load_encoder(str(cls_folder), EncoderOptions(dtype="float32", max_input_tokens=8))
    longest = max(len(item.ids) for item in tokenized(encoder))
    assert longest == encoder.tokenizer.max_input_tokens == 8
    with pytest.raises(ModelFolderError, match="max_input_tokens"):
        load_encoder(str(cls_folder), EncoderOptions(dtype="float32", max_input_tokens=65))


def test_a_roberta_reads_no_more_than_its_positions_hold(
    tmp_path: Path, minilm_folder: str
) -> None:
    import transformers
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder)
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=42,  # 40 and the offset
        pad_token_id=0,
    )
    transformers.RobertaModel(config).save_pretrained(tmp_path / "bare")
    tokenizer.model_max_length = 40
    tokenizer.save_pretrained(tmp_path / "bare")
    modules = [Transformer(str(tmp_path / "bare")), Pooling(16, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"))
    encoder = load_encoder(str(tmp_path / "model"), FLOAT32)
    vectors = encoder.embed(tokenized(encoder))
    np.testing.assert_allclose(vectors, expected(tmp_path / "model"), atol=1e-5)
    with pytest.raises(ModelFolderError, match="max_input_tokens"):
        load_encoder(str(tmp_path / "model"), EncoderOptions(dtype="float32", max_input_tokens=42))


def test_what_is_no_model_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="no such folder"):
        load_encoder(str(tmp_path / "missing"), FLOAT32)
    with pytest.raises(ModelFolderError, match="safetensors"):
        load_encoder(str(tmp_path), FLOAT32)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_a_gpu_keeps_the_vectors(minilm_folder: str, dtype: Literal["auto"]) -> None:
    encoder = load_encoder(minilm_folder, EncoderOptions(dtype=dtype, device="cuda"))
    vectors = encoder.embed(tokenized(encoder))
    assert cosines(vectors, expected(minilm_folder)).min() >= MIN_COSINE

"""Our vectors are those of transformers' `CLIPModel`, whatever the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip import CLIPImageProcessorPil

from services.embedding.clip_encoder import MIN_COSINE, ClipEncoder
from services.embedding.encoder import EncoderOptions, Vectors
from services.embedding.loading import load_encoder
from services.embedding.tokenization import TokenizedInput
from services.runtime.model_files import ModelFolderError
from tests.fakes.random_clip import DIMENSIONS, IMAGE_SIZE, PATCH_SIZE, random_clip_folder
from tests.unit.embedding.pictures import pictures

FLOAT32 = EncoderOptions(dtype="float32")
TEXTS = (
    "a red circle left of a blue square",
    "a",
    "A PICTURE of two green stars, on grey.",
    "hello, wörld ☃",
    "<|endoftext|> within a text",
    "an image of a large purple ring at the bottom right " * 9,  # cut
)
DEMO_MODEL = Path(__file__).resolve().parents[3] / "models" / "orrery-clip"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_clip_folder(tmp_path_factory.mktemp("clip") / "model")


def tokenized(encoder: ClipEncoder, texts: tuple[str, ...] = TEXTS) -> list[TokenizedInput]:
    tokenizer = encoder.tokenizer
    return [tokenizer.build(ids) for ids in tokenizer.content_ids(texts)]


def expected_texts(folder: Path, texts: tuple[str, ...] = TEXTS) -> Vectors:
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(
        list(texts), padding=True, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        vectors = model.get_text_features(**inputs).pooler_output
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


def expected_pictures(folder: Path) -> Vectors:
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    with torch.inference_mode():
        values = processor(pictures(), return_tensors="pt")["pixel_values"]
        vectors = model.get_image_features(values).pooler_output
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


def embedded_pictures(encoder: ClipEncoder) -> Vectors:
    apply = encoder.pictures.preprocessing.apply
    return encoder.pictures.embed([apply(picture) for picture in pictures()])


def load(folder: Path, options: EncoderOptions = FLOAT32) -> ClipEncoder:
    encoder = load_encoder(str(folder), options)
    assert isinstance(encoder, ClipEncoder)
    return encoder


def test_a_clip_folder_gives_the_vectors_of_transformers(folder: Path) -> None:
    encoder = load(folder)
    assert (encoder.dimensions, encoder.dtype, encoder.normalized) == (DIMENSIONS, "float32", True)
    assert encoder.tokenizer.max_input_tokens == 32
    assert encoder.pictures.num_tokens == (IMAGE_SIZE // PATCH_SIZE) ** 2 + 1
    np.testing.assert_allclose(encoder.embed(tokenized(encoder)), expected_texts(folder), atol=1e-5)
    np.testing.assert_allclose(embedded_pictures(encoder), expected_pictures(folder), atol=1e-5)
    model = CLIPModel.from_pretrained(folder)
    assert encoder.pictures.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


@pytest.mark.parametrize(
    ("text", "vision"),
    [
        ({"eos_token_id": 2}, {}),  # as the first checkpoints say
        ({"hidden_act": "gelu"}, {"hidden_act": "gelu_new"}),
        ({"max_position_embeddings": 77}, {"image_size": 48, "patch_size": 16}),
    ],
)
def test_other_clips_give_the_vectors_of_transformers(
    tmp_path: Path, text: dict[str, Any], vision: dict[str, Any]
) -> None:
    folder = random_clip_folder(tmp_path, seed=3, text=text, vision=vision)
    encoder = load(folder)
    np.testing.assert_allclose(encoder.embed(tokenized(encoder)), expected_texts(folder), atol=1e-5)
    np.testing.assert_allclose(embedded_pictures(encoder), expected_pictures(folder), atol=1e-5)


def test_a_vector_is_the_same_whatever_shares_its_batch(folder: Path) -> None:
    encoder = load(folder)
    inputs = tokenized(encoder)
    together = encoder.embed(inputs)
    alone = np.concatenate([encoder.embed([item]) for item in inputs])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_sentence_transformers_folder_around_clip_is_served(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "0_CLIPModel")
    modules = [
        {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "x.models.CLIPModel"},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": "x.models.Normalize"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    encoder = load(tmp_path)
    np.testing.assert_allclose(encoder.embed(tokenized(encoder)), expected_texts(folder), atol=1e-5)
    modules[1]["type"] = "x.models.Dense"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelFolderError, match="Dense"):
        load(tmp_path)


def test_bfloat16_is_near_and_auto_takes_it_only_where_vectors_stay(folder: Path) -> None:
    forced = load(folder, EncoderOptions(dtype="bfloat16"))
    assert forced.dtype == "bfloat16"
    cosines = (forced.embed(tokenized(forced)) * expected_texts(folder)).sum(axis=1)
    assert cosines.min() >= 0.99
    auto = load(folder, EncoderOptions(dtype="auto"))
    for got, want in (
        (auto.embed(tokenized(auto)), expected_texts(folder)),
        (embedded_pictures(auto), expected_pictures(folder)),
    ):
        assert (got * want).sum(axis=1).min() >= MIN_COSINE


@pytest.mark.parametrize("name", ["query_prompt", "passage_prompt"])
def test_options_that_fit_no_clip_are_refused_by_name(folder: Path, name: str) -> None:
    with pytest.raises(ModelFolderError, match=name):
        load(folder, EncoderOptions(dtype="float32", **{name: "query: "}))
    assert load(folder, EncoderOptions(dtype="float32", **{name: ""}))


def test_max_input_tokens_cuts_sooner_and_not_beyond_the_positions(folder: Path) -> None:
    encoder = load(folder, EncoderOptions(dtype="float32", max_input_tokens=8))
    assert max(len(item.ids) for item in tokenized(encoder)) == 8
    with pytest.raises(ModelFolderError, match="max_input_tokens"):
        load(folder, EncoderOptions(dtype="float32", max_input_tokens=33))


def test_a_weight_that_is_missing_or_unused_is_refused_by_name(
    tmp_path: Path, folder: Path
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    name = "vision_model.post_layernorm.weight"
    save_file({key: value for key, value in weights.items() if key != name}, file)
    with pytest.raises(ModelFolderError, match=name):
        load(tmp_path / "model")
    save_file({**weights, "spare.weight": torch.zeros(2)}, file)
    with pytest.raises(ModelFolderError, match=r"spare\.weight"):
        load(tmp_path / "model")
    save_file({**weights, name: torch.zeros(3)}, file)
    with pytest.raises(ModelFolderError, match=name):
        load(tmp_path / "model")


def test_pickled_weights_are_refused(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ModelFolderError, match="safetensors"):
        load(tmp_path / "model")


def test_an_end_token_that_no_text_has_is_refused(tmp_path: Path) -> None:
    folder = random_clip_folder(tmp_path, text={"eos_token_id": 7})
    with pytest.raises(ModelFolderError, match="eos_token_id"):
        load(folder)


def test_the_hash_changes_with_the_preprocessing(tmp_path: Path, folder: Path) -> None:
    other = random_clip_folder(tmp_path, processor={"image_mean": [0.5, 0.5, 0.5]})
    assert load(folder).weight_hash != load(other).weight_hash
    assert load(folder).weight_hash == load(folder).weight_hash


@pytest.mark.skipif(not DEMO_MODEL.is_dir(), reason="the demo model is not there")
@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_the_demo_model_gives_the_vectors_of_transformers(
    dtype: Literal["float32", "auto"],
) -> None:
    encoder = load(DEMO_MODEL, EncoderOptions(dtype=dtype))
    texts = (encoder.embed(tokenized(encoder)) * expected_texts(DEMO_MODEL)).sum(axis=1)
    images = (embedded_pictures(encoder) * expected_pictures(DEMO_MODEL)).sum(axis=1)
    assert min(texts.min(), images.min()) >= MIN_COSINE

"""Pictures are made what transformers' `CLIPImageProcessor` makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip import CLIPImageProcessorPil

from services.embedding.preprocessing import Preprocessing, load_preprocessing
from services.runtime.model_files import ModelFolderError
from tests.unit.embedding.pictures import picture, pictures

SQUARE = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
OPENAI = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32}


def load(folder: Path, fields: dict[str, Any], image_size: int = 32) -> Preprocessing:
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return load_preprocessing(folder, image_size)


def values(preprocessing: Preprocessing, image: Image.Image) -> np.ndarray:
    """`[3, height, width]`, as transformers lays them out."""
    pixels = preprocessing.apply(image)
    scaled = pixels * np.float32(preprocessing.scale) + np.float32(preprocessing.offset)
    return np.moveaxis(scaled, -1, 0)


@pytest.mark.parametrize(
    "fields",
    [
        SQUARE,
        OPENAI,
        {**SQUARE, "resample": 2},
        {**SQUARE, "resample": 0},
        {**SQUARE, "do_normalize": False},
        {**SQUARE, "do_rescale": False, "image_mean": [90.0, 80.0, 70.0]},
        {**SQUARE, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        {**SQUARE, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]},
        {**SQUARE, "size": {"shortest_edge": 40}},
        {**SQUARE, "size": {"shortest_edge": 25}},  # smaller than the cut: black around it
        {**SQUARE, "size": {"height": 40, "width": 33}},
        {"size": {"height": 32, "width": 32}, "do_center_crop": False},
        {**SQUARE, "do_resize": False},
    ],
)
def test_any_settings_give_the_values_of_transformers(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    ours = load(tmp_path, fields)
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path)
    for image in pictures():
        want = np.asarray(theirs(image)["pixel_values"][0])
        np.testing.assert_allclose(values(ours, image), want, rtol=1e-5, atol=1e-4)


@settings(max_examples=80, deadline=None)
@given(width=st.integers(1, 250), height=st.integers(1, 250))
def test_any_size_of_picture_gives_the_pixels_of_transformers(width: int, height: int) -> None:
    ours = Preprocessing(
        width=32,
        height=32,
        shortest_edge=32,
        size=None,
        resample=Image.Resampling.BICUBIC,
        scale=(1.0, 1.0, 1.0),
        offset=(0.0, 0.0, 0.0),
    )
    theirs = CLIPImageProcessorPil(**SQUARE, do_rescale=False, do_normalize=False)
    image = picture(0, (width, height))
    got = np.moveaxis(ours.apply(image), -1, 0).astype(int)
    want = np.asarray(theirs(image)["pixel_values"][0]).astype(int)
    is_narrow = int(32 * max(width, height) / min(width, height)) > 32 * 32
    if is_narrow:
        assert np.abs(got - want).mean() <= 3
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("size", [(1, 16_000), (16_000, 1), (20_000, 3)])
def test_a_very_narrow_picture_costs_no_more_than_another(tmp_path: Path, size: Any) -> None:
    ours = load(tmp_path, SQUARE)
    resized: list[tuple[int, int]] = []

    class Watched(type(Image.new("RGB", (1, 1)))):  # type: ignore[misc]
        def resize(self, size: tuple[int, int], *args: Any, **kwargs: Any) -> Image.Image:
            resized.append(size)
            return super().resize(size, *args, **kwargs)

    image = Image.new("RGB", size, "red")
    image.__class__ = Watched
    assert ours.apply(image).shape == (32, 32, 3)
    assert (ours.apply(image) == [255, 0, 0]).all()
    assert max(max(made) for made in resized) <= 32


def test_the_processors_file_goes_before_the_preprocessors(tmp_path: Path) -> None:
    inner = {**SQUARE, "image_processor_type": "CLIPImageProcessor", "resample": 2}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
    made = load(tmp_path, SQUARE)
    assert made.resample == Image.Resampling.BILINEAR
    assert CLIPImageProcessorPil.from_pretrained(tmp_path).resample == made.resample


def test_settings_left_out_are_those_of_clip(tmp_path: Path) -> None:
    made = load(tmp_path, {}, image_size=224)
    theirs = CLIPImageProcessorPil()
    image = picture(1, (300, 200))
    np.testing.assert_allclose(
        values(made, image), np.asarray(theirs(image)["pixel_values"][0]), atol=1e-4
    )


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"image_processor_type": "SiglipImageProcessor"}, "SiglipImageProcessor"),
        ({"do_pad": True}, "do_pad"),
        ({"do_sharpen": True}, "do_sharpen"),
        ({"min_pixels": 99}, "min_pixels"),
        ({"size": {"longest_edge": 32}}, "size"),
        ({"size": {"shortest_edge": 0}}, "size.shortest_edge"),
        ({"size": {"shortest_edge": "32"}}, "size.shortest_edge"),
        ({"crop_size": {"height": 32}}, "crop_size"),
        ({"do_center_crop": False}, "do_center_crop"),
        ({"resample": 17}, "17"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std"),
        ({"crop_size": 64}, "32 x 32"),
    ],
)
def test_a_setting_that_is_not_understood_is_refused_by_name(
    tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelFolderError, match=named):
        load(tmp_path, {**SQUARE, **fields})


def test_settings_that_say_nothing_are_taken(tmp_path: Path) -> None:
    idle = {"do_pad": False, "pad_size": None, "data_format": "channels_first", "device": None}
    assert load(tmp_path, {**SQUARE, **idle}) == load(tmp_path, SQUARE)


def test_a_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="preprocessor_config"):
        load_preprocessing(tmp_path, 32)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelFolderError, match="preprocessor_config"):
        load_preprocessing(tmp_path, 32)


def test_digests_differ_where_the_values_do(tmp_path: Path) -> None:
    variants = [SQUARE, {**SQUARE, "resample": 2}, {**SQUARE, "image_mean": [0.5] * 3}]
    assert len({load(tmp_path, fields).digest() for fields in variants}) == len(variants)
    assert load(tmp_path, SQUARE).digest() == load(tmp_path, SQUARE).digest()

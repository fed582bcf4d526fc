"""A folder in memory: what it tells of itself, and what it refuses at load, by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from services.image.model import diffusion_model
from services.image.model.diffusion_model import DiffusionModel, ModelOptions
from services.runtime.model_files import ModelFolderError
from tests.fakes.random_diffusion import random_diffusion_folder

_UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_diffusion_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(sound_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(sound_folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def model(sound_folder: Path) -> DiffusionModel:
    return DiffusionModel.load(sound_folder)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_model_tells_what_the_folder_says(model: DiffusionModel) -> None:
    assert model.prediction_type == "epsilon"
    assert (model.latent_channels, model.downscale, model.size_multiple) == (4, 4, 4)
    assert model.default_size == (32, 32)
    assert model.max_prompt_tokens == 77
    assert model.dtype == "float32"
    assert not model.is_inpainting
    assert model.parameter_bytes > 300_000


def test_inpainting_unet_is_told(tmp_path: Path) -> None:
    inpainting = DiffusionModel.load(random_diffusion_folder(tmp_path, in_channels=9))
    assert inpainting.is_inpainting
    assert inpainting.latent_channels == 4


def test_predict_takes_rows_of_their_own_timesteps(model: DiffusionModel) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([999.0, 500.5, 1.0])
    context = model.encode_prompts(["a", "b", "c"])
    together = model.predict(latents, timesteps, context)
    for i in range(3):
        alone = model.predict(latents[i : i + 1], timesteps[i : i + 1], context[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


def test_bfloat16_is_near_float32(folder: Path, model: DiffusionModel) -> None:
    coarse = DiffusionModel.load(folder, ModelOptions(dtype="bfloat16"))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs = latents, torch.tensor([500.0]), model.encode_prompts(["a red circle"])
    expected, got = model.predict(*inputs), coarse.predict(*inputs)
    assert got.dtype == torch.float32
    assert 0 < (got - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("has_it", [True, False])
def test_auto_is_what_the_device_is_fast_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, has_it: bool
) -> None:
    monkeypatch.setattr(diffusion_model, "has_bfloat16", lambda device: has_it)
    chosen = DiffusionModel.load(folder, ModelOptions(dtype="auto"))
    assert chosen.dtype == ("bfloat16" if has_it else "float32")
    chosen.predict(torch.zeros(1, 4, 8, 8), torch.tensor([1.0]), chosen.encode_prompts([""]))


def test_weight_hash_changes_with_weights_and_options(folder: Path) -> None:
    before = DiffusionModel.load(folder).weight_hash
    assert DiffusionModel.load(folder, ModelOptions(tile_size=64)).weight_hash == before
    tensors = load_file(folder / _UNET)
    tensors["conv_in.bias"] += 1
    save_file(tensors, folder / _UNET)
    changed = DiffusionModel.load(folder).weight_hash
    _edit(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert len({before, changed, DiffusionModel.load(folder).weight_hash}) == 3


def test_weights_of_a_variant_are_found(folder: Path) -> None:
    expected = DiffusionModel.load(folder).encode_prompts(["a"])
    (folder / _UNET).rename(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    (folder / "text_encoder" / "model.safetensors").rename(
        folder / "text_encoder" / "model.fp16.safetensors"
    )
    assert torch.equal(DiffusionModel.load(folder).encode_prompts(["a"]), expected)


def _drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / _UNET)
    del tensors["conv_in.bias"]
    save_file(tensors, folder / _UNET)


def _add_tensor(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"extra.weight": torch.zeros(1)}, path)


def _misshape_tensor(folder: Path) -> None:
    tensors = load_file(folder / _UNET)
    save_file(tensors | {"conv_in.bias": torch.zeros(3)}, folder / _UNET)


def _drop_text_tensor(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("position_embedding.weight"))
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})


def _pickle(folder: Path) -> None:
    (folder / _UNET).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")


def _truncate(folder: Path) -> None:
    content = (folder / _UNET).read_bytes()
    (folder / _UNET).write_bytes(content[: len(content) // 2])


def _scheduler(**options: Any) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / "scheduler" / "scheduler_config.json", **options)


def _index(**parts: Any) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / "model_index.json", **parts)


def _unet(**options: Any) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / "unet" / "config.json", **options)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_drop_tensor, "unet: missing: conv_in.bias"),
        (_add_tensor, "vae: not used: extra.weight"),
        (_misshape_tensor, "conv_in.bias"),
        (_drop_text_tensor, "text_encoder: missing: .*position_embedding.weight"),
        (_pickle, "diffusion_pytorch_model.bin: is pickled"),
        (_truncate, "unet: "),
        (_scheduler(novel_option=3), "scheduler_config.json: novel_option: an unknown option"),
        (_scheduler(prediction_type="sample"), "prediction_type"),
        (_scheduler(use_beta_sigmas=True), "use_beta_sigmas"),
        (_scheduler(solver_order=3), "solver_order"),
        (_scheduler(beta_schedule="sigmoid"), "beta_schedule"),
        (_scheduler(trained_betas=[0.1, 0.2]), "trained_betas"),
        (_scheduler(_class_name="FlowMatchEulerDiscreteScheduler"), "flow matching"),
        (_index(_class_name="StableDiffusionXLPipeline"), "StableDiffusionXLPipeline"),
        (_index(vae=["diffusers", "AutoencoderTiny"]), "vae: AutoencoderTiny"),
        (_index(image_encoder=["transformers", "CLIPVisionModel"]), "image_encoder"),
        (_index(text_encoder=["transformers", "T5EncoderModel"]), "T5EncoderModel"),
        (_unet(time_cond_proj_dim=256), "time_cond_proj_dim"),
        (_unet(addition_embed_type="text_time"), "addition_embed_type"),
        (_unet(in_channels=5), "in_channels: 5"),
        (_unet(out_channels=8), "out_channels: 8"),
        (lambda folder: (folder / "model_index.json").unlink(), "model_index.json"),
        (lambda folder: (folder / "vae" / "config.json").write_text("["), "vae/config.json"),
    ],
)
def test_load_refuses_by_name(folder: Path, spoil: Callable[[Path], None], told: str) -> None:
    spoil(folder)
    with pytest.raises(ModelFolderError, match=told):
        DiffusionModel.load(folder)


def test_load_names_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="nowhere: no such folder"):
        DiffusionModel.load(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "A Red  circle", "déjà vu — 星", "it's\n<|endoftext|> x"])
def test_tokens_are_those_of_the_tokenizer(folder: Path, model: DiffusionModel, text: str) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert model.count_tokens(text) == len(tokenizer(text).input_ids)


def test_tokenizer_of_vocabulary_and_merges_alone_is_read(
    folder: Path, model: DiffusionModel
) -> None:
    """As the folders of Stable Diffusion 1 and 2 have it."""
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    words = json.loads(tokenizer.read_text())["model"]["vocab"]
    tokenizer.unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(words))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    older = DiffusionModel.load(folder)
    texts = ["a red circle", ""]
    assert torch.equal(older.encode_prompts(texts), model.encode_prompts(texts))


def test_prompt_longer_than_the_model_reads_is_refused(model: DiffusionModel) -> None:
    assert model.count_tokens("x" * 75) == 77
    assert model.encode_prompts(["x" * 75]).shape == (1, 77, 16)
    with pytest.raises(ValueError, match="78 tokens"):
        model.encode_prompts(["x" * 76])

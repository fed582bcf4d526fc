"""LoRA files of each format, merged as diffusers fuses them; what cannot be merged is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel

from services.image.model.diffusion_model import DiffusionModel, ModelOptions
from services.image.model.lora import LoraOptions, merge_lora
from services.runtime.model_files import ModelFolderError
from tests.fakes.random_diffusion import random_diffusion_folder

Tensors = dict[str, torch.Tensor]

# A linear layer, one in a feed-forward, a convolution of 3x3 pixels and one of 1x1.
_UNET_LAYERS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.attentions.0.proj_in",
)
_TEXT_LAYERS = (
    "encoder.layers.0.self_attn.q_proj",
    "encoder.layers.0.self_attn.out_proj",  # without one, diffusers takes kohya's for another
    "encoder.layers.1.mlp.fc1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_diffusion_folder(tmp_path_factory.mktemp("model"))


def _modules(folder: Path) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    return (
        UNet2DConditionModel.from_pretrained(folder / "unet"),
        CLIPTextModel.from_pretrained(folder / "text_encoder"),
    )


def _pair(weight: torch.Tensor, rank: int, generator: torch.Generator) -> tuple[Any, Any]:
    """A and B for a layer."""
    kernel = weight.shape[2:]
    down = torch.randn(rank, weight.shape[1], *kernel, generator=generator)
    up = torch.randn(weight.shape[0], rank, *(1 for _ in kernel), generator=generator)
    return 0.2 * down, 0.2 * up


def _pairs(folder: Path, *, rank: int = 3) -> dict[str, tuple[Any, Any]]:
    """By part and layer, ranks of different sizes."""
    generator = torch.Generator().manual_seed(0)
    pairs = {}
    for part, layers, module in zip(
        ("unet", "text_encoder"), (_UNET_LAYERS, _TEXT_LAYERS), _modules(folder), strict=True
    ):
        weights = module.state_dict()
        for i, layer in enumerate(layers):
            pairs[f"{part}.{layer}"] = _pair(weights[f"{layer}.weight"], rank + i % 2, generator)
    return pairs


def _peft_names(pairs: dict[str, tuple[Any, Any]]) -> Tensors:
    tensors = {}
    for layer, (down, up) in pairs.items():
        tensors[f"{layer}.lora_A.weight"] = down
        tensors[f"{layer}.lora_B.weight"] = up
    return tensors


def _diffusers_names(pairs: dict[str, tuple[Any, Any]]) -> Tensors:
    tensors = {}
    for layer, (down, up) in pairs.items():
        kind = "lora" if layer.startswith("unet") else "lora_linear_layer"
        tensors[f"{layer}.{kind}.down.weight"] = down
        tensors[f"{layer}.{kind}.up.weight"] = up
    return tensors


def _kohya_names(pairs: dict[str, tuple[Any, Any]], alpha: float | None) -> Tensors:
    tensors = {}
    for layer, (down, up) in pairs.items():
        name = layer.replace("text_encoder.", "te.text_model.").replace(".", "_")
        tensors[f"lora_{name}.lora_down.weight"] = down
        tensors[f"lora_{name}.lora_up.weight"] = up
        if alpha is not None:
            tensors[f"lora_{name}.alpha"] = torch.tensor(alpha)
    return tensors


def _assert_merged_as_diffusers_fuses(folder: Path, file: Path, scale: float) -> None:
    unet, text_encoder = _modules(folder)
    merge_lora(LoraOptions("style", file, scale), unet, text_encoder)
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    pipeline.fuse_lora(lora_scale=scale)
    pipeline.unload_lora_weights()
    plain = [module.state_dict() for module in _modules(folder)]
    changed = 0
    for ours, theirs, before in zip(
        (unet, text_encoder), (pipeline.unet, pipeline.text_encoder), plain, strict=True
    ):
        expected = theirs.state_dict()
        assert ours.state_dict().keys() == expected.keys()
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
            changed += not torch.equal(tensor, before[name])
    assert changed == len(_UNET_LAYERS) + len(_TEXT_LAYERS)


@pytest.mark.parametrize("scale", [1.0, -0.5])
@pytest.mark.parametrize("names", [_peft_names, _diffusers_names], ids=["peft", "diffusers"])
def test_file_of_diffusers_is_merged_as_diffusers_fuses(
    folder: Path, tmp_path: Path, names: Callable[..., Tensors], scale: float
) -> None:
    file = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(names(_pairs(folder)), file)
    _assert_merged_as_diffusers_fuses(folder, file, scale)


def test_file_with_settings_of_peft_is_merged_as_diffusers_fuses(
    folder: Path, tmp_path: Path
) -> None:
    pairs = _pairs(folder)
    settings: dict[str, Any] = {}
    for part, layers in (("unet", _UNET_LAYERS), ("text_encoder", _TEXT_LAYERS)):
        ranks = {layer: pairs[f"{part}.{layer}"][0].shape[0] for layer in layers}
        settings |= {
            f"{part}.r": 3,
            f"{part}.lora_alpha": 6,
            f"{part}.rank_pattern": ranks,
            f"{part}.alpha_pattern": {layers[0]: 1.5},
            f"{part}.target_modules": list(layers),
        }
    file = tmp_path / "pytorch_lora_weights.safetensors"
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}
    save_file(_peft_names(pairs), file, metadata=metadata)
    _assert_merged_as_diffusers_fuses(folder, file, 0.8)


def test_file_of_kohya_is_merged_with_its_alpha_over_its_rank(folder: Path, tmp_path: Path) -> None:
    pairs = {name: pair for name, pair in _pairs(folder, rank=4).items() if pair[0].shape[0] == 4}
    file = tmp_path / "style.safetensors"
    save_file(_kohya_names(pairs, alpha=2.0), file)
    merged, plain = _modules(folder), _modules(folder)
    merge_lora(LoraOptions("style", file, 0.5), *merged)
    parts = dict(zip(("unet", "text_encoder"), zip(merged, plain, strict=True), strict=True))
    for layer, (down, up) in pairs.items():
        part, _, name = layer.partition(".")
        after, before = (module.get_submodule(name).weight for module in parts[part])
        change = 0.5 * (2.0 / 4) * (up.flatten(1) @ down.flatten(1)).view(before.shape)
        torch.testing.assert_close(after, before + change, rtol=0, atol=1e-6)


def test_file_of_kohya_without_alpha_is_merged_as_diffusers_fuses(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "style.safetensors"
    save_file(_kohya_names(_pairs(folder), alpha=None), file)
    _assert_merged_as_diffusers_fuses(folder, file, 0.7)


def test_folder_of_peft_is_merged_by_its_settings(folder: Path, tmp_path: Path) -> None:
    layer = _UNET_LAYERS[0]
    down, up = _pairs(folder)[f"unet.{layer}"]
    tensors = _peft_names({f"base_model.model.{layer}": (down, up)})
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"r": 3, "lora_alpha": 6, "use_rslora": True})
    )
    (merged, text_encoder), (plain, _) = _modules(folder), _modules(folder)
    merge_lora(LoraOptions("style", tmp_path), merged, text_encoder)
    expected = plain.get_submodule(layer).weight + 6 / 3**0.5 * up @ down
    torch.testing.assert_close(merged.get_submodule(layer).weight, expected, rtol=0, atol=1e-6)


def test_several_loras_change_the_pictures_and_the_hash(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    save_file(_peft_names(_pairs(folder)), file)
    hashes, contexts = set(), []
    for scales in ((), (1.0,), (0.5,), (0.5, 0.5)):
        loras = tuple(LoraOptions(f"style{i}", file, scale) for i, scale in enumerate(scales))
        model = DiffusionModel.load(folder, ModelOptions(loras=loras))
        assert model.loras == loras
        hashes.add(model.weight_hash)
        contexts.append(model.encode_prompts(["a circle"]))
    assert len(hashes) == 4
    torch.testing.assert_close(contexts[3], contexts[1], rtol=0, atol=1e-5)
    assert not torch.equal(contexts[1], contexts[0])


def _rename(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): each for name, each in tensors.items()}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_rename("attn1", "attn7"), "attn7.to_q: the model has no such layer"),
        (_rename("unet.", "transformer."), "belongs to no part of the model"),
        (_rename(".lora_A.", ".lora_C."), "lora"),
        (
            lambda tensors: tensors | {f"unet.{_UNET_LAYERS[0]}.dora_scale": torch.ones(8)},
            "DoRA is not supported",
        ),
        (
            lambda tensors: tensors | {f"unet.{_UNET_LAYERS[0]}.lora_A.weight": torch.ones(3, 5)},
            "is of shape",
        ),
        (
            lambda tensors: tensors | {f"unet.{_UNET_LAYERS[0]}.lora_B.bias": torch.ones(8)},
            "not used: .*lora_B.bias",
        ),
        (
            lambda tensors: tensors | {f"unet.{_UNET_LAYERS[0]}.lora_A.weight": torch.ones(2, 8)},
            "style.safetensors: mat1 and mat2",
        ),
        (
            lambda tensors: {
                "lora_unet_conv_in.lora_down.weight": torch.ones(()),
                "lora_unet_conv_in.lora_up.weight": torch.ones(8, 2, 1, 1),
                "lora_unet_conv_in.alpha": torch.ones(()),
            },
            "style.safetensors: .*out of range",
        ),
        (lambda tensors: {}, "style.safetensors: holds no tensors"),
    ],
)
def test_what_cannot_be_merged_is_named(
    folder: Path, tmp_path: Path, spoil: Callable[[Tensors], Tensors], told: str
) -> None:
    file = tmp_path / "style.safetensors"
    save_file(spoil(_peft_names(_pairs(folder))), file)
    with pytest.raises(ModelFolderError, match=told):
        DiffusionModel.load(folder, ModelOptions(loras=(LoraOptions("style", file),)))


def test_pickled_or_missing_file_is_refused(folder: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "style.bin"
    pickled.write_bytes(b"")
    for path, told in ((pickled, "style.bin: expected a safe"), (tmp_path, "expected one safe")):
        with pytest.raises(ModelFolderError, match=told):
            merge_lora(LoraOptions("style", path), *_modules(folder))

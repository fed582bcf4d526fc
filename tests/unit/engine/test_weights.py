"""Loading is strict: every tensor is there, fits, and is used; anything else is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.engine.errors import CheckpointError, ConfigError
from services.engine.models.gpt import GPTDecoder
from services.engine.models.llama import LlamaDecoder
from services.engine.weights import load_model, resolve_model
from tests.fakes.random_models import random_model, save_random_model

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("llama"), "llama-gqa")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("gpt2"), "gpt2")


def edited(source: Path, target: Path, edit: Callable[[Tensors], object]) -> Path:
    """A copy of a checkpoint whose tensors went through `edit`."""
    if source != target:
        shutil.copytree(source, target, dirs_exist_ok=True)
    tensors = load_file(target / "model.safetensors")
    edit(tensors)
    save_file(tensors, target / "model.safetensors")
    return target


def weights_of(folder: Path, dtype: str = "auto") -> Tensors:
    decoder = load_model(folder, dtype).decoder  # type: ignore[arg-type]
    assert isinstance(decoder, LlamaDecoder | GPTDecoder)
    return dict(decoder.named_parameters())


def test_missing_tensor_is_named(llama: Path, tmp_path: Path) -> None:
    name = "model.layers.1.self_attn.k_proj.weight"
    edited(llama, tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"missing tensor: {name}"):
        load_model(tmp_path)


def test_unused_tensor_is_named(llama: Path, tmp_path: Path) -> None:
    name = "model.layers.1.self_attn.q_proj.bias"
    edited(llama, tmp_path, lambda tensors: tensors.update({name: torch.zeros(64)}))
    with pytest.raises(CheckpointError, match=f"unused tensor: {name}"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "name", ["model.layers.0.mlp.down_proj.weight", "model.layers.2.self_attn.v_proj.weight"]
)
def test_misshapen_tensor_is_named_with_both_shapes(llama: Path, tmp_path: Path, name: str) -> None:
    edited(llama, tmp_path, lambda tensors: tensors.update({name: torch.zeros(3, 5)}))
    with pytest.raises(CheckpointError, match=rf"{name}: expected shape \(.*got \(3, 5\)"):
        load_model(tmp_path)


def test_tensor_of_integers_is_named(llama: Path, tmp_path: Path) -> None:
    wrong = {"model.norm.weight": torch.zeros(64, dtype=torch.int8)}
    edited(llama, tmp_path, lambda tensors: tensors.update(wrong))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight: expected .* got I8"):
        load_model(tmp_path)


def test_derived_buffers_of_old_checkpoints_are_skipped(
    llama: Path, gpt2: Path, tmp_path: Path
) -> None:
    inv_freq = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}
    load_model(edited(llama, tmp_path / "llama", lambda tensors: tensors.update(inv_freq)))
    masks = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
    }
    load_model(edited(gpt2, tmp_path / "gpt2", lambda tensors: tensors.update(masks)))


def test_buffer_of_another_layer_of_that_name_is_not_skipped(llama: Path, tmp_path: Path) -> None:
    odd = {"model.layers.0.rotary_emb.inv_freq": torch.zeros(8)}
    edited(llama, tmp_path, lambda tensors: tensors.update(odd))
    with pytest.raises(CheckpointError, match="unused tensor"):
        load_model(tmp_path)


def test_gpt2_without_the_transformer_prefix_loads_the_same(gpt2: Path, tmp_path: Path) -> None:
    def strip(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)

    bare = weights_of(edited(gpt2, tmp_path, strip))
    for name, tensor in weights_of(gpt2).items():
        assert torch.equal(bare[name], tensor), name


def test_tied_head_multiplies_by_the_embedding(gpt2: Path) -> None:
    """Also where the head keeps a packed copy of it."""
    decoder = load_model(gpt2).decoder
    assert isinstance(decoder, GPTDecoder)
    hidden = torch.randn(3, decoder.config.hidden_size)
    expected = hidden @ decoder.embedding.T
    torch.testing.assert_close(decoder.compute_logits(hidden), expected, atol=1e-5, rtol=1e-5)


def test_tied_head_that_is_stored_twice_counts_once(gpt2: Path, tmp_path: Path) -> None:
    def duplicate(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()

    twice = load_model(edited(gpt2, tmp_path, duplicate))
    assert twice.num_parameters == load_model(gpt2).num_parameters


def test_tied_head_that_differs_from_the_embedding_is_refused(gpt2: Path, tmp_path: Path) -> None:
    def differ(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1

    with pytest.raises(CheckpointError, match=r"lm_head\.weight: tie_word_embeddings"):
        load_model(edited(gpt2, tmp_path, differ))


@pytest.mark.parametrize(
    "name", ["llama-gqa", "llama-tied", "gpt2", "mixtral", "qwen2-moe", "qwen3-moe-some-layers"]
)
def test_num_parameters_equals_transformers(name: str, tmp_path: Path) -> None:
    theirs = random_model(name)
    theirs.save_pretrained(tmp_path)
    assert load_model(tmp_path).num_parameters == theirs.num_parameters()


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe", "qwen3-moe"])
def test_experts_of_a_layer_in_one_tensor_load_as_one_by_one(name: str, tmp_path: Path) -> None:
    """transformers holds them so, and writes them so when told."""
    theirs = random_model(name)
    theirs.save_pretrained(tmp_path / "apart")
    theirs.save_pretrained(tmp_path / "stacked", save_original_format=False)
    written = load_file(tmp_path / "stacked" / "model.safetensors")
    assert "model.layers.0.mlp.experts.gate_up_proj" in written
    apart, stacked = load_model(tmp_path / "apart"), load_model(tmp_path / "stacked")
    assert stacked.num_parameters == apart.num_parameters
    x = torch.randn(20, 64)
    for one, other in zip(apart.decoder.layers, stacked.decoder.layers, strict=True):  # type: ignore[attr-defined]
        assert torch.equal(one.mlp(x), other.mlp(x))


@pytest.mark.parametrize("layout", ["apart", "stacked"])
def test_missing_expert_is_named(layout: str, tmp_path: Path) -> None:
    random_model("mixtral").save_pretrained(tmp_path, save_original_format=layout == "apart")
    names = {
        "apart": "model.layers.1.block_sparse_moe.experts.4.w3.weight",
        "stacked": "model.layers.1.mlp.experts.down_proj",
    }
    edited(tmp_path, tmp_path, lambda tensors: tensors.pop(names[layout]))
    with pytest.raises(CheckpointError, match=f"missing tensor: {names[layout]}"):
        load_model(tmp_path)


def test_misshapen_stack_of_experts_is_named_with_both_shapes(tmp_path: Path) -> None:
    random_model("qwen3-moe").save_pretrained(tmp_path, save_original_format=False)
    name = "model.layers.0.mlp.experts.down_proj"
    edited(tmp_path, tmp_path, lambda tensors: tensors.update({name: torch.zeros(5, 64, 40)}))
    with pytest.raises(CheckpointError, match=rf"{name}: expected shape \(6, .*got \(5, 64, 40\)"):
        load_model(tmp_path)


def test_shards_load_as_one_file_does(llama: Path, tmp_path: Path) -> None:
    random_model("llama-gqa").save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    whole, sharded = load_model(llama), load_model(tmp_path)
    assert sharded.weight_hash == whole.weight_hash
    pieces = weights_of(tmp_path)
    for name, tensor in weights_of(llama).items():
        assert torch.equal(pieces[name], tensor), name


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda index: index.pop("model.norm.weight"), "model.norm.weight: .*in the file alone"),
        (
            lambda index: index.update({"extra": index["model.norm.weight"]}),
            "extra: .*in the index but not in the file",
        ),
        (
            lambda index: index.update({"model.norm.weight": "../model.safetensors"}),
            "is not a file name",
        ),
        (lambda index: index.update({"extra": "model-9.safetensors"}), "model-9.* missing"),
        (lambda index: index.clear(), "weight_map"),
    ],
)
def test_index_that_disagrees_with_its_shards_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, str]], object], message: str
) -> None:
    random_model("llama-gqa").save_pretrained(tmp_path, max_shard_size="100KB")
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    damage(index["weight_map"])
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 200, 100_000])
def test_truncated_file_is_refused(llama: Path, tmp_path: Path, keep: int) -> None:
    shutil.copytree(llama, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or not safetensors"):
        load_model(tmp_path)


def test_folder_with_pickled_weights_alone_is_refused(llama: Path, tmp_path: Path) -> None:
    shutil.copy(llama / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*convert them to safetensors"):
        load_model(tmp_path)


def test_folder_without_weights_is_refused(llama: Path, tmp_path: Path) -> None:
    shutil.copy(llama / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        load_model(tmp_path)


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: missing"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_config_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(tmp_path)


def test_unknown_architecture_is_refused_by_key(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "architectures": ["OPTForCausalLM"]})
    )
    with pytest.raises(ConfigError, match=r"architectures: OPTForCausalLM is not one of"):
        load_model(tmp_path)


def test_unknown_device_is_refused_by_name(llama: Path) -> None:
    with pytest.raises(ConfigError, match="device"):
        load_model(llama, device="abacus")


@pytest.mark.parametrize(
    ("stored", "asked", "expected"),
    [
        (torch.bfloat16, "auto", torch.bfloat16),
        (torch.float32, "auto", torch.float32),
        (torch.float16, "auto", torch.float32),  # bfloat16 would lose bits
        (torch.float32, "bfloat16", torch.bfloat16),
        (torch.bfloat16, "float32", torch.float32),
    ],
)
def test_dtype_is_the_one_asked_for_or_one_that_keeps_every_bit(
    llama: Path, tmp_path: Path, stored: torch.dtype, asked: str, expected: torch.dtype
) -> None:
    def convert(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(stored)

    edited(llama, tmp_path, convert)
    original = weights_of(llama)
    for name, tensor in weights_of(tmp_path, asked).items():
        assert tensor.dtype == expected
        assert torch.equal(tensor, original[name].to(stored).to(expected)), name


def test_weight_hash_changes_with_any_weight(llama: Path, tmp_path: Path) -> None:
    before = load_model(llama).weight_hash
    assert load_model(llama, "bfloat16").weight_hash == before  # of what is stored
    edited(llama, tmp_path, lambda tensors: tensors["model.norm.weight"][3:4].add_(1e-3))
    assert load_model(tmp_path).weight_hash != before


def test_model_outlives_its_files(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "model")
    decoder = load_model(folder).decoder
    weights = folder / "model.safetensors"
    weights.write_bytes(b"\0" * weights.stat().st_size)  # in place: a map would see it
    assert isinstance(decoder, LlamaDecoder)
    for name, tensor in weights_of(llama).items():
        assert torch.equal(decoder.get_parameter(name), tensor), name


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", ""])
def test_name_that_looks_like_a_path_never_goes_to_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.engine.weights._download", pytest.fail)
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve_model(name)


def test_mistyped_folder_beside_others_never_goes_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.engine.weights._download", pytest.fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(CheckpointError, match="models/typo: no such folder"):
        resolve_model("models/typo")


def test_hub_name_without_network_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="someone/model: neither a folder here nor"):
        resolve_model("someone/model")

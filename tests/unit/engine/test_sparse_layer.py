"""Decoders whose sparse layers are computed elsewhere: the same tokens; and what if they fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.engine.config import EngineConfig
from services.engine.engine import LLMEngine
from services.engine.errors import CheckpointError, ConfigError, ExpertsUnavailableError
from services.engine.expert_weights import load_experts, load_gates, load_shared_experts
from services.engine.layers.moe import MixtureOfExperts, combine, expert_ffn, group_by_expert
from services.engine.request import FinishReason, Request, SamplingParams
from services.engine.weights import load_model
from tests.fakes.random_models import VOCAB_SIZE, save_random_model
from tests.unit.engine.toy import ToyRunner, continuation, run_to_end, toy_engine

SPARSE_MODELS = ("mixtral", "qwen2-moe", "qwen3-moe", "qwen3-moe-some-layers")


class Shards:
    """A `SparseLayer` over parts that were loaded apart; each expert on one of the shards.

    `broken`, where set, is raised in place of a result.
    """

    def __init__(self, folder: Path, num_shards: int, dtype: str = "auto") -> None:
        self.gates = load_gates(folder, dtype)  # type: ignore[arg-type]
        self.shared = load_shared_experts(folder, dtype)  # type: ignore[arg-type]
        pairs = [(i, e) for i, gate in self.gates.items() for e in range(gate.config.num_experts)]
        self.shards = [
            load_experts(folder, pairs[shard::num_shards], dtype)  # type: ignore[arg-type]
            for shard in range(num_shards)
        ]
        self.num_calls = 0
        self.broken: Exception | None = None

    def __call__(self, layer: int, hidden: Tensor) -> Tensor:
        self.num_calls += 1
        if self.broken is not None:
            raise self.broken
        weights, expert_ids = self.gates[layer](hidden)
        groups = group_by_expert(expert_ids)
        rows = hidden.index_select(0, groups.token_ids).split(groups.counts)
        outputs = []
        for expert, group in zip(groups.expert_ids, rows, strict=True):
            [experts] = [s[layer] for s in self.shards if expert in s.get(layer, {})]
            outputs.append(expert_ffn(experts, group, [expert], [len(group)]))
        out = combine(torch.cat(outputs), groups.positions, weights)
        return out + self.shared[layer](hidden) if layer in self.shared else out


@pytest.fixture(scope="module", params=SPARSE_MODELS)
def sparse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("model"), "mixtral")


def engine_of(folder: Path, sparse_layer: Shards | None = None, dtype: str = "auto") -> LLMEngine:
    config = EngineConfig.model_validate(
        {"dtype": dtype, "num_threads": 1, "kv_cache_bytes": 8 << 20, "max_num_seqs": 8}
    )
    model = load_model(folder, config.dtype, sparse_layer=sparse_layer)
    return LLMEngine(model, None, config)


def requests(count: int = 12, max_tokens: int = 24) -> list[Request]:
    rng = torch.Generator().manual_seed(0)
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    return [
        Request(str(i), torch.randint(VOCAB_SIZE, (3 + i,), generator=rng).tolist(), params)
        for i in range(count)
    ]


def generate(engine: LLMEngine) -> list[list[int]]:
    for request in requests():
        engine.add_request(request)
    outputs = run_to_end(engine)
    assert all(output.error is None for output in outputs.values())
    return [outputs[str(i)].outputs[0].token_ids for i in range(len(outputs))]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_shards", [2, 4])
def test_experts_elsewhere_give_the_same_tokens(sparse: Path, num_shards: int, dtype: str) -> None:
    shards = Shards(sparse, num_shards, dtype)
    remote = engine_of(sparse, shards, dtype)
    local = engine_of(sparse, dtype=dtype)
    assert generate(remote) == generate(local)
    assert shards.num_calls % len(shards.gates) == 0
    assert shards.num_calls > len(shards.gates) * 24


def test_a_decoder_without_experts_holds_none(sparse: Path) -> None:
    whole = load_model(sparse)
    rest = load_model(sparse, sparse_layer=Shards(sparse, 1))
    assert whole.config.moe is not None
    sparse_layers = [
        sum(isinstance(module, MixtureOfExperts) for module in model.decoder.modules())
        for model in (whole, rest)
    ]
    assert sparse_layers == [len(whole.config.moe.layers), 0]
    assert rest.num_parameters == whole.num_parameters  # the model's, wherever they are
    assert rest.weight_hash == whole.weight_hash  # of the folder: both sides can tell it is one


def test_a_decoder_without_experts_needs_none_in_its_folder(sparse: Path, tmp_path: Path) -> None:
    shards = Shards(sparse, 2)
    folder = edited(sparse, tmp_path, drop=("experts", "gate.weight", "shared_expert"))
    assert generate(engine_of(folder, shards)) == generate(engine_of(sparse))
    with pytest.raises(CheckpointError, match="missing tensor"):
        load_model(folder)


def test_a_decoder_without_experts_is_as_strict_with_all_else(
    mixtral: Path, tmp_path: Path
) -> None:
    shards = Shards(mixtral, 1)
    missing = "model.layers.1.self_attn.k_proj.weight"
    with pytest.raises(CheckpointError, match=f"missing tensor: {missing}"):
        load_model(edited(mixtral, tmp_path / "a", drop=(missing,)), sparse_layer=shards)
    for odd in ("experts.5.w1.weight", "experts.0.w1.bias", "norm.weight"):
        name = f"model.layers.1.block_sparse_moe.{odd}"
        folder = edited(mixtral, tmp_path / odd, add={name: torch.zeros(3)})
        with pytest.raises(CheckpointError, match=f"unused tensor: {name}"):
            load_model(folder, sparse_layer=shards)


def edited(
    source: Path, target: Path, drop: tuple[str, ...] = (), add: dict[str, Tensor] | None = None
) -> Path:
    """A copy of a checkpoint without the tensors that have one of `drop` in their name."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    tensors = {
        name: tensor
        for name, tensor in load_file(source / "model.safetensors").items()
        if not any(part in name for part in drop)
    }
    save_file(tensors | (add or {}), target / "model.safetensors")
    return target


def test_a_dense_model_has_no_sparse_layers_to_delegate(mixtral: Path, tmp_path: Path) -> None:
    dense = save_random_model(tmp_path, "llama-gqa")
    with pytest.raises(ConfigError, match="sparse_layer: this llama model has no sparse layers"):
        load_model(dense, sparse_layer=Shards(mixtral, 1))
    with pytest.raises(ConfigError, match="without sparse layers"):
        load_gates(dense)


@pytest.mark.parametrize("pair", [(3, 0), (-1, 0), (0, 5), (0, -1)])
def test_pair_that_the_model_does_not_have_is_refused(mixtral: Path, pair: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="pairs: the model has no expert"):
        load_experts(mixtral, [(0, 0), pair])


# Unavailable ---------------------------------------------------------------------------------


def test_unavailable_experts_end_all_requests_of_the_step_and_the_engine_goes_on(
    mixtral: Path,
) -> None:
    shards = Shards(mixtral, 2)
    engine = engine_of(mixtral, shards)
    expected = generate(engine)
    for request in requests(8):
        engine.add_request(request)
    for _ in range(3):
        engine.step()
    shards.broken, before = ExpertsUnavailableError("no shard has expert 3"), shards.num_calls
    outputs = engine.step()
    assert shards.num_calls == before + 1  # nobody is tried again alone
    assert [output.outputs[0].finish_reason for output in outputs] == [FinishReason.ERROR] * 8
    assert all(isinstance(output.error, ExpertsUnavailableError) for output in outputs)
    assert not engine.has_unfinished()
    load = engine.load()
    assert load.num_free_blocks == load.num_blocks
    shards.broken = None
    assert generate(engine) == expected


def test_unavailable_experts_never_stop_the_engine(mixtral: Path) -> None:
    shards = Shards(mixtral, 2)
    engine = engine_of(mixtral, shards)
    shards.broken = ExpertsUnavailableError("all shards are gone")
    for request in requests(40):
        engine.add_request(request)
    outputs = run_to_end(engine)
    assert len(outputs) == 40
    assert all(isinstance(output.error, ExpertsUnavailableError) for output in outputs.values())
    shards.broken = None
    assert len(generate(engine)) == 12


def test_experts_lost_while_a_fault_is_isolated_end_whoever_is_left() -> None:
    """The batch fails by one request's fault; run alone, the second meets shards that are gone."""
    engine = toy_engine(tokenizer=False)
    runner = engine.runner
    assert isinstance(runner, ToyRunner)
    params = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    for name in "abcd":
        engine.add_request(Request(name, [ord(name) - 90], params))
    engine.step()
    steps_before = runner.num_steps
    runner.poisoned.add("c")

    def lose_experts() -> None:
        if runner.num_steps == steps_before + 2:  # the batch, "a" alone, and now "b"
            runner.before_step = lambda: None
            raise ExpertsUnavailableError("gone")

    runner.before_step = lose_experts
    outputs = run_to_end(engine)
    assert outputs["a"].error is None
    assert outputs["a"].outputs[0].token_ids == continuation([ord("a") - 90], 8)[1:]
    for name in "bcd":
        assert isinstance(outputs[name].error, ExpertsUnavailableError)


def test_an_engine_is_not_built_while_experts_are_unavailable(mixtral: Path) -> None:
    shards = Shards(mixtral, 1)
    shards.broken = ExpertsUnavailableError("starting")
    with pytest.raises(ExpertsUnavailableError):
        engine_of(mixtral, shards)

"""The sparse layer against a dense sum over all experts, in one piece and in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import Qwen2MoeConfig
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock

from services.engine.config import GatingConfig
from services.engine.cpu_kernels import rows as row_kernels
from services.engine.errors import EngineError
from services.engine.layers import moe
from services.engine.layers.gating import Gate
from services.engine.layers.linear import Linear
from services.engine.layers.mlp import GatedMLP
from services.engine.layers.moe import (
    DelegatedMoE,
    MixtureOfExperts,
    SharedExpert,
    combine,
    expert_ffn,
    group_by_expert,
)

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def _same_random_numbers_every_time() -> None:
    torch.manual_seed(0)


def random_expert(hidden: int, inner: int) -> GatedMLP:
    gate_up = torch.randn(2 * inner, hidden) * hidden**-0.5
    down = torch.randn(hidden, inner) * inner**-0.5
    return GatedMLP(Linear(gate_up), Linear(down), "silu")


def random_mixture(hidden: int, inner: int, num_experts: int, k: int) -> MixtureOfExperts:
    router = torch.randn(num_experts, hidden)
    gating = GatingConfig(num_experts=num_experts, num_experts_per_token=k)
    experts = [random_expert(hidden, inner) for _ in range(num_experts)]
    return MixtureOfExperts(Gate(Linear(router), gating), experts)


@settings(deadline=None)
@given(
    num_tokens=st.integers(1, 40),
    num_experts=st.integers(1, 8),
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)
def test_mixture_equals_a_dense_sum_over_all_experts(
    num_tokens: int, num_experts: int, data: st.DataObject, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = random_mixture(8, 6, num_experts, data.draw(st.integers(1, num_experts)))
    x, residual = torch.randn(num_tokens, 8), torch.randn(num_tokens, 8)
    weights, expert_ids = layer.gate(x)
    dense = torch.zeros(num_tokens, num_experts).scatter(1, expert_ids, weights)
    expected = torch.zeros_like(x)
    for index, expert in enumerate(layer.experts):
        expected += dense[:, [index]] * expert(x)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer(x, residual), expected + residual, atol=1e-5, rtol=1e-4)


def test_a_tokens_result_does_not_depend_on_the_tokens_around_it() -> None:
    layer = random_mixture(64, 96, 8, 2)
    if not layer.gate.router.is_packed:
        pytest.skip("torch has no packed product here")
    x = torch.randn(150, 64)
    whole = layer(x)
    for start, stop in ((0, 1), (7, 9), (20, 53), (149, 150), (1, 150)):
        assert torch.equal(layer(x[start:stop]), whole[start:stop])
    order = torch.randperm(150)
    assert torch.equal(layer(x[order]), whole[order])


@settings(deadline=None)
@given(num_tokens=st.integers(1, 30), k=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("group", [group_by_expert, moe._group], ids=["cpu", "gpu"])
def test_grouping_brings_each_token_to_each_of_its_experts(
    group: Callable[[Tensor], moe.Groups], num_tokens: int, k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    expert_ids = torch.rand(num_tokens, 9, generator=generator).topk(k).indices
    groups = group(expert_ids)
    assert groups.expert_ids == sorted(set(expert_ids.flatten().tolist()))
    rows = [
        (expert, token)
        for expert in groups.expert_ids
        for token, chosen in enumerate(expert_ids.tolist())
        if expert in chosen
    ]
    per_row = [e for e, n in zip(groups.expert_ids, groups.counts, strict=True) for _ in range(n)]
    assert list(zip(per_row, groups.token_ids.tolist(), strict=True)) == rows
    for token, slots in enumerate(groups.positions.tolist()):
        assert [rows[row] for row in slots] == [(e, token) for e in expert_ids[token].tolist()]


def test_idle_experts_are_not_even_looked_up() -> None:
    class Hit(dict[int, GatedMLP]):
        def __missing__(self, key: int) -> GatedMLP:
            pytest.fail(f"expert {key} has no rows")

        def __iter__(self) -> Iterator[int]:
            pytest.fail("a loop over all experts")

    experts = Hit({3: random_expert(8, 6), 7: random_expert(8, 6)})
    rows = torch.randn(5, 8)
    out = expert_ffn(experts, rows, [3, 7], [4, 1])
    torch.testing.assert_close(out[:4], experts[3](rows[:4]))
    torch.testing.assert_close(out[4:], experts[7](rows[4:]))


@settings(deadline=None)
@given(num_tokens=st.integers(1, 40), num_shards=st.integers(2, 4), data=st.data())
def test_experts_in_shards_compute_the_same_bits_as_together(
    num_tokens: int, num_shards: int, data: st.DataObject
) -> None:
    """Whichever shard has an expert, and in however many calls its rows come."""
    torch.manual_seed(0)
    layer = random_mixture(32, 48, 6, 3)
    if not layer.gate.router.is_packed:
        pytest.skip("torch has no packed product here")
    home = data.draw(st.lists(st.integers(0, num_shards - 1), min_size=6, max_size=6))
    shards: list[dict[int, Any]] = [
        {expert: layer.experts[expert] for expert in range(6) if home[expert] == shard}
        for shard in range(num_shards)
    ]
    x = torch.randn(num_tokens, 32)
    weights, expert_ids = layer.gate(x)
    groups = group_by_expert(expert_ids)
    rows = x.index_select(0, groups.token_ids)
    outputs = [
        expert_ffn(shards[home[expert]], part, [expert], [len(part)])
        for expert, group in zip(groups.expert_ids, rows.split(groups.counts), strict=True)
        for part in group.tensor_split(data.draw(st.integers(1, len(group))))
    ]
    assert torch.equal(combine(torch.cat(outputs), groups.positions, weights), layer(x))


@dtypes
def test_combining_by_the_kernel_equals_combining_in_torch(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, weights = torch.randn(20, 33).to(dtype), torch.rand(10, 2)
    positions = torch.randperm(20).view(10, 2)
    compiled = combine(rows, positions, weights)
    monkeypatch.setattr(row_kernels, "supported", lambda x: False)
    plain = combine(rows, positions, weights)
    assert compiled.dtype is plain.dtype is dtype
    torch.testing.assert_close(compiled, plain)


def test_slot_that_was_dropped_adds_nothing() -> None:
    rows, positions = torch.randn(4, 8), torch.tensor([[0, 3], [1, 0]])
    weights = torch.tensor([[0.5, 0.5], [0.7, 0.0]])  # the second token's second slot
    torch.testing.assert_close(combine(rows, positions, weights)[1], 0.7 * rows[1])


@pytest.mark.parametrize("normalise", [True, False])
def test_layer_with_a_shared_expert_equals_transformers(normalise: bool) -> None:
    config = Qwen2MoeConfig(
        hidden_size=32,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=40,
        num_experts=6,
        num_experts_per_tok=3,
        norm_topk_prob=normalise,
    )
    theirs = Qwen2MoeSparseMoeBlock(config)
    for parameter in theirs.parameters():
        parameter.data.normal_(0, 0.3)
    mlp = theirs.shared_expert
    shared = SharedExpert(
        GatedMLP(
            Linear(torch.cat((mlp.gate_proj.weight.data, mlp.up_proj.weight.data))),
            Linear(mlp.down_proj.weight.data),
            "silu",
        ),
        Linear(theirs.shared_expert_gate.weight.data),
    )
    gating = GatingConfig(num_experts=6, num_experts_per_token=3, renormalise=normalise)
    experts = [
        GatedMLP(Linear(gate_up), Linear(down), "silu")
        for gate_up, down in zip(
            theirs.experts.gate_up_proj.data, theirs.experts.down_proj.data, strict=True
        )
    ]
    ours = MixtureOfExperts(Gate(Linear(theirs.gate.weight.data), gating), experts, shared)
    x = torch.randn(11, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x[None])[0], atol=1e-5, rtol=1e-4)


def test_delegated_layer_adds_its_result_to_the_residual() -> None:
    calls: list[tuple[int, Tensor]] = []

    def double(layer: int, hidden: Tensor) -> Tensor:
        calls.append((layer, hidden))
        return 2 * hidden

    x, residual = torch.randn(3, 8), torch.randn(3, 8)
    assert torch.equal(DelegatedMoE(double, 5)(x, residual), residual + 2 * x)
    assert torch.equal(DelegatedMoE(double, 5)(x), 2 * x)
    assert [layer for layer, _ in calls] == [5, 5]


@pytest.mark.parametrize("wrong", [torch.ones(1, 8), torch.ones(3, 8).bfloat16()])
def test_delegated_layer_refuses_a_result_that_is_not_its_tokens(wrong: Tensor) -> None:
    layer = DelegatedMoE(lambda layer, hidden: wrong, 5)
    with pytest.raises(EngineError, match="sparse layer 5: expected"):
        layer(torch.ones(3, 8), torch.ones(3, 8))

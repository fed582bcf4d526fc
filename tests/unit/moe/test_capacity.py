"""Capacity against a plain reference that goes through the slots one by one."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.engine.config import GateScores, GatingConfig
from services.engine.layers.gating import choose_experts
from services.moe.router.capacity import Capacity
from services.moe.router.gates import Routed


def routed(logits: torch.Tensor, k: int, scores: GateScores = "softmax") -> Routed:
    gating = GatingConfig(
        num_experts=logits.shape[1], num_experts_per_token=k, scores=scores, renormalise=True
    )
    weights, ids = choose_experts(logits, gating)
    return Routed(weights, ids, logits, scores)


def reference(
    found: Routed, factor: float, policy: Literal["drop", "reroute"], scores: GateScores
) -> tuple[list[list[int]], list[list[float]]]:
    num_tokens, k = found.expert_ids.shape
    num_experts = found.logits.shape[1]
    room = [math.ceil(factor * num_tokens * k / num_experts)] * num_experts
    ids = found.expert_ids.tolist()
    weights = found.weights.double().tolist()
    values = found.logits.double()
    score = values.softmax(-1) if scores == "softmax" else values.sigmoid()
    kept = [[False] * k for _ in range(num_tokens)]
    for j in range(k):
        for t in range(num_tokens):
            if room[ids[t][j]] > 0:
                room[ids[t][j]] -= 1
                kept[t][j] = True
    if policy == "reroute":
        ranking = found.logits.argsort(dim=-1, descending=True, stable=True).tolist()
        has = [set(row) for row in ids]
        for rank in range(num_experts):
            for t in range(num_tokens):
                j = next((j for j in range(k) if not kept[t][j]), None)
                expert = ranking[t][rank]
                if j is None or expert in has[t] or room[expert] <= 0:
                    continue
                weights[t][j] *= float(score[t, expert] / score[t, ids[t][j]])
                ids[t][j] = expert
                kept[t][j] = True
                has[t].add(expert)
                room[expert] -= 1
    for t in range(num_tokens):
        weights[t] = [w if ok else 0.0 for w, ok in zip(weights[t], kept[t], strict=True)]
    return ids, weights


@settings(deadline=None)  # the first case warms torch up
@given(
    num_tokens=st.integers(1, 12),
    num_experts=st.integers(2, 6),
    k=st.integers(1, 2),
    factor=st.sampled_from([0.25, 0.5, 1.0, 1.25, 2.0]),
    policy=st.sampled_from(["drop", "reroute"]),
    scores=st.sampled_from(["softmax", "sigmoid"]),
    seed=st.integers(0, 10_000),
)
def test_capacity_equals_going_through_the_slots(
    num_tokens: int,
    num_experts: int,
    k: int,
    factor: float,
    policy: Literal["drop", "reroute"],
    scores: GateScores,
    seed: int,
) -> None:
    logits = torch.randn(num_tokens, num_experts, generator=torch.Generator().manual_seed(seed))
    logits[:, 0] += 2  # a hot expert
    found = routed(logits, k, scores)
    fitted = Capacity(factor, policy, scores).fit(found)
    ids, weights = reference(found, factor, policy, scores)
    torch.testing.assert_close(fitted.weights, torch.tensor(weights), rtol=1e-5, atol=1e-6)
    kept = fitted.kept.tolist()
    for t in range(num_tokens):
        for j in range(k):
            if kept[t][j]:
                assert fitted.expert_ids[t, j] == ids[t][j]
    room = math.ceil(factor * num_tokens * k / num_experts)
    assert int(fitted.expert_ids[fitted.kept].bincount().max()) <= room


def test_room_for_all_changes_nothing() -> None:
    found = routed(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), 2)
    fitted = Capacity(4.0, "reroute", "softmax").fit(found)
    assert torch.equal(fitted.weights, found.weights)
    assert torch.equal(fitted.expert_ids, found.expert_ids)
    assert bool(fitted.kept.all())


def test_all_first_choices_are_placed_before_any_second() -> None:
    found = routed(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), 2)
    assert found.expert_ids.tolist() == [[1, 0], [0, 1]]
    fitted = Capacity(0.5, "drop", "softmax").fit(found)
    assert fitted.kept.tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("policy", ["drop", "reroute"])
def test_no_expert_takes_more_than_its_room(policy: Literal["drop", "reroute"]) -> None:
    logits = torch.zeros(64, 8)
    logits[:, 3] = 5.0
    fitted = Capacity(1.0, policy, "softmax").fit(routed(logits, 1))
    counts = fitted.expert_ids[fitted.kept].bincount(minlength=8).tolist()
    assert counts == ([8] * 8 if policy == "reroute" else [0, 0, 0, 8, 0, 0, 0, 0])

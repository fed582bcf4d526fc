"""Ways of choosing experts against the same written out in loops; the losses of routers, too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.engine.config import GatingConfig
from services.engine.errors import ConfigError
from services.engine.layers.gating import Gate, choose_experts
from services.engine.layers.linear import Linear
from services.engine.layers.router_losses import load_balancing_loss, router_entropy, z_loss

SWITCH: dict[str, Any] = {"renormalise": False}
MIXTRAL: dict[str, Any] = {}
DEEPSEEK: dict[str, Any] = {"scores": "sigmoid", "correction_bias": True, "scaling_factor": 2.5}
# Closer calls are decided by rounding.
DECISIVE_MARGIN = 1e-5


def chosen_by_loops(
    logits: list[float], bias: list[float], config: GatingConfig
) -> tuple[dict[int, float], float]:
    """Expert -> weight of one token, and by how much the closest decision was made."""
    if config.scores == "softmax":
        total = sum(math.exp(logit) for logit in logits)
        scores = [math.exp(logit) / total for logit in logits]
    else:
        scores = [1 / (1 + math.exp(-logit)) for logit in logits]
    preference = [score + offset for score, offset in zip(scores, bias, strict=True)]
    size = config.num_experts // config.num_groups
    groups = [preference[first : first + size] for first in range(0, config.num_experts, size)]
    worth = [sum(sorted(group)[-2:]) for group in groups]
    best_groups, group_margin = best(worth, range(len(groups)), config.num_groups_per_token)
    eligible = [expert for expert in range(config.num_experts) if expert // size in best_groups]
    experts, margin = best(preference, eligible, config.num_experts_per_token)
    weights = {expert: scores[expert] for expert in experts}
    if config.renormalise:
        total = sum(weights.values())
        weights = {expert: weight / total for expert, weight in weights.items()}
    scaled = {expert: weight * config.scaling_factor for expert, weight in weights.items()}
    return scaled, min(margin, group_margin)


def best(values: list[float], among: Any, count: int) -> tuple[list[int], float]:
    """The indices of the `count` highest, and how far the last is above the next."""
    ranked = sorted(among, key=lambda index: -values[index])
    if count == len(ranked):
        return ranked, math.inf
    return ranked[:count], values[ranked[count - 1]] - values[ranked[count]]


@st.composite
def gatings(draw: st.DrawFn, variant: dict[str, Any], grouped: bool) -> GatingConfig:
    num_groups = draw(st.integers(2, 4)) if grouped else 1
    kept = draw(st.integers(1, num_groups))
    size = draw(st.integers(1, 4 if grouped else 16))
    k = draw(st.integers(1, min(size * kept, 8)))
    return GatingConfig(
        num_experts=size * num_groups,
        num_experts_per_token=k,
        num_groups=num_groups,
        num_groups_per_token=kept,
        **variant,
    )


@pytest.mark.parametrize("grouped", [False, True], ids=["all", "groups"])
@pytest.mark.parametrize(
    "variant",
    [SWITCH, MIXTRAL, DEEPSEEK, DEEPSEEK | SWITCH],
    ids=["switch", "mixtral", "v3", "v3-"],
)
@settings(deadline=None)
@given(data=st.data(), num_tokens=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_choice_equals_the_same_in_loops(
    variant: dict[str, Any], grouped: bool, data: st.DataObject, num_tokens: int, seed: int
) -> None:
    config = data.draw(gatings(variant, grouped))
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num_tokens, config.num_experts)).astype(np.float32)
    bias = rng.normal(0, 0.5, config.num_experts).astype(np.float32) * config.correction_bias
    expected = [chosen_by_loops(row, bias.tolist(), config) for row in logits.tolist()]
    assume(min(margin for _, margin in expected) > DECISIVE_MARGIN)
    learnt = torch.from_numpy(bias) if config.correction_bias else None
    weights, expert_ids = choose_experts(torch.from_numpy(logits), config, learnt)
    assert weights.dtype is torch.float32
    assert expert_ids.dtype is torch.int64
    for token, (chosen, _) in enumerate(expected):
        ours = dict(zip(expert_ids[token].tolist(), weights[token].tolist(), strict=True))
        assert ours == pytest.approx(chosen, rel=1e-5)


def test_slots_are_in_the_order_of_preference() -> None:
    logits = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    for variant in (SWITCH, MIXTRAL, {"scores": "sigmoid"}):
        config = GatingConfig(num_experts=12, num_experts_per_token=4, **variant)
        weights, _ = choose_experts(logits, config)
        assert torch.equal(weights, weights.sort(dim=-1, descending=True).values)


def test_correction_bias_chooses_but_does_not_weigh() -> None:
    config = GatingConfig(num_experts=3, num_experts_per_token=1, renormalise=False, **DEEPSEEK)
    logits, bias = torch.tensor([[4.0, 0.0, -4.0]]), torch.tensor([0.0, 0.0, 9.0])
    weights, expert_ids = choose_experts(logits, config, bias)
    assert expert_ids.tolist() == [[2]]
    torch.testing.assert_close(weights, 2.5 * logits[:, 2:].sigmoid())


def test_sigmoids_that_are_all_zero_give_no_nan() -> None:
    config = GatingConfig(num_experts=3, num_experts_per_token=2, scores="sigmoid")
    weights, _ = choose_experts(torch.full((1, 3), -1e4), config)
    assert weights.tolist() == [[0.0, 0.0]]


def test_gate_routes_by_its_logits_and_bias() -> None:
    rng = torch.Generator().manual_seed(0)
    router, x = torch.randn(6, 8, generator=rng), torch.randn(5, 8, generator=rng)
    bias = torch.randn(6, generator=rng)
    config = GatingConfig(num_experts=6, num_experts_per_token=2, **DEEPSEEK)
    gate = Gate(Linear(router), config, bias)
    torch.testing.assert_close(gate.logits(x), x @ router.T)
    weights, expert_ids = gate(x)
    expected = choose_experts(x @ router.T, config, bias)
    assert torch.equal(expert_ids, expected.expert_ids)
    torch.testing.assert_close(weights, expected.weights)


def test_gate_of_a_bfloat16_layer_chooses_in_float32() -> None:
    gate = Gate(
        Linear(torch.randn(6, 8).bfloat16()), GatingConfig(num_experts=6, num_experts_per_token=2)
    )
    weights, _ = gate(torch.randn(5, 8).bfloat16())
    assert weights.dtype is torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(5))


# Losses --------------------------------------------------------------------------------------

routers = given(
    num_tokens=st.integers(1, 20), num_experts=st.integers(1, 8), seed=st.integers(0, 2**32 - 1)
)


def router_logits(num_tokens: int, num_experts: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(num_tokens, num_experts, generator=generator)


def probabilities_in_loops(logits: torch.Tensor, scores: str) -> list[list[float]]:
    found = []
    for row in logits.tolist():
        values = [math.exp(v) if scores == "softmax" else 1 / (1 + math.exp(-v)) for v in row]
        found.append([value / sum(values) for value in values])
    return found


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
@routers
def test_entropy_equals_the_same_in_loops(
    scores: Any, num_tokens: int, num_experts: int, seed: int
) -> None:
    logits = router_logits(num_tokens, num_experts, seed)
    rows = probabilities_in_loops(logits, scores)
    expected = [-sum(p * math.log(p) for p in row) for row in rows]
    ours = router_entropy(logits, scores)
    torch.testing.assert_close(ours, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_entropy_is_between_none_and_that_of_an_even_choice() -> None:
    logits = torch.tensor([[1e4, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]], requires_grad=True)
    entropy = router_entropy(logits)
    torch.testing.assert_close(entropy, torch.tensor([0.0, math.log(4)]))
    (gradient,) = torch.autograd.grad(entropy.sum(), logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
@routers
def test_load_balancing_loss_equals_the_same_in_loops(
    scores: Any, num_tokens: int, num_experts: int, seed: int
) -> None:
    logits = router_logits(num_tokens, num_experts, seed)
    k = min(2, num_experts)
    config = GatingConfig(num_experts=num_experts, num_experts_per_token=k, scores=scores)
    expert_ids = choose_experts(logits, config).expert_ids
    rows = probabilities_in_loops(logits, scores)
    expected = 0.0
    for expert in range(num_experts):
        share = sum(row.count(expert) for row in expert_ids.tolist()) / (num_tokens * k)
        mean = sum(row[expert] for row in rows) / num_tokens
        expected += num_experts * share * mean
    loss = load_balancing_loss(logits, expert_ids, scores)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_load_balancing_loss_is_one_when_even_and_the_number_of_experts_when_not() -> None:
    even = 50.0 * torch.eye(4)
    assert load_balancing_loss(even, torch.arange(4)[:, None]).item() == pytest.approx(1)
    same = even[[2, 2, 2, 2]]
    assert load_balancing_loss(same, torch.full((4, 1), 2)).item() == pytest.approx(4)


def test_descending_the_load_balancing_loss_evens_the_load() -> None:
    """A router of one linear map, all of whose tokens begin at one expert."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 8, generator=generator) + 2
    weight = torch.zeros(4, 8)
    weight[0] += 1.0
    weight.requires_grad_()
    config = GatingConfig(num_experts=4, num_experts_per_token=1)
    optimiser = torch.optim.Adam([weight], lr=0.02)
    losses = []
    for _ in range(200):
        logits = x @ weight.T
        loss = load_balancing_loss(logits, choose_experts(logits, config).expert_ids)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[0] > 3.9
    assert min(losses) < 1.2


@routers
def test_z_loss_equals_the_same_in_loops(num_tokens: int, num_experts: int, seed: int) -> None:
    logits = router_logits(num_tokens, num_experts, seed)
    squares = [math.log(sum(map(math.exp, row))) ** 2 for row in logits.tolist()]
    assert z_loss(logits).item() == pytest.approx(sum(squares) / num_tokens, rel=1e-4, abs=1e-6)


def test_z_loss_is_finite_for_large_logits() -> None:
    logits = torch.full((2, 3), 1e4, requires_grad=True)
    loss = z_loss(logits)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("configured", [True, False])
def test_a_correction_bias_that_is_missing_or_unexpected_is_refused(configured: bool) -> None:
    config = GatingConfig(
        num_experts=6, num_experts_per_token=2, scores="sigmoid", correction_bias=configured
    )
    bias = None if configured else torch.zeros(6)
    with pytest.raises(
        ConfigError, match="correction_bias: expected a tensor where it is set, only there"
    ):
        Gate(Linear(torch.zeros(6, 8)), config, bias)

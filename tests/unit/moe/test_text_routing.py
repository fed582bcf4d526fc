from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orrery.v1 import moe_pb2 as pb
from services.engine.config import GatingConfig
from services.moe.model_facts import ModelFacts
from services.moe.router.text_routing import most_told
from services.runtime.message_size import MAX_CONTENT_BYTES


@pytest.mark.parametrize(
    ("num_layers", "num_experts", "k"),
    [(48, 128, 8), (32, 8, 2), (60, 384, 8), (1, 2, 1), (1, 20_000, 1)],
)
def test_what_is_told_of_the_longest_text_fits_into_a_message(
    num_layers: int, num_experts: int, k: int
) -> None:
    model = ModelFacts(
        folder=Path(),
        weight_hash="",
        dtype=torch.float32,
        hidden_size=64,
        layers=tuple(range(num_layers)),
        gating=GatingConfig(num_experts=num_experts, num_experts_per_token=k),
        bytes_per_expert=1,
    )
    longest, num_tokens = most_told(model), 1000
    layer = pb.LayerRouting(
        layer=num_layers - 1,
        expert_ids=[num_experts - 1] * (num_tokens * k),  # the number that takes most
        weights=[0.5] * (num_tokens * k),
        entropies=[1.0] * num_tokens,
    )
    answer = pb.RouteResponse(layers=[layer] * num_layers, token_ids=[2**20] * num_tokens)
    size = answer.ByteSize() / num_tokens * longest
    assert MAX_CONTENT_BYTES / 3 < size <= MAX_CONTENT_BYTES

"""The fused layer computes what the two apart do."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from services.embedding.fused import fuse_gelu
from services.engine.devices import has_bfloat16

pytestmark = pytest.mark.skipif(
    not has_bfloat16(torch.device("cpu")), reason="this CPU has no bfloat16 instructions"
)


class Layer(nn.Module):
    def __init__(self, activation: nn.Module, bias: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(48, 96, bias=bias)
        self.intermediate_act_fn = activation

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.intermediate_act_fn(self.dense(rows))
        return result


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_rows", [1, 7, 300])
def test_fused_is_linear_then_gelu(bias: bool, num_rows: int) -> None:
    torch.manual_seed(0)
    layer = Layer(nn.GELU(), bias)
    rows = torch.randn(3, num_rows, 48)
    want = layer(rows)
    fused = Layer(nn.GELU(), bias)
    fused.load_state_dict(layer.state_dict())
    fused = fused.to(torch.bfloat16)
    assert fuse_gelu(fused) == 1
    with torch.inference_mode():
        torch.testing.assert_close(fused(rows.bfloat16()).float(), want, atol=0.03, rtol=0.03)


def test_another_activation_is_left_alone() -> None:
    for activation in (nn.ReLU(), nn.GELU(approximate="tanh")):
        assert fuse_gelu(Layer(activation, bias=True)) == 0


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet"])
def test_the_feed_forward_layers_of_encoders_are_found(family: str) -> None:
    config = transformers.AutoConfig.for_model(
        family, vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    model = transformers.AutoModel.from_config(config).to(torch.bfloat16)
    assert fuse_gelu(model) == 3


def test_the_feed_forward_layers_of_clip_are_found_unless_they_have_another_gelu() -> None:
    for activation, num_fused in (("gelu", 2), ("quick_gelu", 0)):
        config = transformers.CLIPVisionConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            image_size=16, patch_size=8, hidden_act=activation,
        )  # fmt: skip
        model = transformers.CLIPVisionModel(config).eval().to(torch.bfloat16)
        pixels = torch.randn(2, 3, 16, 16)
        want = model(pixels).pooler_output
        assert fuse_gelu(model) == num_fused
        with torch.inference_mode():
            torch.testing.assert_close(model(pixels).pooler_output, want, atol=0.05, rtol=0.05)

"""The feed-forward layer's first half in one kernel: GELU computed as the product is written out.

On a CPU with bfloat16 instructions the products are so fast that GELU on its own takes a fifth of
a small encoder's time. oneDNN computes it in the product's epilogue; torch has that kernel for its
own compiler, and calling it directly needs no C++ compiler on the machine that serves.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import GELUActivation

__all__ = ["fuse_gelu"]

# What the linear layer and the GELU behind it are called: in BERT and its kin, and in CLIP.
_NAMES = (("dense", "intermediate_act_fn"), ("fc1", "activation_fn"))
# The number of rows that the weight's memory layout is chosen for; any number may come.
_LAYOUT_ROWS = 2048


class _LinearGelu(nn.Module):
    """`gelu(x W^T + b)`, the exact GELU (Hendrycks and Gimpel 2016). Inference only, on a CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _LAYOUT_ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, "gelu", [], "none"
        )
        return result


def fuse_gelu(model: nn.Module) -> int:
    """Fuses where a module has a linear layer and then the exact GELU, by the `_NAMES` of both.

    The weights are repacked for their present dtype. Returns how many layers were fused.
    """
    num_fused = 0
    for module in list(model.modules()):
        for linear_name, activation_name in _NAMES:
            linear = getattr(module, linear_name, None)
            activation = getattr(module, activation_name, None)
            if isinstance(linear, nn.Linear) and _is_exact_gelu(activation):
                setattr(module, linear_name, _LinearGelu(linear))
                setattr(module, activation_name, nn.Identity())
                num_fused += 1
    return num_fused


def _is_exact_gelu(activation: object) -> bool:
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return isinstance(activation, GELUActivation)

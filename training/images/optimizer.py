"""The optimiser of the picture models: Muon for matrices and kernels, AdamW for the rest."""

from __future__ import annotations

from typing import Any

import torch


class MixedOptimizer:
    """Muon for the matrices and kernels inside the networks, AdamW for the rest.

    Muon takes matrices alone: a kernel takes part as a view [out, height * width * in] of it,
    which its channels-last memory allows.
    """

    def __init__(self, model: torch.nn.Module, weight_decay: float) -> None:
        named = list(model.named_parameters())
        outer = ("embeddings", "conv_in", "conv_out")
        inner = [p for n, p in named if p.ndim >= 2 and not any(part in n for part in outer)]
        chosen = {id(p) for p in inner}
        self._parameters = [p for _, p in named]
        self._pairs = [(p, torch.nn.Parameter(as_matrix(p.detach()))) for p in inner]
        assert all(p.data_ptr() == matrix.data_ptr() for p, matrix in self._pairs)
        self._muon = torch.optim.Muon(
            [matrix for _, matrix in self._pairs],
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        others = [p for _, p in named if id(p) not in chosen]
        self._adamw = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, learning_rate: float) -> None:
        """Update the parameters by their gradients, and forget these."""
        for parameter, matrix in self._pairs:
            matrix.grad = None if parameter.grad is None else as_matrix(parameter.grad)
        for optimizer in (self._muon, self._adamw):
            optimizer.param_groups[0]["lr"] = learning_rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Both optimisers' state."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """[out, in, height, width] to [out, height * width * in]; a matrix is left as it is."""
    return weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).flatten(1)

"""What router and shards must agree on about a model, read from its folder without its weights.

Knows nothing of serving.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from services.engine.config import DType, GatingConfig
from services.engine.weights import open_checkpoint, read_model_config, resolve_model
from services.moe.expert_key import ExpertKey
from services.runtime.message_size import MAX_CONTENT_BYTES
from services.runtime.model_files import ModelFolderError

__all__ = ["ModelFacts", "read_model_facts"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A sparse model's sizes. `layers` are the numbers of its sparse layers, ascending."""

    folder: Path
    weight_hash: str
    dtype: torch.dtype
    hidden_size: int
    layers: tuple[int, ...]
    gating: GatingConfig
    bytes_per_expert: int

    @property
    def num_experts(self) -> int:
        """Of each layer."""
        return self.gating.num_experts

    @property
    def max_message_rows(self) -> int:
        """Rows that one message can carry."""
        return max(1, MAX_CONTENT_BYTES // (self.hidden_size * self.dtype.itemsize))

    @property
    def keys(self) -> list[ExpertKey]:
        """All experts, layer by layer."""
        return [ExpertKey(layer, e) for layer in self.layers for e in range(self.num_experts)]


def read_model_facts(path: str, dtype: DType) -> ModelFacts:
    """Of a folder in Hugging Face layout.

    Raises `CheckpointError` or `ConfigError` of the engine; `ModelFolderError` where no layer of
    the model is sparse.
    """
    folder = resolve_model(path)
    config = read_model_config(folder)
    if config.moe is None:
        raise ModelFolderError(f"{folder}: expected a model with sparse layers; all are dense")
    with open_checkpoint(folder, dtype) as checkpoint:
        return ModelFacts(
            folder=folder,
            weight_hash=checkpoint.content_hash(),
            dtype=checkpoint.dtype,
            hidden_size=config.hidden_size,
            layers=config.moe.layers,
            gating=config.moe.gating,
            bytes_per_expert=config.expert_num_parameters * checkpoint.dtype.itemsize,
        )

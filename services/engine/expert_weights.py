"""Parts of a mixture of experts without the decoder around them, for processes that host those.

A router holds gates and shared experts, a shard some experts of some layers. Each loads what it
needs of the same folder; the rest is not read. All functions take a folder or hub name and convert
as `load_model` does; they raise `ConfigError` for a model without sparse layers and
`CheckpointError` for a tensor that is missing or misshapen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from services.engine.config import DType
from services.engine.errors import ConfigError
from services.engine.layers.gating import Gate
from services.engine.layers.mlp import GatedMLP
from services.engine.layers.moe import SharedExpert
from services.engine.models.mixtral import SparseLayerWeights
from services.engine.weights import open_checkpoint, read_model_config, resolve_model

__all__ = ["load_experts", "load_gates", "load_shared_experts"]


def load_gates(
    path_or_name: str | Path, dtype: DType = "auto", device: str = "cpu"
) -> dict[int, Gate]:
    """The gate of every sparse layer, by the layer's number."""
    with _sparse_layers(path_or_name, dtype, device) as layers:
        return {layer: parts.gate() for layer, parts in layers.items()}


def load_shared_experts(
    path_or_name: str | Path, dtype: DType = "auto", device: str = "cpu"
) -> dict[int, SharedExpert]:
    """The shared expert of every sparse layer, by the layer's number; empty where there is none."""
    with _sparse_layers(path_or_name, dtype, device) as layers:
        found = {layer: parts.shared_expert() for layer, parts in layers.items()}
    return {layer: shared for layer, shared in found.items() if shared is not None}


def load_experts(
    path_or_name: str | Path,
    pairs: Iterable[tuple[int, int]],
    dtype: DType = "auto",
    device: str = "cpu",
) -> dict[int, dict[int, GatedMLP]]:
    """The experts of these (layer, expert) pairs: layer -> expert id -> expert, as `expert_ffn`
    takes those of a layer.

    Raises `ConfigError` for a pair that the model does not have.
    """
    experts: dict[int, dict[int, GatedMLP]] = defaultdict(dict)
    with _sparse_layers(path_or_name, dtype, device) as layers:
        for layer, expert in pairs:
            if layer not in layers or expert not in range(layers[layer].num_experts):
                raise ConfigError("pairs", f"the model has no expert {expert} in layer {layer}")
            experts[layer][expert] = layers[layer].expert(expert)
    return dict(experts)


@contextmanager
def _sparse_layers(
    path_or_name: str | Path, dtype: DType, device: str
) -> Iterator[Mapping[int, SparseLayerWeights]]:
    folder = resolve_model(path_or_name)
    config = read_model_config(folder)
    if config.moe is None:
        raise ConfigError("architectures", f"{folder} is a model without sparse layers")
    with open_checkpoint(folder, dtype, device) as checkpoint:
        yield {
            layer: SparseLayerWeights(config, config.moe, checkpoint, layer)
            for layer in config.moe.layers
        }

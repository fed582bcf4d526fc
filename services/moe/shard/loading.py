"""From a shard's settings to its service, still without an expert. Knows nothing of serving."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import torch

from services.engine.devices import use_threads
from services.engine.expert_weights import load_experts
from services.engine.layers.mlp import GatedMLP
from services.moe.expert_key import ExpertKey
from services.moe.model_facts import ModelFacts, read_model_facts
from services.moe.shard.config import ShardConfig
from services.moe.shard.expert_store import ExpertStore
from services.moe.shard.metrics import ShardMetrics
from services.moe.shard.service import ShardService
from services.runtime.model_files import ModelFolderError
from services.runtime.work_health import WorkHealth

__all__ = ["load_shard"]


async def load_shard(
    config: ShardConfig, model_folder: str, metrics: ShardMetrics
) -> tuple[ModelFacts, ShardService]:
    """Reads beside the event loop. Raises as `read_model_facts`, and `ModelFolderError` for a limit
    of memory below one expert.
    """

    def read() -> ModelFacts:
        use_threads(config.num_threads)
        return read_model_facts(model_folder, config.dtype)

    model = await asyncio.to_thread(read)
    # With room for one more, through which experts move when all are held.
    everything = (len(model.keys) + 1) * model.bytes_per_expert
    max_bytes = config.max_expert_bytes or everything
    if max_bytes < model.bytes_per_expert:
        raise ModelFolderError(
            f"max_expert_bytes: one expert of {model.folder} is {model.bytes_per_expert} bytes"
        )

    def load(keys: Iterable[ExpertKey]) -> Mapping[int, Mapping[int, GatedMLP]]:
        return load_experts(model.folder, keys, config.dtype, config.device)

    device = torch.device(config.device)
    store = ExpertStore(load, model.bytes_per_expert, max_bytes, device)
    health = WorkHealth("computing a call's rows", config.stuck_after_s)
    return model, ShardService(store, metrics, health, config.max_waiting_bytes)

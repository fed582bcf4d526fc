"""Geometry of the paged cache, its budget, block copies, writing and gathering."""

from __future__ import annotations

import pytest
import torch

from services.engine.config import EngineConfig, ModelConfig
from services.engine.errors import ConfigError
from services.engine.kv_cache import KVCache, LayerCache, bytes_per_block, num_blocks_for


def model_config(max_position_embeddings: int = 64) -> ModelConfig:
    return ModelConfig(
        family="llama",
        vocab_size=32,
        hidden_size=32,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=max_position_embeddings,
        norm_eps=1e-5,
        activation="silu",
    )


def test_number_of_blocks_follows_from_the_memory_budget() -> None:
    config, engine = model_config(), EngineConfig(kv_cache_bytes=100_000, block_size=4)
    # 3 layers x (k, v) x 2 heads x 8 x 4 bytes x 4 tokens
    assert bytes_per_block(config, engine, torch.float32) == 1536
    assert num_blocks_for(config, engine, torch.float32) == 65
    assert num_blocks_for(config, engine, torch.bfloat16) == 130
    cache = KVCache(config, engine, torch.float32, "cpu")
    assert cache.num_blocks == 65
    assert len(cache.layers) == 3
    assert cache.layers[0].k.shape == (65, 2, 4, 8)
    resident = sum(t.numel() * t.itemsize for layer in cache.layers for t in (layer.k, layer.v))
    assert resident == cache.num_blocks * cache.bytes_per_block <= engine.kv_cache_bytes


def test_a_budget_below_one_full_context_is_refused_by_name() -> None:
    engine = EngineConfig(kv_cache_bytes=16 * 1536 - 1, block_size=4)
    with pytest.raises(ConfigError, match="24576") as error:
        num_blocks_for(model_config(), engine, torch.float32)
    assert error.value.key == "kv_cache_bytes"
    shorter = engine.model_copy(update={"max_model_len": 60})
    assert num_blocks_for(model_config(), shorter, torch.float32) == 15


def test_max_model_len_beyond_the_model_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as error:
        num_blocks_for(model_config(), EngineConfig(max_model_len=65), torch.float32)
    assert error.value.key == "max_model_len"


def test_copy_blocks_copies_every_layer_and_reads_before_it_writes() -> None:
    engine = EngineConfig(kv_cache_bytes=100_000, block_size=4)
    cache = KVCache(model_config(), engine, torch.float32, "cpu")
    for index, layer in enumerate(cache.layers):
        layer.k.copy_(torch.arange(65).view(-1, 1, 1, 1) + 100 * index)
        layer.v.copy_(-layer.k)
    cache.copy_blocks([(1, 2), (2, 3), (1, 4)])
    for index, layer in enumerate(cache.layers):
        blocks = (layer.k[:6] - 100 * index).flatten(1)
        assert (blocks == blocks[:, :1]).all()
        assert blocks[:, 0].tolist() == [0, 1, 1, 2, 1, 5]
        assert torch.equal(layer.v, -layer.k)
    cache.copy_blocks([])


def test_gather_returns_what_write_stored_over_shuffled_blocks() -> None:
    layer = LayerCache(torch.full((6, 2, 4, 8), torch.nan), torch.full((6, 2, 4, 8), torch.nan))
    k, v = torch.randn(10, 2, 8), torch.randn(10, 2, 8)
    table = torch.tensor([5, 0, 3, 1])
    slots = torch.tensor([int(table[p // 4]) * 4 + p % 4 for p in range(10)])
    layer.write(k, v, slots)
    keys, values = layer.gather(table, 10)
    assert torch.equal(keys, k)
    assert torch.equal(values, v)

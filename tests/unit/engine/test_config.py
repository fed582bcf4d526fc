"""Settings are validated and named; a Hugging Face config is translated or refused by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from pydantic import ValidationError

from services.engine.config import (
    EngineConfig,
    GatingConfig,
    ModelConfig,
    MoEConfig,
    RopeScaling,
)
from services.engine.errors import ConfigError
from tests.fakes.random_models import RANDOM_MODELS, random_model

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "max_position_embeddings": 512,
}
GPT2: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 100,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


def config_of(architecture: str, **settings: Any) -> ModelConfig:
    return ModelConfig.from_hf({**LLAMA, "architectures": [architecture], **settings})


@pytest.mark.parametrize("name", RANDOM_MODELS)
def test_from_hf_understands_what_transformers_writes(name: str) -> None:
    model = random_model(name)
    theirs = model.config
    theirs.architectures = [type(model).__name__]
    ours = ModelConfig.from_hf(json.loads(theirs.to_json_string(use_diff=False)))
    assert ours.family == theirs.model_type
    assert ours.num_layers == theirs.num_hidden_layers
    assert ours.num_heads == theirs.num_attention_heads
    assert ours.num_kv_heads == getattr(theirs, "num_key_value_heads", theirs.num_attention_heads)
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert ours.eos_token_ids == ()


def test_from_hf_fills_in_what_an_old_config_leaves_out() -> None:
    config = ModelConfig.from_hf(LLAMA)
    assert config.num_kv_heads == 8
    assert config.head_dim == 8
    assert config.rope_theta == 10_000.0
    assert config.rope_scaling is None
    assert config.context_length == 512


def test_rope_spellings_of_transformers_4_and_5_mean_the_same() -> None:
    version_4 = config_of("LlamaForCausalLM", rope_theta=5e5, rope_scaling=LLAMA3_SCALING)
    version_5 = config_of("LlamaForCausalLM", rope_parameters={"rope_theta": 5e5, **LLAMA3_SCALING})
    assert version_4 == version_5
    assert version_5.rope_theta == 5e5
    assert version_5.rope_scaling == RopeScaling.model_validate(LLAMA3_SCALING)


def test_rope_type_by_its_oldest_spelling_is_understood() -> None:
    config = config_of("LlamaForCausalLM", rope_scaling={"type": "linear", "factor": 2})
    assert config.rope_scaling == RopeScaling(rope_type="linear", factor=2.0)


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 2048),
        ({"rope_type": "dynamic", "factor": 2.0}, 1024),
        (LLAMA3_SCALING, 512),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}, 1024),
        ({"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 128}, 512),
    ],
)
def test_context_length_counts_what_the_scaling_adds(
    scaling: dict[str, Any], expected: int
) -> None:
    assert config_of("LlamaForCausalLM", rope_scaling=scaling).context_length == expected


@pytest.mark.parametrize(
    ("settings", "windows"),
    [
        ({"sliding_window": 64}, [None] * 4),  # not switched on
        ({"sliding_window": 64, "use_sliding_window": True}, [None] * 4),  # from layer 28 on
        (
            {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 1},
            [None, 64, 64, 64],
        ),
        (
            {
                "sliding_window": 64,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
            [64, None, 64, None],
        ),
    ],
)
def test_qwen_windows_follow_their_three_settings(
    settings: dict[str, Any], windows: list[int | None]
) -> None:
    config = config_of("Qwen2ForCausalLM", **settings)
    assert [config.window(layer) for layer in range(4)] == windows


def test_mistral_window_applies_to_all_layers_unless_null() -> None:
    assert config_of("MistralForCausalLM", sliding_window=64).window(3) == 64
    assert config_of("MistralForCausalLM", sliding_window=None).window(3) is None
    assert config_of("MistralForCausalLM").window(3) == 4096  # transformers' default


def test_end_tokens_come_from_generation_config_first() -> None:
    config = {**LLAMA, "bos_token_id": 1, "eos_token_id": 2}
    assert ModelConfig.from_hf(config).eos_token_ids == (2,)
    assert ModelConfig.from_hf(config, {"eos_token_id": [3, 4]}).eos_token_ids == (3, 4)


def test_end_token_outside_the_vocabulary_is_none() -> None:
    config = ModelConfig.from_hf({**GPT2, "bos_token_id": 50256, "eos_token_id": 50256})
    assert (config.bos_token_id, config.eos_token_ids) == (None, ())


@pytest.mark.parametrize(
    ("base", "settings", "key"),
    [
        (LLAMA, {"architectures": ["BertForMaskedLM"]}, "architectures"),
        (LLAMA, {"architectures": None}, "architectures"),
        (LLAMA, {"hidden_size": None}, "hidden_size"),
        (LLAMA, {"hidden_size": "64"}, "hidden_size"),
        (LLAMA, {"num_attention_heads": 7}, "num_attention_heads"),
        (LLAMA, {"num_attention_heads": 0}, "num_attention_heads"),
        (LLAMA, {"num_hidden_layers": -1}, "num_hidden_layers"),
        (LLAMA, {"vocab_size": True}, "vocab_size"),
        (LLAMA, {"hidden_act": "mish"}, "hidden_act"),
        (LLAMA, {"rms_norm_eps": float("nan")}, "norm_eps"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (LLAMA, {"quantization_config": {"bits": 4}}, "quantization_config"),
        (LLAMA, {"auto_map": {"AutoModel": "own.Code"}}, "auto_map"),
        (
            LLAMA,
            {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}},
            "rope_scaling.rope_type",
        ),
        (LLAMA, {"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor"),
        (LLAMA, {"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "rope_scaling.factor"),
        (
            LLAMA,
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "mrope_section": [1]}},
            "rope_scaling.mrope_section",
        ),
        (LLAMA, {"rope_scaling": {"factor": 2.0}}, "rope_scaling.factor"),
        (LLAMA, {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "rope_parameters"),
        (
            {**LLAMA, "architectures": ["Qwen2ForCausalLM"]},
            {"layer_types": ["chunked_attention"] * 4},
            "layer_types",
        ),
        (
            {**LLAMA, "architectures": ["Qwen3ForCausalLM"]},
            {"layer_types": ["sliding_attention"] * 4},
            "layer_types",
        ),
        (
            {**LLAMA, "architectures": ["Qwen3MoeForCausalLM"]},
            {"decoder_sparse_step": 0},
            "decoder_sparse_step",
        ),
        (
            {**LLAMA, "architectures": ["Qwen2MoeForCausalLM"]},
            {"shared_expert_intermediate_size": 0},
            "shared_expert_intermediate_size",
        ),
        (
            {**LLAMA, "architectures": ["MistralForCausalLM"]},
            {"layer_types": ["sliding_attention", "full_attention"] * 2},
            "layer_types",
        ),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        (GPT2, {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
        (GPT2, {"add_cross_attention": True}, "add_cross_attention"),
        (GPT2, {"scale_attn_weights": False}, "scale_attn_weights"),
    ],
)
def test_from_hf_refuses_by_key_what_the_engine_does_not_compute(
    base: dict[str, Any], settings: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_hf({**base, **settings})
    assert error.value.key == key
    assert key in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_key_value_heads": 3},
        {"head_dim": 7},
        {"max_position_embeddings": 10**12},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"rope_scaling": {**LLAMA3_SCALING, "high_freq_factor": 1.0}},
    ],
)
def test_from_hf_refuses_shapes_that_do_not_fit_together(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ModelConfig.from_hf({**LLAMA, **settings})


def test_mixtral_refuses_more_experts_per_token_than_there_are() -> None:
    with pytest.raises(ConfigError, match="num_experts_per_token"):
        config_of("MixtralForCausalLM", num_local_experts=2, num_experts_per_tok=3)


def test_every_layer_of_mixtral_is_sparse_and_its_experts_are_its_mlp() -> None:
    config = config_of("MixtralForCausalLM", num_local_experts=6, num_experts_per_tok=3)
    gating = GatingConfig(num_experts=6, num_experts_per_token=3)
    assert config.moe == MoEConfig(gating=gating, intermediate_size=96, layers=(0, 1, 2, 3))
    assert config.expert_num_parameters == 3 * 64 * 96
    assert ModelConfig.from_hf(LLAMA).expert_num_parameters == 0


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({}, (0, 1, 2, 3)),
        ({"mlp_only_layers": [0, 2]}, (1, 3)),
        ({"decoder_sparse_step": 2}, (1, 3)),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, (1,)),
        ({"mlp_only_layers": [0, 1, 2, 3]}, None),
    ],
)
def test_qwen_says_which_layers_are_sparse(
    settings: dict[str, Any], layers: tuple[int, ...] | None
) -> None:
    for architecture in ("Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"):
        moe = config_of(architecture, **settings).moe
        assert (None if moe is None else moe.layers) == layers


def test_qwen_moe_defaults_are_those_of_transformers() -> None:
    for name in ("Qwen2Moe", "Qwen3Moe"):
        theirs = getattr(transformers, f"{name}Config")()
        moe = config_of(f"{name}ForCausalLM").moe
        assert moe is not None
        assert moe.gating.num_experts == theirs.num_experts
        assert moe.gating.num_experts_per_token == theirs.num_experts_per_tok
        assert moe.gating.renormalise == theirs.norm_topk_prob
        assert moe.intermediate_size == theirs.moe_intermediate_size
        shared = getattr(theirs, "shared_expert_intermediate_size", None)
        assert moe.shared_intermediate_size == shared


def test_windows_of_qwen_moe_follow_transformers() -> None:
    """Qwen2-MoE slides in every other layer unless told, Qwen3-MoE in all of them."""
    on = {"use_sliding_window": True, "sliding_window": 8}
    second = config_of("Qwen2MoeForCausalLM", **on, max_window_layers=3)
    theirs = transformers.Qwen2MoeConfig(num_hidden_layers=4, max_window_layers=3, **on)
    kinds = [
        "full_attention" if second.window(i) is None else "sliding_attention" for i in range(4)
    ]
    assert kinds == theirs.layer_types
    third = config_of("Qwen3MoeForCausalLM", **on)
    assert [third.window(layer) for layer in range(4)] == [8] * 4
    assert config_of("Qwen3MoeForCausalLM", sliding_window=8).window(0) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_experts": 0}, "num_experts"),
        ({"num_experts_per_token": 9}, "num_experts_per_token must be 1 to 8"),
        ({"num_groups": 3}, "num_groups must divide"),
        ({"num_groups": 4, "num_groups_per_token": 5}, "num_groups_per_token must be 1 to 4"),
        # Two groups of two experts have no five to choose from.
        (
            {"num_groups": 4, "num_groups_per_token": 2, "num_experts_per_token": 5},
            "num_experts_per_token must be 1 to 4",
        ),
        ({"scaling_factor": 0.0}, "scaling_factor"),
        ({"scores": "relu"}, "scores"),
    ],
)
def test_gating_that_no_token_could_be_routed_by_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    values = {"num_experts": 8, "num_experts_per_token": 2, **settings}
    with pytest.raises(ValidationError, match=message):
        GatingConfig.model_validate(values)


@pytest.mark.parametrize("layers", [(), (1, 0), (0, 0), (-1,), (4,)])
def test_sparse_layers_that_the_model_does_not_have_are_refused(layers: tuple[int, ...]) -> None:
    moe = config_of("MixtralForCausalLM").model_dump()
    moe["moe"]["layers"] = layers
    with pytest.raises(ValidationError, match="layers"):
        ModelConfig.model_validate(moe)


def test_stories_model_config_is_understood(stories_model: Path) -> None:
    config = ModelConfig.from_hf(json.loads((stories_model / "config.json").read_text()))
    assert (config.num_heads, config.num_kv_heads, config.tie_word_embeddings) == (8, 4, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_size", 0),
        ("kv_cache_bytes", 1),
        ("dtype", "float16"),
        ("blocks", 3),
        ("max_queue_s", 0),
    ],
)
def test_engine_config_refuses_by_name_a_value_it_does_not_know(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=key):
        EngineConfig.model_validate({key: value})

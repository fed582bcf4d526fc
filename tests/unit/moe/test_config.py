from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.generation.config import GenerationConfig
from services.moe.router.config import RouterConfig
from services.moe.shard.config import ShardConfig

ROUTER = {"model_name": "m", "model_path": "models/m", "shards": ["a", "b"]}
DECODER = {"model_name": "m", "model_path": "models/m"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shards": []}, "shards"),
        ({"shards": ["a", "a"]}, "shards: an application is named twice"),
        ({"colour": 1}, "colour"),
        ({"capacity": {"policy": "drop"}}, "policy: has no effect without a factor"),
        ({"capacity": {"factor": 0}}, "capacity.factor"),
        ({"capacity": {"factor": float("inf")}}, "capacity.factor"),
        (
            {"limits": {"max_tokens": 9, "max_waiting_tokens": 8}},
            "max_tokens: expected at most max_waiting_tokens, 8",
        ),
        ({"batching": {"window_s": 2}}, "batching.window_s"),
        ({"failures": {"hedge_factor": 1}}, "failures.hedge_factor"),
        ({"device": "tpu"}, "device"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_bad_settings_of_the_router_are_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RouterConfig(**{**ROUTER, **changes})
    assert said.split(":")[-1] in str(caught.value)


def test_a_router_answers_to_its_names() -> None:
    config = RouterConfig(**ROUTER, aliases=("n",))
    assert [config.serves(name) for name in ("", "m", "n", "o")] == [True, True, True, False]


@pytest.mark.parametrize("changes", [{"max_expert_bytes": 0}, {"max_waiting": 0}, {"shards": []}])
def test_bad_settings_of_a_shard_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        ShardConfig(**{"model_name": "m", "model_path": "p", **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experts": "service"}, "moe: expected the application"),
        ({"moe": {"application": "moe-router"}}, "moe: has no effect with experts 'local'"),
        ({"experts": "service", "backend": "vllm"}, "experts: 'service' needs the backend"),
        ({"experts": "elsewhere"}, "experts"),
        ({"experts": "service", "moe": {"application": ""}}, "application"),
        ({"experts": "service", "moe": {"application": "m", "timeout_s": 0}}, "timeout_s"),
    ],
)
def test_a_decoder_says_where_its_experts_are(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GenerationConfig(**{**DECODER, **changes})

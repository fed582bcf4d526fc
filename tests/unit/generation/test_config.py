"""Settings of the generation service."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from services.generation.config import GenerationConfig

BASE: dict[str, Any] = {"model_name": "orrery-llama", "model_path": "models/orrery-llama"}


def test_serves_its_name_its_aliases_and_the_empty_name() -> None:
    config = GenerationConfig(**BASE, aliases=("llama",))
    assert all(config.serves(name) for name in ("", "orrery-llama", "llama"))
    assert not config.serves("orrery-gpt")


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"max_tokenz": 1}, "max_tokenz"),
        ({"engine": {"blocksize": 16}}, "blocksize"),
        ({"limits": {"max_prompts": 1}}, "max_prompts"),
        ({"backend": "tgi"}, "backend"),
        ({"vllm": {}}, "vllm"),
        ({"backend": "vllm", "engine": {"block_size": 16}}, "engine"),
        ({"backend": "vllm", "vllm": {"tensor_parallel": 2}}, "tensor_parallel"),
    ],
)
def test_wrong_key_is_refused_and_named(extra: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        GenerationConfig(**BASE, **extra)

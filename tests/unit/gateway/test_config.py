"""The gateway's settings: what is wrong is named before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from services.gateway.config import GatewayConfig
from services.runtime.config import config_from_args


def test_defaults_are_the_platforms_own() -> None:
    config = config_from_args(GatewayConfig, {}, "gateway")
    assert config.applications == ("llama", "gpt")
    assert config.grpc_target == "127.0.0.1:9000"


@pytest.mark.parametrize(
    ("args", "key"),
    [
        ({"aplications": ["llama"]}, "aplications"),
        ({"applications": []}, "applications"),
        ({"applications": ["llama", "llama"]}, "applications"),
        ({"applications": ["two words"]}, "applications.0"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"default_timeout_s": 0}, "default_timeout_s"),
        ({"num_channels": "many"}, "num_channels"),
        ({"embedding_applications": ["e", "e"]}, "embedding_applications"),
        ({"image_applications": ["i", "i"]}, "image_applications"),
        ({"retrieval_application": "two words"}, "retrieval_application"),
        ({"max_upload_bytes": 16 << 20}, "max_upload_bytes"),
    ],
)
def test_wrong_setting_is_refused_by_name(args: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"args of the gateway application: {key}: "):
        config_from_args(GatewayConfig, args, "gateway")


def test_one_application_cannot_be_of_two_kinds() -> None:
    with pytest.raises(ValueError, match="of one kind"):
        config_from_args(GatewayConfig, {"rag_application": "llama"}, "gateway")
    with pytest.raises(ValueError, match="of one kind"):
        config_from_args(GatewayConfig, {"image_applications": ["gpt"]}, "gateway")


def test_all_applications_are_those_that_are_there() -> None:
    args = {
        "embedding_applications": ["embedding", "clip"],
        "image_applications": ["diffusion"],
        "rag_application": "rag",
    }
    config = config_from_args(GatewayConfig, args, "gateway")
    assert config.all_applications == ("llama", "gpt", "embedding", "clip", "diffusion", "rag")
    assert config.retrieval_application == ""

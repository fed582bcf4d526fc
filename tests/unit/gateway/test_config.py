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
    ],
)
def test_wrong_setting_is_refused_by_name(args: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"args of the gateway application: {key}: "):
        config_from_args(GatewayConfig, args, "gateway")

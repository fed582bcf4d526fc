"""What a client is told, and by which environment."""

from __future__ import annotations

import math
from typing import Any

import pytest

import orrery
from orrery.settings import DEFAULT_TARGET, ClientSettings


def settings(environ: dict[str, str], **arguments: Any) -> ClientSettings:
    given = {"target": None, "api_key": None} | arguments
    return ClientSettings.from_env(environ=environ, **given)


def test_argument_wins_over_environment_wins_over_default() -> None:
    environ = {"ORRERY_TARGET": "from-env:1", "ORRERY_API_KEY": "env-key"}
    assert settings({}).target == DEFAULT_TARGET
    assert settings({}).api_key is None
    assert settings(environ).target == "from-env:1"
    assert settings(environ).api_key == "env-key"
    chosen = settings(environ, target="given:2", api_key="given-key")
    assert (chosen.target, chosen.api_key) == ("given:2", "given-key")


def test_scheme_of_the_target_asks_for_tls() -> None:
    plain, secure = settings({}, target="h:1"), settings({"ORRERY_TARGET": "grpcs://h:1"})
    assert plain.target == secure.target == "h:1"
    assert plain.credentials is None
    assert secure.credentials is not None


def test_empty_variable_counts_as_unset() -> None:
    assert settings({"ORRERY_TARGET": "", "ORRERY_API_KEY": ""}) == settings({})


def test_environment_is_read_when_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_TARGET", "late:3")
    assert orrery.Client().settings.target == "late:3"


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"])
def test_key_that_cannot_be_a_header_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        settings({}, api_key=key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_retries", -1),
        ("num_channels", 0),
        ("target", ""),
        ("target", "localhost"),
        ("target", "http://localhost:8000"),
    ],
)
def test_argument_that_makes_no_sense_is_refused_by_name(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument):
        settings({}, **{argument: value})


@pytest.mark.parametrize("timeout_s", [0, -1.0, math.nan])
def test_timeout_that_is_no_time_is_refused(timeout_s: float) -> None:
    with pytest.raises(orrery.InvalidRequestError, match="timeout_s"):
        settings({}, timeout_s=timeout_s)

"""API keys."""

from __future__ import annotations

import pytest

from services.runtime.auth import Authenticator
from services.runtime.errors import Unauthenticated


@pytest.mark.parametrize("header", [None, "", "Bearer nonsense"])
def test_check_lets_everybody_in_without_keys(header: str | None) -> None:
    authenticator = Authenticator()
    assert not authenticator.required
    authenticator.check(header)


@pytest.mark.parametrize("header", ["Bearer one", "bearer two", "BEARER  two "])
def test_check_accepts_each_configured_key(header: str) -> None:
    Authenticator(["one", "two"]).check(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "one",
        "Bearer",
        "Bearer ",
        "Bearer on",
        "Bearer onee",
        "Basic one",
        "Bearer \udcff",
    ],
)
def test_check_refuses_anything_else(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Authenticator(["one", "two"]).check(header)
    assert caught.value.field == "authorization"


def test_refusal_does_not_repeat_the_key() -> None:
    with pytest.raises(Unauthenticated) as caught:
        Authenticator(["right"]).check("Bearer almost-right")
    assert "right" not in str(caught.value)

"""The gateway's process: what is set up in it before the first request."""

from __future__ import annotations

import warnings

import pytest

from services.gateway import app
from services.gateway.config import GatewayConfig


def test_oddities_of_strangers_pictures_are_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "configure_logging", lambda *_: None)  # it is the whole process's
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        app.Gateway(GatewayConfig())
        warnings.warn_explicit("an odd header", UserWarning, "Image.py", 1, module="PIL.Image")
    assert not shown

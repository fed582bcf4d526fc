"""Programs that some tests need and that are no Python packages."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["tool"]


def tool(name: str) -> str:
    """Where the program is. Without it the test is skipped, but fails under `CI=1` (.ci/run) where
    `CI_WITHOUT` does not name it.
    """
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed"
        if os.environ.get("CI") == "1" and name not in os.environ.get("CI_WITHOUT", "").split():
            pytest.fail(missing)
        pytest.skip(missing)
    return found

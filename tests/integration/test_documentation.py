"""The Python examples of the pages run as they stand, but for the addresses and the demo folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.demo_data import DemoFolder, ingest
from orrery import Client
from tests.conftest import REPOSITORY, Platform

pytestmark = pytest.mark.integration

_PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PLACEHOLDER = "/models/my-model"


def examples(page: str) -> list[str]:
    found: list[str] = _PYTHON.findall((REPOSITORY / page).read_text())
    return [code for code in found if _PLACEHOLDER not in code]


@pytest.fixture(scope="module")
def demo(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo folder, which is also a collection."""
    folder = DemoFolder.below(tmp_path_factory.mktemp("examples"))
    with Client(platform.grpc_target) as client:
        ingest(client, folder)
    return folder.documents


@pytest.mark.parametrize("page", ["README.md", "clients/README.md", "docs/client.md"])
def test_python_examples_of_a_page_run(
    page: str, platform: Platform, demo: Path, tmp_path: Path
) -> None:
    assert examples(page)
    for name in ("docs", "models"):  # what they read; what they write stays here
        (tmp_path / name).symlink_to(REPOSITORY / name)
    for code in examples(page):
        here = (
            code.replace("127.0.0.1:9000", platform.grpc_target)
            .replace("http://127.0.0.1:8000", platform.http_url)
            .replace("demo/documents", str(demo))
        )
        result = subprocess.run(
            [sys.executable, "-c", here],
            cwd=tmp_path,
            env={
                **os.environ,
                "ORRERY_TARGET": platform.grpc_target,
                "PYTHONPATH": str(REPOSITORY),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, f"{code}\n{result.stderr}"
        assert result.stdout.strip()

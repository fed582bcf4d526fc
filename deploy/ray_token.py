"""The token without which nobody reaches Ray's own ports, which accept code to run.

A platform on one machine makes its own, in its run folder. The nodes of one on several share the
file that `RAY_AUTH_TOKEN_PATH` names.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["TOKEN_PATH", "make_ray_token", "ray_token_environment"]

TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 - the name of a setting, Ray's own

_FILE_NAME = "ray-token"


def make_ray_token(run_dir: Path) -> None:
    """Writes the token of a platform that is given none; only its owner can read it."""
    if TOKEN_PATH in os.environ:
        return
    descriptor = os.open(run_dir / _FILE_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def ray_token_environment(run_dir: Path) -> dict[str, str]:
    """What Ray reads: every process of the platform, and whoever connects to it."""
    file = Path(os.environ.get(TOKEN_PATH, run_dir / _FILE_NAME))
    return {
        "RAY_AUTH_MODE": "token",
        # Replicas run in folders of their own, so the path must be absolute.
        TOKEN_PATH: str(file.absolute()),
        "RAY_AUTH_TOKEN": "",  # one for another cluster would go before the file
    }

"""The file that says which platform runs.

Written by `make up`, read by `make down` and `orrery status`.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

__all__ = ["PlatformState"]

FILE_NAME = "platform.json"


class PlatformState(BaseModel):
    """A running platform. Addresses are `host:port`.

    `session_pids_root`: the processes that it began with, which all others descend from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    platform_id: str
    http: str
    grpc: str
    metrics: str
    ray_address: str
    redis: str | None = None  # of the embedded one; None: REDIS_URL names another
    applications: tuple[str, ...]
    session_pids_root: tuple[int, ...]

    @classmethod
    def load(cls, data_dir: Path) -> PlatformState | None:
        """The state in this data folder, or None where no platform was started."""
        path = data_dir / FILE_NAME
        if not path.exists():
            return None
        return cls.model_validate(json.loads(path.read_text()))

    def save(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed: a reader never sees half a file.
        partial = data_dir / f"{FILE_NAME}.partial"
        partial.write_text(self.model_dump_json(indent=2) + "\n")
        partial.replace(data_dir / FILE_NAME)

    @staticmethod
    def remove(data_dir: Path) -> None:
        (data_dir / FILE_NAME).unlink(missing_ok=True)

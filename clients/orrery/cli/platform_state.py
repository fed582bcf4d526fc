"""The platform that was started from a data folder, as its launcher wrote it down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PlatformState", "read_platform_state"]

_FILE_NAME = "platform.json"


@dataclass(frozen=True, slots=True)
class PlatformState:
    """Where the platform listens (`host:port`) and the pids its processes descend from."""

    http: str
    grpc: str
    root_pids: tuple[int, ...]


def read_platform_state(data_dir: Path) -> PlatformState | None:
    """The state in `data_dir`, or None where no platform was started.

    Raises:
        ValueError: The file cannot be read, or is not what the launcher writes.
    """
    path = data_dir / _FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return PlatformState(
            http=str(content["http"]),
            grpc=str(content["grpc"]),
            root_pids=tuple(int(pid) for pid in content["session_pids_root"]),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the state of a platform: {error!r}") from error

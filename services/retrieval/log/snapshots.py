"""skeleton"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.retrieval.log.position import Position

__all__ = ["SnapshotInfo", "SnapshotStore"]


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot that was written: up to where in the log it holds everything, and how much."""

    position: Position
    num_collections: int
    num_documents: int
    num_chunks: int
    num_bytes: int


class SnapshotStore:
    """The snapshots in one folder, which all replicas of one log share."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder

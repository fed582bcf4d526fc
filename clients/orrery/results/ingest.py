"""What `ingest` tells while it runs and when it is done."""

from __future__ import annotations

from dataclasses import dataclass

from orrery.results.retrieval import UpsertStatus

__all__ = ["FileProblem", "IngestProgress", "IngestReport"]


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """One more file has been answered. `num_files` is how many were found."""

    num_done: int
    num_files: int
    document_id: str
    status: UpsertStatus


@dataclass(frozen=True, slots=True)
class FileProblem:
    """A file or folder that did not go in, and why; `reason` as in `orrery.errors`."""

    path: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the files; names are document ids, paths relative to the root.

    Attributes:
        failed: Files that were sent and could not be read by the service.
        skipped: Files and folders that were not sent.
        removed: Documents whose files are gone, where asked to remove them.
        num_chunks: Chunks of the files that are in the collection now.
        consistency_token: A read that brings it sees all of this.
    """

    collection: str
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    unchanged: tuple[str, ...]
    failed: tuple[FileProblem, ...]
    skipped: tuple[FileProblem, ...]
    removed: tuple[str, ...]
    num_chunks: int
    consistency_token: str
    duration_s: float

    @property
    def num_ingested(self) -> int:
        """Files that are in the collection now as they are on disk."""
        return len(self.added) + len(self.replaced) + len(self.unchanged)

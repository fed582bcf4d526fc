"""An immutable state of a collection's index: what readers search and look up documents in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.retrieval.types import (
    Chunk,
    DocumentInfo,
    Filter,
    Hit,
    Query,
    SearchOptions,
    Vectors,
)

__all__ = ["Generation", "StoredDocumentView"]


class StoredDocumentView:
    """A document of a generation; chunks and vectors are made when asked for."""

    info: DocumentInfo
    num_chunks: int

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        raise NotImplementedError

    @property
    def vectors(self) -> Vectors:
        raise NotImplementedError


class Generation:
    number: int
    num_documents: int
    num_chunks: int
    num_segments: int

    @property
    def memory_bytes(self) -> int:
        raise NotImplementedError

    @property
    def fields(self) -> Mapping[str, frozenset[str]]:
        raise NotImplementedError

    def get(self, document_id: str) -> StoredDocumentView | None:
        raise NotImplementedError

    def content_hash(self, document_id: str) -> str | None:
        raise NotImplementedError

    def document_ids(
        self,
        *,
        after: str = "",
        limit: int,
        filter: Filter | None = None,  # noqa: A002
    ) -> list[str]:
        raise NotImplementedError

    def matching_documents(self, filter: Filter) -> list[str]:  # noqa: A002
        """Ids, sorted, of the documents whose own metadata matches; chunks' metadata does not count."""
        raise NotImplementedError

    def candidates(
        self, queries: Sequence[Query], options: SearchOptions, *, limit: int | None = None
    ) -> list[list[Hit]]:
        """Best first. `limit`: make so many hits per query; None: `options.num_candidates`.

        `hits_needed(options, reranks=...)` says how many a search needs.
        """
        raise NotImplementedError

    def select(self, hits: list[Hit], options: SearchOptions) -> list[Hit]:
        raise NotImplementedError

    def check_filter(self, filter: Filter) -> None:  # noqa: A002
        raise NotImplementedError

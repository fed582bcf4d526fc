"""Joins concurrent searches of one generation with equal options into one batch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from services.retrieval.index.generation import Generation
from services.retrieval.types import Hit, Query, SearchOptions

__all__ = ["SearchBatcher"]


class SearchBatcher:
    def __init__(
        self,
        run_in: Executor,
        *,
        max_batch: int = 64,
        max_waiting: int = 1024,
        on_batch: Callable[[int, float], None] | None = None,  # (searches, seconds)
    ) -> None:
        raise NotImplementedError

    @property
    def num_waiting(self) -> int:
        raise NotImplementedError

    @property
    def num_running(self) -> int:
        raise NotImplementedError

    async def search(
        self,
        generation: Generation,
        query: Query,
        options: SearchOptions,
        *,
        limit: int | None = None,
    ) -> list[Hit]:
        """`Generation.candidates` of one query. Overloaded beyond `max_waiting`."""
        raise NotImplementedError

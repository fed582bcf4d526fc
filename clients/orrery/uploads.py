"""One upload of documents, result by result: `UpsertStream`, and `AsyncUpsertStream`.

Both begin when the first result is asked for, and cancel what is under way when they are left
before the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import Self

from orrery.async_connection import AsyncConnection
from orrery.connection import Connection
from orrery.documents import DocumentSource
from orrery.effects import ExchangeSteps
from orrery.exchange import AsyncExchange, Exchange
from orrery.results import UpsertReport, UpsertResult

__all__ = ["AsyncUpsertStream", "UpsertStream"]


class UpsertStream:
    """What becomes of each document, as an iterator and a context manager."""

    def __init__(
        self,
        connection: Connection,
        steps: ExchangeSteps[None],
        documents: Iterable[DocumentSource],
    ) -> None:
        self._exchange = Exchange(connection, steps, documents)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> UpsertResult:
        result: UpsertResult = next(self._exchange)
        return result

    def report(self) -> UpsertReport:
        """Reads the rest; returns the results that were not read before."""
        return _report_of(list(self))

    def close(self) -> None:
        """Ends the upload. Documents in flight may or may not be written."""
        self._exchange.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncUpsertStream:
    """What becomes of each document, as an async iterator and an async context manager."""

    def __init__(
        self,
        connection: AsyncConnection,
        steps: ExchangeSteps[None],
        documents: Iterable[DocumentSource] | AsyncIterable[DocumentSource],
    ) -> None:
        self._exchange = AsyncExchange(connection, steps, documents)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> UpsertResult:
        result: UpsertResult = await anext(self._exchange)
        return result

    async def report(self) -> UpsertReport:
        """Reads the rest; returns the results that were not read before."""
        return _report_of([result async for result in self])

    async def aclose(self) -> None:
        """Ends the upload. Documents in flight may or may not be written."""
        await self._exchange.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _report_of(results: list[UpsertResult]) -> UpsertReport:
    """The results together, with the last token among them."""
    tokens = [result.consistency_token for result in results if result.consistency_token]
    return UpsertReport(tuple(results), tokens[-1] if tokens else "")

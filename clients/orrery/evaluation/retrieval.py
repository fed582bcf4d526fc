"""Asks queries of a collection, in each mode of searching, and measures the rankings."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean

from orrery.client import Client
from orrery.errors import InvalidRequestError, OrreryError
from orrery.evaluation.datasets import RetrievalCase, RetrievalDataset
from orrery.evaluation.rankings import ndcg_at, recall_at, reciprocal_rank_at
from orrery.requests.embedding import RerankMethod
from orrery.requests.search import SearchMode
from orrery.results import Hit

__all__ = ["RetrievalScores", "evaluate_retrieval", "score_rankings", "scratch_collection"]

_DEPTH = 10
_QUERIES_AT_ONCE = 32
_Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Averages over all queries, for one mode of searching."""

    mode: str
    num_queries: int
    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mrr_at_10: float
    ndcg_at_10: float


def evaluate_retrieval(
    client: Client,
    cases: Sequence[RetrievalCase],
    collection: str,
    mode: SearchMode,
    *,
    rerank: RerankMethod | None = None,
    concurrency: int = 2,
    progress: _Progress = lambda _: None,
) -> RetrievalScores:
    """Searches for every query; `progress` is told how many more are done.

    Raises:
        OrreryError: A search failed.
    """
    batches = [cases[i : i + _QUERIES_AT_ONCE] for i in range(0, len(cases), _QUERIES_AT_ONCE)]

    def rankings(batch: Sequence[RetrievalCase]) -> list[list[str]]:
        result = client.search_batch(
            collection,
            [case.query for case in batch],
            k=_DEPTH,
            mode=mode,
            rerank=rerank,
            max_per_document=1,
            include_text=False,
        )
        progress(len(batch))
        return [_documents(hits) for hits in result.results]

    with ThreadPoolExecutor(concurrency) as pool:
        found = [ranking for batch in pool.map(rankings, batches) for ranking in batch]
    return score_rankings(mode, found, cases)


def score_rankings(
    mode: str, rankings: Sequence[Sequence[str]], cases: Sequence[RetrievalCase]
) -> RetrievalScores:
    """The averages of all measures."""
    pairs = [(r, case.relevant) for r, case in zip(rankings, cases, strict=True)]
    return RetrievalScores(
        mode=mode,
        num_queries=len(pairs),
        recall_at_1=fmean(recall_at(1, *pair) for pair in pairs),
        recall_at_5=fmean(recall_at(5, *pair) for pair in pairs),
        recall_at_10=fmean(recall_at(10, *pair) for pair in pairs),
        mrr_at_10=fmean(reciprocal_rank_at(10, *pair) for pair in pairs),
        ndcg_at_10=fmean(ndcg_at(10, *pair) for pair in pairs),
    )


@contextmanager
def scratch_collection(
    client: Client, dataset: RetrievalDataset, progress: _Progress = lambda _: None
) -> Iterator[str]:
    """A collection of the data set's own documents, which is deleted in the end.

    Raises:
        InvalidRequestError: The service could not read one of them.
    """
    name = f"eval-{secrets.token_hex(6)}"
    client.collections.create(name, title="made by orrery eval")
    try:
        with client.documents.upsert_stream(name, dataset.documents) as results:
            for result in results:
                if result.error is not None:
                    raise InvalidRequestError(
                        f"{result.document_id}: {result.error.message}", field="dataset"
                    ) from result.error
                progress(1)
        yield name
    finally:
        client.collections.delete(name)


def _documents(hits: tuple[Hit, ...] | OrreryError) -> list[str]:
    if isinstance(hits, OrreryError):
        raise hits
    return list(dict.fromkeys(hit.chunk.document_id for hit in hits))

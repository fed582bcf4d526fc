"""Recall on real questions: XQuAD's 1190 over its 240 paragraphs, through the whole service."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from orrery.v1 import retrieval_pb2 as pb
from tests.contract.retrieval_served import ServedRetrieval, text

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "xquad-en" / "xquad.en.json"


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_hybrid_search_finds_the_paragraph_of_a_question(
    retrieval: ServedRetrieval, capsys: pytest.CaptureFixture[str]
) -> None:
    if not DATA.exists():
        pytest.skip("shared/data/xquad-en is not beside the repository")
    paragraphs, questions = _questions()
    name = await retrieval.collection()
    token = await retrieval.put(name, [text(key, words) for key, words in paragraphs.items()])
    ranks: list[int | None] = []
    for start in range(0, len(questions), 128):
        part = questions[start : start + 128]
        request = pb.SearchBatchRequest(
            collection=name,
            queries=[pb.SearchQuery(text=question) for question, _ in part],
            options=pb.SearchOptions(k=50, include_text=False),
            consistency_token=token,
        )
        response = await retrieval.stub.SearchBatch(request, metadata=retrieval.metadata)
        for result, (_, expected) in zip(response.results, part, strict=True):
            ranks.append(_rank([hit.chunk.document_id for hit in result.hits], expected))
    recall_1, recall_5, mrr = _recall(ranks, 1), _recall(ranks, 5), _mrr(ranks, 10)
    with capsys.disabled():
        sys.stdout.write(
            f"\nXQuAD, {len(questions)} questions, {len(paragraphs)} paragraphs, hybrid: "
            f"recall@1 {recall_1:.3f}, recall@5 {recall_5:.3f}, MRR@10 {mrr:.3f}\n"
        )
    assert recall_1 >= 0.92
    assert recall_5 >= 0.99
    assert mrr >= 0.95


def _questions() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Paragraphs by id, and questions with the id of the paragraph that answers them."""
    paragraphs: dict[str, str] = {}
    questions: list[tuple[str, str]] = []
    for article in json.loads(DATA.read_text(encoding="utf-8"))["data"]:
        for number, paragraph in enumerate(article["paragraphs"]):
            key = f"{article['title']}/{number}"
            paragraphs[key] = paragraph["context"]
            questions += [(asked["question"], key) for asked in paragraph["qas"]]
    return paragraphs, questions


def _rank(found: list[str], expected: str) -> int | None:
    """From 1, among documents: several chunks of one count once."""
    documents = list(dict.fromkeys(found))
    return documents.index(expected) + 1 if expected in documents else None


def _recall(ranks: list[int | None], k: int) -> float:
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks)


def _mrr(ranks: list[int | None], k: int) -> float:
    return sum(1 / rank for rank in ranks if rank is not None and rank <= k) / len(ranks)

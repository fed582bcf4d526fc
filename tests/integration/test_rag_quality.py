"""How well questions on the demo world's documents are answered, over the real services.

The whole chain in this process: documents read and cut, embedded by the default model, searched,
and answered by the demo LLaMA. The entities never occur in its training.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from orrery.v1 import rag_pb2 as pb
from orrery.v1 import retrieval_pb2
from orrery.v1.rag_pb2_grpc import RagServiceStub
from orrery.v1.retrieval_pb2_grpc import RetrievalServiceStub
from services.generation.config import GenerationConfig
from services.generation.native import NativeBackend
from services.runtime.metrics import PrometheusRegistry
from tests.contract.conftest import CONFIG
from tests.fakes.rag_stack import RagStack, rag_stack
from training.demo_documents import DOCUMENTS, QUESTIONS, write_demo

COLLECTION = "demo"
NUM_QUESTIONS_PER_CALL = 128


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    answer: str | None  # None: the documents do not say
    document_id: str | None
    entity: str


@pytest.mark.slow
async def test_demo_worlds_questions_are_answered_with_the_right_citations(tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    write_demo(demo)
    questions = _questions(demo / QUESTIONS)
    answerable = [question for question in questions if question.answer is not None]
    unanswerable = [question for question in questions if question.answer is None]
    assert len(answerable) + len(unanswerable) >= 300
    backend = await _backend(CONFIG)
    try:
        async with rag_stack(tmp_path, backend, CONFIG, model=True) as stack:
            await _ingest(stack, demo / DOCUMENTS)
            answered = await _ask(stack, answerable, pb.AskOptions())
            refused = await _ask(stack, unanswerable, pb.AskOptions())
            bare = pb.AskOptions(mode=pb.ANSWER_MODE_OPEN, max_passages=0)
            unaided = await _ask(stack, answerable, bare)
    finally:
        await backend.close()

    cited = [*_citations(answerable, answered), *_citations(unanswerable, refused)]
    abstained = [item.result.abstention != 0 for item in refused]
    figures = {
        "exact match": _share(_exact(answerable, answered)),
        "exact match without documents": _share(_exact(answerable, unaided)),
        "abstention": _share(abstained),
        "citation precision": _share(cited),
        "answers cited": len(cited) / sum(_exact(answerable, answered)),
    }
    print(figures)  # noqa: T201 - `pytest -s` shows what was measured
    assert figures["exact match"] >= 0.85
    assert figures["exact match without documents"] <= 0.05
    assert figures["abstention"] >= 0.85
    assert figures["citation precision"] >= 0.95
    assert figures["answers cited"] >= 0.95


def _questions(path: Path) -> list[Question]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Question(line["question"], line["answer"], line["document_id"], line["entity"])
        for line in lines
    ]


async def _backend(config: GenerationConfig) -> NativeBackend:
    registry = PrometheusRegistry({"service": "generation", "model": config.model_name})
    with ThreadPoolExecutor(max_workers=1) as elsewhere:  # loading must not block the loop
        starting = NativeBackend.start(config, config.model_path, registry)
        return await asyncio.wrap_future(elsewhere.submit(asyncio.run, starting))


async def _ingest(stack: RagStack, folder: Path) -> None:
    stub = RetrievalServiceStub(stack.retrieval)
    await stub.CreateCollection(retrieval_pb2.CreateCollectionRequest(name=COLLECTION))
    token = ""
    async for answer in stub.Upsert(_uploads(folder)):
        assert not answer.HasField("error"), answer
        token = answer.consistency_token
    await stub.GetCollection(
        retrieval_pb2.GetCollectionRequest(name=COLLECTION, consistency_token=token)
    )


def _uploads(folder: Path) -> Iterator[retrieval_pb2.UpsertRequest]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        file = retrieval_pb2.FileContent(data=path.read_bytes(), name=name)
        document = retrieval_pb2.Document(id=name, file=file)
        yield retrieval_pb2.UpsertRequest(collection=COLLECTION, document=document)


async def _ask(
    stack: RagStack, questions: list[Question], options: pb.AskOptions
) -> list[pb.AskBatchItem]:
    items: list[pb.AskBatchItem] = []
    for start in range(0, len(questions), NUM_QUESTIONS_PER_CALL):
        texts = [question.text for question in questions[start : start + NUM_QUESTIONS_PER_CALL]]
        request = pb.AskBatchRequest(questions=texts, collection=COLLECTION, options=options)
        response = await RagServiceStub(stack.rag).AskBatch(request)
        items += response.items
    assert not any(item.HasField("error") for item in items)
    return items


def _exact(questions: list[Question], items: list[pb.AskBatchItem]) -> list[bool]:
    return [
        item.result.answer == question.answer
        for question, item in zip(questions, items, strict=True)
    ]


def _citations(questions: list[Question], items: list[pb.AskBatchItem]) -> list[bool]:
    """Of every citation, whether it is right: the document, and words that hold the answer."""
    return [
        question.answer is not None
        and citation.document_id == question.document_id
        and question.answer in " ".join(citation.quote.split())
        and question.entity in item.passages.hits[citation.passage].chunk.text
        for question, item in zip(questions, items, strict=True)
        for citation in item.result.citations
    ]


def _share(correct: list[bool]) -> float:
    return sum(correct) / len(correct)

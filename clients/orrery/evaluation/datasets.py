"""Reads what is asked: JSON lines, and SQuAD's format. Knows nothing of the platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orrery.documents import Document
from orrery.errors import InvalidRequestError

__all__ = ["Question", "RetrievalCase", "RetrievalDataset", "load_questions", "load_retrieval"]


@dataclass(frozen=True, slots=True)
class RetrievalCase:
    """A query, and the ids of the documents that should be found."""

    query: str
    relevant: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetrievalDataset:
    """Queries; and the documents that they are about, where the file has them."""

    cases: tuple[RetrievalCase, ...]
    documents: tuple[Document, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A question. `answer` None = the documents do not tell.

    Attributes:
        document_id: The document that tells; empty = unknown, or none does.
        kind: A class of questions that is also reported by itself; may be empty.
    """

    question: str
    answer: str | None
    document_id: str = ""
    kind: str = ""


def load_retrieval(path: Path) -> RetrievalDataset:
    """Queries, from `{"query": ..., "relevant": [ids]}` line by line or from a SQuAD file.

    In SQuAD's format each paragraph is a document, relevant to the questions asked of it.

    Raises:
        InvalidRequestError: The file is neither; the message says where.
    """
    text = _read(path)
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        whole = None
    if isinstance(whole, dict) and "data" in whole:
        return _squad(whole, path)
    cases = []
    for number, row in _rows(text, path):
        query, relevant = row.get("query"), row.get("relevant")
        named = isinstance(relevant, list) and all(isinstance(each, str) for each in relevant)
        if not isinstance(query, str) or not named or not relevant:
            raise _wrong(path, number, '"query" and "relevant", a list of document ids')
        cases.append(RetrievalCase(query, tuple(relevant)))
    return RetrievalDataset(_some(cases, path))


def load_questions(path: Path) -> tuple[Question, ...]:
    """Questions with answers, line by line.

    Fields: `question`, `answer` (null = unanswerable), and optionally `document_id` and `kind`.

    Raises:
        InvalidRequestError: The file is not of this kind; the message says where.
    """
    questions = []
    for number, row in _rows(_read(path), path):
        answer = row.get("answer")
        others = [row.get(name) or "" for name in ("document_id", "kind")]
        texts = [row.get("question"), *others, *([] if answer is None else [answer])]
        if "answer" not in row or not all(isinstance(text, str) for text in texts):
            raise _wrong(path, number, '"question" and "answer", a text or null')
        questions.append(Question(row["question"], answer, *others))
    return _some(questions, path)


def _squad(whole: dict[str, Any], path: Path) -> RetrievalDataset:
    documents: list[Document] = []
    cases: list[RetrievalCase] = []
    try:
        for a, article in enumerate(whole["data"]):
            title = str(article.get("title", "")).replace("_", " ")
            for p, paragraph in enumerate(article["paragraphs"]):
                document = Document(f"{a:03}-{p:03}", str(paragraph["context"]), title=title)
                documents.append(document)
                cases += [
                    RetrievalCase(str(qa["question"]), (document.id,)) for qa in paragraph["qas"]
                ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidRequestError(
            f"{path}: expected SQuAD's format (data, paragraphs, context, qas, question): "
            f"{error!r}",
            field="dataset",
        ) from error
    return RetrievalDataset(_some(cases, path), tuple(documents))


def _rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # Not `splitlines`: within a JSON text there may be other ends of lines, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            raise _wrong(path, number, "a JSON object")
        yield number, row


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path}: cannot be read: {error}", field="dataset") from error


def _some(found: list[Any], path: Path) -> tuple[Any, ...]:
    if not found:
        raise InvalidRequestError(f"{path}: has no questions", field="dataset")
    return tuple(found)


def _wrong(path: Path, number: int, expected: str) -> InvalidRequestError:
    return InvalidRequestError(f"{path}:{number}: expected {expected}", field="dataset")

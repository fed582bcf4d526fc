"""Asks questions of a collection, or of the bare model, and measures the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean

from orrery.client import Client
from orrery.errors import OrreryError
from orrery.evaluation.answers import exact_match, token_f1
from orrery.evaluation.datasets import Question
from orrery.requests.rag import AskOptions

__all__ = ["Outcome", "RagScores", "ask_all", "ask_without_documents", "score_answers"]

_Progress = Callable[[int], object]
_BARE_MAX_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one question. `error` = it was not answered at all."""

    question: Question
    text: str
    abstained: bool
    cited: tuple[str, ...]  # document of each citation
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RagScores:
    """Averages over the questions; None = there is no question of the kind.

    Attributes:
        exact_match: Share of the answerable questions that are answered rightly, word for word.
        token_f1: The same by shared words.
        false_abstention: Share of the answerable ones that are not answered.
        abstention: Share of the unanswerable ones that are not answered.
        abstention_by_kind: The same, for each kind of them.
        citation_precision: Share of the citations, over answerable questions with a known
            document, that cite it.
        citation_recall: Share of these questions whose document is cited.
        num_errors: Questions that ended with an error; they count as answered wrongly.
        median_s: Time of a question, as the caller saw it.
    """

    num_questions: int
    num_answerable: int
    num_errors: int
    exact_match: float | None
    token_f1: float | None
    false_abstention: float | None
    abstention: float | None
    abstention_by_kind: dict[str, float]
    citation_precision: float | None
    citation_recall: float | None
    median_s: float
    p95_s: float


def ask_all(
    client: Client,
    questions: Sequence[Question],
    collection: str,
    *,
    model: str | None = None,
    options: AskOptions | None = None,
    concurrency: int = 4,
    progress: _Progress = lambda _: None,
) -> list[Outcome]:
    """Asks every question of the documents, in order. An error counts against its question.

    Raises:
        OrreryError: The first question was not answered: so would be all others.
    """

    def ask(question: Question) -> Outcome:
        began = time.monotonic()
        answer = client.ask(
            question.question, collection=collection, model=model, **(options or {})
        )
        cited = tuple(citation.document_id for citation in answer.citations)
        seconds = time.monotonic() - began
        return Outcome(question, answer.text, answer.abstained, cited, seconds)

    return _all(ask, questions, concurrency, progress)


def ask_without_documents(
    client: Client,
    questions: Sequence[Question],
    *,
    model: str | None = None,
    concurrency: int = 4,
    progress: _Progress = lambda _: None,
) -> list[Outcome]:
    """Asks every question of the bare model, which has no abstention of its own.

    Raises:
        OrreryError: As `ask_all`.
    """

    def ask(question: Question) -> Outcome:
        began = time.monotonic()
        result = client.generate(
            [{"role": "user", "content": question.question}],
            model=model,
            max_tokens=_BARE_MAX_TOKENS,
            temperature=0,
        )
        return Outcome(question, result.text, False, (), time.monotonic() - began)

    return _all(ask, questions, concurrency, progress)


def score_answers(outcomes: Sequence[Outcome]) -> RagScores:
    """The averages of all measures; there must be an outcome."""
    answerable = [each for each in outcomes if each.question.answer is not None]
    unanswerable = [each for each in outcomes if each.question.answer is None]
    located = [each for each in answerable if each.question.document_id]
    citations = [
        document == each.question.document_id for each in located for document in each.cited
    ]
    kinds = sorted({each.question.kind for each in unanswerable if each.question.kind})
    seconds = sorted(each.seconds for each in outcomes)
    return RagScores(
        num_questions=len(outcomes),
        num_answerable=len(answerable),
        num_errors=sum(each.error is not None for each in outcomes),
        exact_match=_mean([_is_right(each) for each in answerable]),
        token_f1=_mean([_f1(each) for each in answerable]),
        false_abstention=_mean([each.abstained for each in answerable]),
        abstention=_mean([each.abstained for each in unanswerable]),
        abstention_by_kind={
            kind: fmean(each.abstained for each in unanswerable if each.question.kind == kind)
            for kind in kinds
        },
        citation_precision=_mean(citations),
        citation_recall=_mean([each.question.document_id in each.cited for each in located]),
        median_s=_quantile(seconds, 0.5),
        p95_s=_quantile(seconds, 0.95),
    )


def _is_right(outcome: Outcome) -> bool:
    assert outcome.question.answer is not None
    if outcome.abstained or outcome.error is not None:
        return False
    return exact_match(outcome.text, outcome.question.answer)


def _f1(outcome: Outcome) -> float:
    assert outcome.question.answer is not None
    if outcome.abstained or outcome.error is not None:
        return 0.0
    return token_f1(outcome.text, outcome.question.answer)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _all(
    ask: Callable[[Question], Outcome],
    questions: Sequence[Question],
    concurrency: int,
    progress: _Progress,
) -> list[Outcome]:
    def settled(question: Question) -> Outcome:
        began = time.monotonic()
        try:
            return ask(question)
        except OrreryError as error:
            told = f"{error.reason}: {error.message}"
            return Outcome(question, "", False, (), time.monotonic() - began, told)
        finally:
            progress(1)

    first = ask(questions[0])  # no such collection, nobody there: asking on makes no sense
    progress(1)
    with ThreadPoolExecutor(concurrency) as pool:
        return [first, *pool.map(settled, questions[1:])]

"""What is searched for: the question in the light of its conversation, and rankings made one.

Knows nothing of how models are called.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from services.rag.types import Passage, Turn, Vector

__all__ = ["fuse", "joined_question", "mean_vector", "refers_back", "wordings_of"]

MAX_JOINED_QUESTIONS = 3
RRF_K = 20  # as the retrieval service's

_PRONOUNS = frozenset((
    "he", "she", "it", "they", "him", "her", "them", "his", "hers", "its", "their", "theirs",
    "this", "that", "these", "those", "there", "then", "former", "latter", "same",
))  # fmt: skip
_WORD = re.compile(r"[\w'’-]+")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s*")


def refers_back(question: str) -> bool:
    """Whether a question (in English) seems to need the one before it.

    It does if it has a pronoun, or names nothing: no word but the first begins with a capital or
    a digit.
    """
    found = _WORD.findall(question)
    if any(word.casefold() in _PRONOUNS for word in found):
        return True
    return not any(word[0].isupper() or word[0].isdigit() for word in found[1:])


def joined_question(question: str, history: Sequence[Turn]) -> str:
    """The question with those before it that it refers back to, for models that cannot rewrite.

    Going back ends at the first that stands on its own.
    """
    joined = [question]
    for turn in reversed(history):
        if not refers_back(joined[0]) or len(joined) == MAX_JOINED_QUESTIONS:
            break
        joined.insert(0, turn.question)
    return " ".join(joined)


def wordings_of(reply: str, question: str, count: int) -> list[str]:
    """The wordings in a model's reply, one on each line, without the question's own."""
    lines = (_BULLET.sub("", line).strip() for line in reply.splitlines())
    different = dict.fromkeys(line for line in lines if line and line != question)
    return list(different)[:count]


def mean_vector(vectors: Sequence[Vector]) -> list[float]:
    """The normalised mean, `[dimensions]` (Gao et al. 2022, equation 8)."""
    mean = [sum(values) / len(vectors) for values in zip(*vectors, strict=True)]
    length = math.sqrt(sum(value * value for value in mean))
    return [value / length for value in mean] if length else mean


def fuse(rankings: Sequence[Sequence[Passage]], k: int) -> list[Passage]:
    """The best `k` of several rankings, by reciprocal rank (Cormack et al. 2009).

    One ranking stays as it is; of several, a passage's score becomes the fused one.
    """
    if len(rankings) == 1:
        return list(rankings[0][:k])
    scores: dict[str, float] = {}
    passages: dict[str, Passage] = {}
    for ranking in rankings:
        for rank, passage in enumerate(ranking, start=1):
            passages.setdefault(passage.chunk_id, passage)
            scores[passage.chunk_id] = scores.get(passage.chunk_id, 0.0) + 1 / (RRF_K + rank)
    best = sorted(scores, key=lambda chunk_id: (-scores[chunk_id], chunk_id))[:k]
    return [replace(passages[chunk_id], score=scores[chunk_id]) for chunk_id in best]

"""Self-consistency (Wang et al. 2022): of several answers, the one that most samples give.

Answers are compared as SQuAD compares them: without case, articles and punctuation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Vote", "normalised", "vote"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = re.compile(r"[^\w\s]")


@dataclass(frozen=True, slots=True)
class Vote:
    """Which sample won, and the share of the samples that say the same."""

    winner: int
    agreement: float


def normalised(answer: str) -> str:
    """The answer as it is compared. One of nothing but articles and punctuation stays as it is."""
    plain = _PUNCTUATION.sub(" ", answer.casefold())
    return " ".join(_ARTICLES.sub(" ", plain).split()) or " ".join(answer.casefold().split())


def vote(answers: Sequence[str]) -> Vote:
    """The most frequent answer; of those as frequent, the one that was drawn first.

    A sample without an answer, whose reasoning found no end, has no vote; its share is nobody's.
    """
    keys = [normalised(answer) for answer in answers]
    counts = Counter(filter(None, keys)) or Counter(keys)
    winner = max(range(len(keys)), key=lambda index: (counts[keys[index]], -index))
    return Vote(winner, counts[keys[winner]] / len(keys))

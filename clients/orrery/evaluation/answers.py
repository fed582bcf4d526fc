"""Measures of an answer beside the one that is right.

Answers are compared as SQuAD's are (Rajpurkar et al. 2016): without case, punctuation, articles
and superfluous space.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

__all__ = ["exact_match", "normalized", "token_f1"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """What of a text counts."""
    lowered = unicodedata.normalize("NFC", text).lower()
    # As SQuAD's own script: punctuation vanishes without leaving a space ("U.S." is "us"). That
    # script means ASCII's, signs such as $ included; to which Unicode's is added here.
    bare = "".join(c for c in lowered if not _is_punctuation(c))
    return " ".join(_ARTICLES.sub(" ", bare).split())


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def exact_match(answer: str, right: str) -> bool:
    """Whether they are the same."""
    return normalized(answer) == normalized(right)


def token_f1(answer: str, right: str) -> float:
    """Harmonic mean of precision and recall of the words."""
    given, wanted = normalized(answer).split(), normalized(right).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = (Counter(given) & Counter(wanted)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)

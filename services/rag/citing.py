"""Finds the words of the passages that support each sentence of an answer.

A sentence of a passage supports one of the answer by what it covers of its words, rare words
counting more; a literal piece of it is covered whole. Between sentences that support it alike
decides how far they, with the passage's title, are about the question. Where the model names the
passages itself, only those are looked at. All is done on the passages' source text, so that
offsets and quotes are exact. Knows nothing of models and prompts.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from services.rag.prompts.passages import joined_lines, title_of
from services.rag.prompts.style import Marker
from services.rag.sentences import Span, sentences, words
from services.rag.types import Citation, Passage

__all__ = ["cite"]

# What a sentence must cover to be cited; less where the model itself says that it supports.
MIN_SUPPORT = 0.6
MIN_MARKED_SUPPORT = 0.2
# Of the score, how much is relevance to the question.
RELEVANCE_SHARE = 0.3
# Two sentences together are quoted only where they cover so much more than the better one.
MIN_GAIN_OF_TWO = 0.15
# A number that the passage does not have is most likely wrong, however much else is covered.
MISSING_NUMBER_PENALTY = 0.5
VERDICTS = frozenset(("yes", "no", "true", "false", "oui", "non", "ja", "nein", "sí", "si", "sì"))

# As the retrieval service counts lines.
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One or two neighbouring sentences of a passage."""

    passage: int  # index into the passages found
    span: Span
    keys: tuple[str, ...]
    given: frozenset[str]  # the same, to look up in
    num_sentences: int


@dataclass(frozen=True, slots=True)
class _Scored:
    candidate: _Candidate
    score: float

    @property
    def rank(self) -> float:
        """The score, less what two sentences must gain over one to be quoted."""
        return self.score - MIN_GAIN_OF_TWO * (self.candidate.num_sentences - 1)


class _Weights:
    """How much a word tells: more, the fewer sentences have it (Sparck Jones 1972)."""

    def __init__(self, candidates: Sequence[_Candidate]) -> None:
        single = [candidate for candidate in candidates if candidate.num_sentences == 1]
        counts = Counter(key for candidate in single for key in candidate.given)
        self._unknown = self._weight(0, len(single))
        self._known = {key: self._weight(count, len(single)) for key, count in counts.items()}

    @staticmethod
    def _weight(count: int, num_sentences: int) -> float:
        return math.log(1 + (num_sentences + 1) / (count + 0.5))

    def of(self, key: str) -> float:
        return self._known.get(key, self._unknown)

    def coverage(self, wanted: Set[str], given: Set[str]) -> float:
        """The weight of what is given among what is wanted; 0 where nothing is wanted."""
        whole = sum(map(self.of, wanted))
        return sum(map(self.of, wanted & given)) / whole if whole else 0.0


def cite(
    answer: str,
    question: str,
    passages: Sequence[Passage],
    used: Sequence[int],
    markers: Sequence[Marker] = (),
    names: Set[str] = frozenset(),
) -> list[Citation]:
    """The citations of an answer, in its order; sentences that nothing supports have none.

    `used` are the indexes of the passages that the model saw; `markers` number them from 1. Only
    passages that have all `names`, in title or text, are cited.
    """
    naming = {index for index in used if names <= _words_of(passages[index])}
    candidates = [c for index in sorted(naming) for c in _candidates(index, passages[index])]
    finder = _Finder(question, {index: passages[index] for index in used}, candidates)
    citations: list[Citation] = []
    for sentence in sentences(answer):
        marked = _marked(sentence, markers, used)
        text = answer[sentence.start : sentence.end]
        found = [finder.best(text, {index}, marked=True) for index in marked]
        if not any(found):
            found = [finder.best(text, naming, marked=False)]
        for scored in found:
            if scored is not None:
                index = scored.candidate.passage
                citations.append(_citation(sentence, scored, passages[index]))
    return citations


def _words_of(passage: Passage) -> set[str]:
    return {word.key for text in (title_of(passage), passage.text) for word in words(text)}


class _Finder:
    """Scores the sentences of the passages for one question."""

    def __init__(
        self, question: str, passages: Mapping[int, Passage], candidates: list[_Candidate]
    ) -> None:
        self._candidates = candidates
        self._weights = _Weights(candidates)
        self._question = {word.key for word in words(question)}
        self._titles = {
            index: {word.key for word in words(title_of(passage))}
            for index, passage in passages.items()
        }

    def best(self, text: str, among: set[int], *, marked: bool) -> _Scored | None:
        """What supports `text` best in the passages `among`; None if nothing does enough."""
        keys = tuple(word.key for word in words(text))
        if not keys:
            return None
        is_verdict = marked and VERDICTS.issuperset(keys)
        best: _Scored | None = None
        for candidate in self._candidates:
            if candidate.passage not in among:
                continue
            if is_verdict:
                score = self._verdict_score(candidate)
            else:
                score = self._score(keys, candidate, marked=marked)
            scored = _Scored(candidate, score)
            if score and (best is None or scored.rank > best.rank):
                best = scored
        return best

    def _score(self, keys: tuple[str, ...], candidate: _Candidate, *, marked: bool) -> float:
        """How well it supports the words; 0 if not enough."""
        if candidate.given.isdisjoint(keys):
            return 0.0
        support = self._support(keys, candidate)
        if support < (MIN_MARKED_SUPPORT if marked else MIN_SUPPORT):
            return 0.0
        relevance = self._relevance(set(keys), candidate)
        return support * (1 - RELEVANCE_SHARE + RELEVANCE_SHARE * relevance)

    def _verdict_score(self, candidate: _Candidate) -> float:
        """The passage need not have the word: what "yes" stands on is what was asked about."""
        relevance = self._relevance(set(), candidate)
        return relevance if relevance >= MIN_MARKED_SUPPORT else 0.0

    def _support(self, keys: tuple[str, ...], candidate: _Candidate) -> float:
        if _contains(candidate.keys, keys):
            return 1.0
        support = self._weights.coverage(set(keys), candidate.given)
        if any(key[0].isdigit() and key not in candidate.given for key in keys):
            support *= MISSING_NUMBER_PENALTY
        return support

    def _relevance(self, answer: set[str], candidate: _Candidate) -> float:
        title = self._titles[candidate.passage]
        named = self._weights.coverage(title, self._question)
        asked = self._weights.coverage(self._question - answer, candidate.given | title)
        return (named + asked) / 2


def _candidates(index: int, passage: Passage) -> Iterator[_Candidate]:
    """Each sentence, but for headings, and each two neighbours."""
    titles = {joined_lines(title) for title in (*passage.title_path, passage.document_title)}
    spans = sentences(passage.text)
    bodies = [span for span in spans if not _is_heading(passage.text, span, titles)]
    single = [_candidate(index, passage.text, span, 1) for span in bodies or spans]
    yield from single
    for first, second in itertools.pairwise(single):
        both = Span(first.span.start, second.span.end)
        yield _candidate(index, passage.text, both, 2)


def _candidate(index: int, text: str, span: Span, num_sentences: int) -> _Candidate:
    keys = tuple(word.key for word in words(text, span))
    return _Candidate(index, span, keys, frozenset(keys), num_sentences)


def _is_heading(text: str, span: Span, titles: set[str]) -> bool:
    line = text[span.start : span.end]
    return joined_lines(line.lstrip("#")) in titles


def _marked(sentence: Span, markers: Sequence[Marker], used: Sequence[int]) -> list[int]:
    """The passages that the model names for a sentence: a marker belongs to what is before it."""
    numbers = [
        number
        for marker in markers
        if sentence.start < marker.position <= sentence.end
        for number in marker.numbers
    ]
    return [used[number - 1] for number in dict.fromkeys(numbers) if 1 <= number <= len(used)]


def _contains(keys: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    length = len(wanted)
    return any(keys[at : at + length] == wanted for at in range(len(keys) - length + 1))


def _citation(sentence: Span, scored: _Scored, passage: Passage) -> Citation:
    span = scored.candidate.span
    return Citation(
        answer_start=sentence.start,
        answer_end=sentence.end,
        passage=scored.candidate.passage,
        source_start=passage.start + span.start,
        source_end=passage.start + span.end,
        line_start=_line(passage, span.start),
        line_end=_line(passage, span.end),
        quote=passage.text[span.start : span.end],
        score=min(1.0, max(0.0, scored.score)),
    )


def _line(passage: Passage, offset: int) -> int:
    """The line of the file on which a character of the passage stands; 0 = it has no lines."""
    if not passage.line_start:
        return 0
    line = passage.line_start + len(_LINE_END.findall(passage.text, 0, offset))
    # Where the text was taken out of markup its line breaks are not the file's.
    return min(line, passage.line_end) if passage.line_end else line

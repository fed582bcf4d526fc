"""What of a chunk is searched, and how text becomes terms.

The same text is embedded and tokenised, so that both rankings see a chunk's title.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import cache, lru_cache

import Stemmer
from bm25s import stopwords as stopword_lists

from services.retrieval.types import Chunk, DocumentInfo

__all__ = ["Analyzer", "chunk_search_text", "supported_languages"]

NO_LANGUAGE = "none"
# Two forms of English and Dutch that newer algorithms of the same family replace.
_SUPERSEDED = frozenset({"porter", "dutch_porter"})
_WORD = re.compile(r"\w\w+")  # what bm25s's default finds
_CACHED_WORDS = 50_000
_STOPWORDS = {
    "danish": stopword_lists.STOPWORDS_DANISH,
    "dutch": stopword_lists.STOPWORDS_DUTCH,
    "english": stopword_lists.STOPWORDS_EN,
    "french": stopword_lists.STOPWORDS_FRENCH,
    "german": stopword_lists.STOPWORDS_GERMAN,
    "italian": stopword_lists.STOPWORDS_ITALIAN,
    "norwegian": stopword_lists.STOPWORDS_NORWEGIAN,
    "portuguese": stopword_lists.STOPWORDS_PORTUGUESE,
    "russian": stopword_lists.STOPWORDS_RUSSIAN,
    "spanish": stopword_lists.STOPWORDS_SPANISH,
    "swedish": stopword_lists.STOPWORDS_SWEDISH,
    "turkish": stopword_lists.STOPWORDS_TURKISH,
}


def chunk_search_text(chunk: Chunk, info: DocumentInfo) -> str:
    """The chunk's headings, or the document's title, on a line before the chunk's text."""
    title = " > ".join(chunk.title_path) or info.title
    return f"{title}\n{chunk.text}" if title else chunk.text


@cache
def supported_languages() -> tuple[str, ...]:
    """The values that `SparseConfig.language` may have, sorted."""
    return tuple(sorted({NO_LANGUAGE, *Stemmer.algorithms()} - _SUPERSEDED))


class Analyzer:
    """Text to terms: lower case, words of two letters or more, no stop words, stemmed.

    May be shared by threads: PyStemmer's stemmers may not, so each thread makes its own.
    Raises ValueError for a language outside `supported_languages()`.
    """

    def __init__(self, language: str) -> None:
        if language not in supported_languages():
            known = ", ".join(supported_languages())
            raise ValueError(f"language {language!r} is none of {known}")
        self._language = language
        self._local = threading.local()

    def terms(self, text: str) -> list[str]:
        """The terms of a text in order, with repetitions."""
        stem = getattr(self._local, "stem", None)
        if stem is None:
            stem = self._local.stem = _cached_stem(self._language)
        return list(filter(None, map(stem, _WORD.findall(text.lower()))))


def _cached_stem(language: str) -> Callable[[str], str]:
    """A word's stem, empty for a stop word; remembers the words it saw last."""
    stopwords = frozenset(_STOPWORDS.get(language, ()))
    stem = str if language == NO_LANGUAGE else Stemmer.Stemmer(language, 0).stemWord
    return lru_cache(_CACHED_WORDS)(lambda word: "" if word in stopwords else stem(word))

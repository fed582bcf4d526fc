"""Cuts a parsed document into chunks: by structure first, then by tokens with overlap.

A subtree of sections that fits is one chunk, so a short document is one; small sections side by
side share one; a section that is too long is cut by `cutting.py`. A chunk's own heading stands in
its title path and not in its text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tokenizers import Tokenizer

from services.retrieval.ingest.cutting import Cutter
from services.retrieval.ingest.document import BlockKind, ParsedDocument
from services.retrieval.ingest.lines import LineIndex, trimmed
from services.retrieval.ingest.sections import Section, sections_of
from services.retrieval.ingest.tokens import TokenIndex, count_tokens
from services.retrieval.types import Chunk, ChunkingConfig, Metadata
from services.runtime.errors import InvalidRequest

__all__ = ["chunk"]

# Sections side by side share a chunk only while one of them has less than this part of it: a
# section that makes a good chunk stays by itself.
_SMALL = 0.25


@dataclass(frozen=True, slots=True)
class _Span:
    """A chunk to be: where it is and what it stands under."""

    start: int
    end: int
    path: tuple[str, ...]
    metadata: Metadata = field(default_factory=dict)


def chunk(parsed: ParsedDocument, config: ChunkingConfig, tokenizer: Tokenizer) -> list[Chunk]:
    """The chunks of a document, by where they begin; `chunk.text == parsed.text[start:end]`.

    No chunk has more than `config.max_tokens` tokens. `tokenizer` is the embedding model's, without
    truncation (`tokens.load_tokenizer`); it may be shared by threads. Raises `InvalidRequest` when
    the overlap is more than half of a chunk.
    """
    if 2 * config.overlap_tokens > config.max_tokens:
        raise InvalidRequest(
            f"overlap_tokens is {config.overlap_tokens}; expected at most half of max_tokens, "
            f"which is {config.max_tokens}",
            field="overlap_tokens",
        )
    tokens = TokenIndex(parsed.text, tokenizer)
    cutter = Cutter(parsed.text, tokens, config)
    if parsed.blocks[0].kind is BlockKind.RECORD:
        spans = list(_record_spans(parsed, cutter))
    else:
        spans = list(_Outline(sections_of(parsed), tokens, cutter, config.max_tokens).spans())
    spans = _short_enough(parsed.text, spans, config.max_tokens, tokenizer)
    return _located(parsed, spans)


def _record_spans(parsed: ParsedDocument, cutter: Cutter) -> Iterator[_Span]:
    """Each record by itself: rows are documents of their own."""
    for record in parsed.blocks:
        title = record.title or parsed.title
        for start, end in cutter.cut((record,)):
            yield _Span(start, end, (title,) if title else (), record.metadata)


class _Outline:
    """The tree of a document's sections, walked from the top; sections `[first, last)` are one."""

    def __init__(
        self, sections: Sequence[Section], tokens: TokenIndex, cutter: Cutter, max_tokens: int
    ) -> None:
        self._sections = sections
        self._tokens = tokens
        self._cutter = cutter
        self._max_tokens = max_tokens

    def spans(self) -> Iterator[_Span]:
        return self._subtree(0, len(self._sections))

    def _subtree(self, first: int, last: int) -> Iterator[_Span]:
        """The chunks of a section and what stands under it."""
        root = self._sections[first]
        children = self._children(first, last)
        if not root.blocks and len(children) == 1:
            yield from self._subtree(*children[0])
            return
        if not root.blocks and not children:  # a heading and nothing under it
            yield _Span(root.start, root.end, root.parent_path)
            return
        start = root.blocks[0].start if root.blocks else self._sections[first + 1].start
        end = self._sections[last - 1].end
        if self._tokens.size(start, end) <= self._max_tokens:
            yield _Span(start, end, root.path)
            return
        if root.blocks:
            for piece in self._cutter.cut(root.blocks):
                yield _Span(*piece, root.path)
        for run in self._runs(children):
            yield from self._run(run, root.path)

    def _run(self, run: list[tuple[int, int]], path: tuple[str, ...]) -> Iterator[_Span]:
        """The chunks of sections side by side: of one its own, of several one together."""
        if len(run) == 1:
            yield from self._subtree(*run[0])
        else:
            yield _Span(*self._extent(run), path)

    def _children(self, first: int, last: int) -> list[tuple[int, int]]:
        """The subtrees right under section `first`."""
        children: list[tuple[int, int]] = []
        for position in range(first + 1, last):
            section = self._sections[position]
            if not children or section.level <= self._sections[children[-1][0]].level:
                children.append((position, position + 1))
            else:
                children[-1] = (children[-1][0], position + 1)
        return children

    def _runs(self, children: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """The children, those together that share a chunk."""
        runs: list[list[tuple[int, int]]] = []
        for child in children:
            if runs and self._share(runs[-1], child):
                runs[-1].append(child)
            else:
                runs.append([child])
        return runs

    def _share(self, run: list[tuple[int, int]], child: tuple[int, int]) -> bool:
        sizes = (self._tokens.size(*self._extent(run)), self._tokens.size(*self._extent([child])))
        together = self._tokens.size(*self._extent([*run, child]))
        return min(sizes) < _SMALL * self._max_tokens and together <= self._max_tokens

    def _extent(self, run: list[tuple[int, int]]) -> tuple[int, int]:
        return self._sections[run[0][0]].start, self._sections[run[-1][1] - 1].end


def _short_enough(
    text: str, spans: list[_Span], max_tokens: int, tokenizer: Tokenizer
) -> list[_Span]:
    """The spans, those halved that have too many tokens when encoded by themselves."""
    fitting: list[_Span] = []
    while spans:
        sizes = count_tokens([text[span.start : span.end] for span in spans], tokenizer)
        halves: list[_Span] = []
        for span, size in zip(spans, sizes, strict=True):
            if size <= max_tokens or span.end - span.start == 1:
                fitting.append(span)
            else:
                halves += _halves(text, span)
        spans = halves
    return sorted(fitting, key=lambda span: (span.start, span.end))


def _halves(text: str, span: _Span) -> list[_Span]:
    middle = (span.start + span.end) // 2
    space = text.rfind(" ", (span.start + middle) // 2, middle)
    cut = space if space > span.start else middle
    pieces = (trimmed(text, span.start, cut), trimmed(text, cut, span.end))
    return [replace(span, start=start, end=end) for start, end in pieces if start < end]


def _located(parsed: ParsedDocument, spans: Sequence[_Span]) -> list[Chunk]:
    """The spans as chunks, with the lines and pages they are on."""
    lines = LineIndex(parsed.text) if parsed.text_is_file else None
    starts = [block.start for block in parsed.blocks]
    chunks = []
    for span in spans:
        first = parsed.blocks[max(0, bisect_right(starts, span.start) - 1)]
        last = parsed.blocks[max(0, bisect_left(starts, span.end) - 1)]
        if lines is not None:
            line_start, line_end = lines.number(span.start), lines.number(span.end - 1)
        else:
            line_start, line_end = first.line_start, last.line_end
        chunks.append(
            Chunk(
                text=parsed.text[span.start : span.end],
                start=span.start,
                end=span.end,
                title_path=span.path,
                line_start=line_start,
                line_end=line_end,
                page=first.page,
                metadata=span.metadata,
            )
        )
    return chunks

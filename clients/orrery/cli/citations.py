"""Where in which file something stands, and an answer's citations, for people."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from orrery.cli.session import printable
from orrery.results import Answer

__all__ = ["place_of", "print_citations"]


def place_of(document: str, first: int | None, last: int | None, page: int | None) -> str:
    """A document with its line (`notes.md:12-14`) or page (`report.pdf, page 3`)."""
    if page is not None:
        return f"{document}, page {page}"
    if first is None:
        return document
    return f"{document}:{first}" if last in (None, first) else f"{document}:{first}-{last}"


def print_citations(console: Console, answer: Answer) -> None:
    """Each citation with its quote; the same passage and quote only once."""
    shown: set[tuple[str, int, int]] = set()
    for citation in answer.citations:
        key = (citation.chunk_id, citation.source_start, citation.source_end)
        if key in shown:
            continue
        shown.add(key)
        where = place_of(
            citation.document_id, citation.line_start, citation.line_end, citation.page
        )
        number = Text(f"[{len(shown)}] ", style="bold")
        score = Text(f"  {citation.score:.2f}", style="dim")
        console.print(number + Text(printable(where)) + score, soft_wrap=True)
        quote = " ".join(citation.quote.split())
        console.print(Text(f'    "{printable(quote)}"', style="italic"))

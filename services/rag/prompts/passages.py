"""Passages as a model reads them: a number, a title and the text on one line.

Line breaks are where a file's lines end (above all in PDF), not where thoughts do: models read
better without. Citations are found in the source text itself, so nothing need be mapped back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.rag.types import Passage

__all__ = ["joined_lines", "numbered", "title_of"]

_HEADING_MARKS = re.compile(r"^#{1,6}\s+")


def joined_lines(text: str) -> str:
    """The text with each run of white space as one space."""
    return " ".join(text.split())


def title_of(passage: Passage) -> str:
    """The headings that the passage stands under, or its document's title."""
    return joined_lines(" – ".join(passage.title_path) or passage.document_title)


def numbered(passages: Sequence[Passage]) -> str:
    """`[1] Title`, the text, an empty line between passages; numbers begin at 1."""
    return "\n\n".join(
        f"[{number}] {title_of(passage)}\n{_body(passage)}"
        for number, passage in enumerate(passages, start=1)
    )


def _body(passage: Passage) -> str:
    """The text without the headings that begin it, which the title line already says."""
    lines = passage.text.splitlines()
    titles = {joined_lines(title) for title in (*passage.title_path, passage.document_title)}
    while lines:
        heading = joined_lines(_HEADING_MARKS.sub("", lines[0].strip()))
        if heading and heading not in titles:
            break
        del lines[0]
    return joined_lines("\n".join(lines)) or joined_lines(passage.text)

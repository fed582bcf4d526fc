"""The sections of a document: a heading with what stands under it, and its place in the tree.

Knows nothing of tokens and chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.retrieval.ingest.document import Block, BlockKind, ParsedDocument

__all__ = ["Section", "sections_of"]

_LONGEST_TITLE = 200  # characters; a longer "heading" is a paragraph set in large letters


@dataclass(frozen=True, slots=True)
class Section:
    """A heading (None: what stands before the first) with its own blocks.

    `path`: the titles from the top down to this section's own. `parent_path`: without its own.
    """

    level: int
    heading: Block | None
    blocks: tuple[Block, ...]
    path: tuple[str, ...]
    parent_path: tuple[str, ...]

    @property
    def start(self) -> int:
        """Where the section begins, with its heading."""
        return self.heading.start if self.heading is not None else self.blocks[0].start

    @property
    def end(self) -> int:
        """Where its own blocks end."""
        last = self.blocks[-1] if self.blocks else self.heading
        assert last is not None
        return last.end


def sections_of(parsed: ParsedDocument) -> list[Section]:
    """The sections in order. The first, of level 0, is what stands before the first heading.

    A document without a heading of level 1 has its own title in that place of every path.
    """
    sections: list[Section] = []
    titles: list[tuple[int, str]] = []
    has_top = any(_is_heading(block) and block.level == 1 for block in parsed.blocks)
    document_path = (parsed.title,) if parsed.title else ()
    root = () if has_top else document_path
    heading: Block | None = None
    body: list[Block] = []
    for block in [*parsed.blocks, None]:
        if block is not None and not _is_heading(block):
            body.append(block)
            continue
        if heading is None:
            sections.append(Section(0, None, tuple(body), document_path, root))
        else:
            sections.append(_section(heading, body, titles, root))
        heading, body = block, []
    return sections


def _section(
    heading: Block,
    body: Sequence[Block],
    titles: list[tuple[int, str]],
    root: tuple[str, ...],
) -> Section:
    """Closes a section, and brings `titles`, the headings it stands under, up to date."""
    while titles and titles[-1][0] >= heading.level:
        titles.pop()
    parent = root + tuple(title for _, title in titles)
    titles.append((heading.level, heading.title))
    return Section(heading.level, heading, tuple(body), (*parent, heading.title), parent)


def _is_heading(block: Block) -> bool:
    return block.kind is BlockKind.HEADING and 0 < len(block.title) <= _LONGEST_TITLE

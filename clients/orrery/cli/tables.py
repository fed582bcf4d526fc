"""How the commands lay out tables."""

from __future__ import annotations

from typing import Literal

from rich.table import Table

__all__ = ["new_table"]


def new_table(*headings: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table without lines; the columns named in `numbers` are set to the right.

    What is too long for its column goes on in the next line: no name is cut.
    """
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        justify: Literal["left", "right"] = "right" if heading in numbers else "left"
        table.add_column(heading, justify=justify, overflow="fold")
    return table

"""How the commands lay out tables."""

from __future__ import annotations

from rich.table import Table

__all__ = ["new_table"]


def new_table(*headings: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table without lines; the columns named in `numbers` are set to the right."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left")
    return table

"""How far an ingest is, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from orrery.results import IngestProgress

__all__ = ["ProgressInput", "reporting"]

ProgressInput: TypeAlias = bool | Callable[[IngestProgress], object]
"""True = a bar on stderr; or a function that is told of each file."""


@contextmanager
def reporting(progress: ProgressInput) -> Iterator[Callable[[IngestProgress], object]]:
    """What is to be told of each file."""
    if callable(progress):
        yield progress
    elif progress:
        with _bar() as tell:
            yield tell
    else:
        yield lambda _: None


@contextmanager
def _bar() -> Iterator[Callable[[IngestProgress], object]]:
    from rich.console import Console  # here, because importing the client must stay quick
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def tell(done: IngestProgress) -> None:
            shown = done.document_id.translate(_CONTROLS)
            bar.update(task, total=done.num_files, completed=done.num_done, description=shown[-60:])

        yield tell


_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], "?")

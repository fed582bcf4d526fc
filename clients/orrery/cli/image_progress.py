"""A bar of the steps that a call for pictures does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orrery.cli.image_files import PictureFiles
from orrery.image_streams import ImageStream
from orrery.results import GeneratedImages, ImagePreview, ImageProgress

__all__ = ["StepCount", "follow"]


class StepCount:
    """Steps done by all pictures of a call together."""

    def __init__(self) -> None:
        self._by_image: dict[int, ImageProgress] = {}

    def add(self, progress: ImageProgress) -> None:
        """Takes the news of one picture in."""
        self._by_image[progress.image_index] = progress

    @property
    def done(self) -> int:
        """Of all pictures."""
        return sum(each.step for each in self._by_image.values())

    @property
    def total(self) -> int:
        """Of the pictures heard of so far: each of them tells that it waits."""
        return sum(each.num_steps for each in self._by_image.values())

    @property
    def stage(self) -> str:
        """What is going on, in a word."""
        if not self.done:
            return "waiting"
        return "decoding" if self.done == self.total else "steps"


def follow(stream: ImageStream, files: PictureFiles, *, bar: bool) -> GeneratedImages:
    """Reads a stream to its end, writes its previews, and shows a bar if there is to be one."""
    count = StepCount()
    with _bar() if bar else _nothing() as tell:
        for event in stream:
            if isinstance(event, ImageProgress):
                count.add(event)
                tell(count)
            elif isinstance(event, ImagePreview):
                files.write_preview(event)
    return stream.result()


@contextmanager
def _nothing() -> Iterator[Callable[[StepCount], None]]:
    yield lambda _: None


@contextmanager
def _bar() -> Iterator[Callable[[StepCount], None]]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("waiting", total=None)

        def tell(count: StepCount) -> None:
            total = count.total or None
            progress.update(task, total=total, completed=count.done, description=count.stage)

        yield tell

"""Where `orrery image` writes: the pictures, and how they looked in the making."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from orrery.cli.session import EXIT_FAILED, EXIT_USAGE, fail
from orrery.results import GeneratedImage, GeneratedImages, ImagePreview

__all__ = ["PictureFiles"]

_STDOUT = "-"


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """`output` is a file, a folder, `-` or None; `previews` a folder or None."""

    output: str | None
    previews: Path | None

    @classmethod
    def checked(cls, output: str | None, previews: Path | None) -> PictureFiles:
        """Ends the command where nothing could be written in the end."""
        if output == _STDOUT and sys.stdout.isatty():
            fail("--output -: standard output is a terminal", EXIT_USAGE)
        if output != _STDOUT:
            _check_target(output or ".")
        if previews is not None:
            try:
                previews.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                fail(f"--previews: {previews}: {error.strerror or error}", EXIT_USAGE)
        return cls(output, previews)

    @property
    def to_stdout(self) -> bool:
        """Whether the picture's bytes are all that the command prints."""
        return self.output == _STDOUT

    def write(self, result: GeneratedImages) -> list[Path]:
        """Writes every picture; their paths, in their order, but none for standard output."""
        if self.to_stdout:
            sys.stdout.buffer.write(result.image.png)
            sys.stdout.buffer.flush()
            return []
        paths = [self._path(i, len(result.images), each) for i, each in enumerate(result.images)]
        for path, picture in zip(paths, result.images, strict=True):
            _write(path, picture.png)
        return paths

    def write_preview(self, preview: ImagePreview) -> None:
        """Writes one if asked to: `INDEX-STEP.png`."""
        if self.previews is not None and preview.png is not None:
            name = f"{preview.image_index}-{preview.step:04}.png"
            _write(self.previews / name, preview.png)

    def _path(self, i: int, count: int, picture: GeneratedImage) -> Path:
        named = Path(self.output or ".")
        if os.path.isdir(named):  # `Path.is_dir` raises for a name that is too long
            return named / f"image-{picture.seed}.png"
        return named if count == 1 else named.with_stem(f"{named.stem}-{i + 1}")


def _check_target(output: str) -> None:
    named = Path(output)
    is_folder = output.endswith(os.sep) or os.path.isdir(named)
    folder = named if is_folder else named.parent
    if not os.path.isdir(folder):
        fail(f"--output: there is no folder {folder}", EXIT_USAGE)
    written = named if os.path.exists(named) else folder
    if not os.access(written, os.W_OK):
        fail(f"--output: {written} cannot be written to", EXIT_USAGE)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        fail(f"{path}: {error.strerror or error}", EXIT_FAILED)

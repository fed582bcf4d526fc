"""The demo's pictures on the running platform: one is made, named by CLIP, and others are found.

Everything lies in one folder below the data folder: `made/` has what the image service made,
`gallery/` a hundred drawn scenes of combinations that the demo models never saw, whose file names
say nothing of what is to be seen.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orrery import Client
from orrery.results import Classification, GeneratedImage, ImageProgress, IngestReport, SearchResult
from training.images.demo_pictures import DemoPicture, write_pictures

__all__ = ["COLLECTION", "LABELS", "PROMPT", "PictureFolder", "classify", "find", "index", "make"]

COLLECTION = "demo-pictures"
FOLDER = "pictures"
PROMPT = "a red circle left of a blue square"
# What the picture is told from: each differs from the prompt in a word or two.
LABELS = (
    "a red circle left of a blue square",
    "a red circle above a blue square",
    "a red circle left of a red square",
    "a red star left of a blue square",
    "a green circle left of a blue square",
)
SEED = 1
NUM_CANDIDATES = 4  # made at once, of which CLIP chooses the best


@dataclass(frozen=True)
class PictureFolder:
    """The folder, and what is to be seen on the pictures of its gallery."""

    root: Path
    pictures: tuple[DemoPicture, ...]

    @classmethod
    def below(cls, data_dir: Path) -> PictureFolder:
        """The folder, its gallery drawn now if it is not there yet."""
        root = data_dir / FOLDER
        captions = root / "captions.jsonl"
        if not captions.exists():  # it comes last: without it the gallery is not whole
            _draw(root / "gallery", captions)
        lines = captions.read_text().splitlines()
        return cls(root, tuple(DemoPicture(**json.loads(line)) for line in lines))

    @property
    def gallery(self) -> Path:
        """The drawn pictures."""
        return self.root / "gallery"

    @property
    def made(self) -> Path:
        """The picture that the image service made of `PROMPT`."""
        return self.root / "made" / f"{PROMPT.replace(' ', '-')}.png"


def _draw(gallery: Path, captions: Path) -> None:
    shutil.rmtree(gallery, ignore_errors=True)
    drawn = write_pictures(gallery)
    lines = [json.dumps({"name": one.name, "caption": one.caption}) for one in drawn]
    partial = captions.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n")
    partial.replace(captions)


def make(
    client: Client,
    folder: PictureFolder,
    on_progress: Callable[[ImageProgress], object] | None = None,
) -> tuple[GeneratedImage, ...]:
    """Makes some pictures of the prompt, best first, and writes the best."""
    result = client.images.generate(
        PROMPT, n=NUM_CANDIDATES, seed=SEED, rank_by_similarity=True, on_progress=on_progress
    )
    folder.made.parent.mkdir(exist_ok=True)
    result.image.save(folder.made)
    return result.images


def classify(client: Client, folder: PictureFolder) -> Classification:
    """Which of the labels CLIP sees in the picture that was made."""
    return client.classify(folder.made, LABELS, templates="{}").results[0]


def index(client: Client, folder: PictureFolder) -> IngestReport:
    """Puts the gallery into a collection of pictures."""
    client.collections.create(COLLECTION, embedding_application="clip", exist_ok=True)
    return client.ingest(folder.gallery, collection=COLLECTION, progress=True, prune=True)


def find(client: Client, caption: str) -> SearchResult:
    """The pictures of the gallery that fit a caption best, and how well: the file names say
    nothing.
    """
    return client.search(COLLECTION, caption, k=3, mode="dense")

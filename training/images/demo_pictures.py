"""Pictures for the demo: `python -m training.images.demo_pictures FOLDER --count 100`.

Scenes of held-out combinations, no two of which a full caption could confuse. The file names say
nothing of what is to be seen. Needs no network and no torch.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.images.captions import caption
from training.images.drawing import draw
from training.images.scenes import distinct_scenes


@dataclass(frozen=True)
class DemoPicture:
    """A file in the demo's folder and a caption that is true of it alone."""

    name: str
    caption: str


def write_pictures(folder: Path, count: int = 100, seed: int = 1) -> list[DemoPicture]:
    """Write `count` PNG files into `folder`; the same each time for the same seed."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"captions {seed}")
    written = []
    for number, scene in enumerate(distinct_scenes(count, seed), start=1):
        name = f"picture-{number:03d}.png"
        Image.fromarray(draw(scene)).save(folder / name)
        written.append(DemoPicture(name, caption(scene, rng, full=True)))
    return written


def main() -> None:
    """Parse the command line, write the pictures, print their captions as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for picture in write_pictures(arguments.folder, arguments.count, arguments.seed):
        print(json.dumps({"file": picture.name, "caption": picture.caption}))


if __name__ == "__main__":
    main()

"""The folder of the tour's pictures: what is drawn anew, and what is left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy import demo_pictures
from deploy.demo_pictures import PictureFolder
from orrery import Client
from tests.fakes.image_server import image_server_in_thread


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_gallery_that_is_not_whole_is_drawn_anew_and_nothing_else_is_touched(
    tmp_path: Path,
) -> None:
    folder = PictureFolder.below(tmp_path)
    drawn = files_of(folder.gallery)
    assert set(drawn) == {picture.name for picture in folder.pictures}
    # As if drawing had been cut off; beside it lies what is somebody else's.
    (folder.root / "captions.jsonl").unlink()
    (folder.gallery / folder.pictures[0].name).unlink()
    (folder.gallery / "old.png").write_bytes(b"of an earlier version")
    folder.made.parent.mkdir()
    folder.made.write_bytes(b"made")
    (folder.root / "mine.png").write_bytes(b"mine")

    assert PictureFolder.below(tmp_path) == folder
    assert files_of(folder.gallery) == drawn
    assert folder.made.read_bytes() == b"made"
    assert (folder.root / "mine.png").read_bytes() == b"mine"


def test_picture_is_written_although_its_folder_was_removed(tmp_path: Path) -> None:
    folder = PictureFolder.below(tmp_path)
    with image_server_in_thread() as server, Client(server.target) as client:
        for _ in range(2):
            images = demo_pictures.make(client, folder)
            assert folder.made.read_bytes() == images[0].png
            assert len(images) == demo_pictures.NUM_CANDIDATES
            shutil.rmtree(folder.made.parent)

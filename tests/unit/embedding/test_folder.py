"""Model folders: found, hashed, and refused where loading would run code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from services.embedding.folder import content_hash, find_folder
from services.runtime.model_files import ModelFolderError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    (tmp_path / "README.md").write_text("about")
    return tmp_path


@pytest.mark.parametrize("name", ["model.safetensors", "modules.json", "1_Pooling/config.json"])
def test_hash_changes_with_anything_that_decides_vectors(folder: Path, name: str) -> None:
    before = content_hash(folder)
    assert before == content_hash(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    assert content_hash(folder) != before


def test_hash_is_the_same_elsewhere_and_with_other_words_about_it(folder: Path) -> None:
    before = content_hash(folder)
    (folder / "README.md").write_text("other words")
    moved = folder.parent / f"{folder.name}-moved"
    shutil.copytree(folder, moved)
    assert content_hash(moved) == before


@pytest.mark.parametrize("name", ["2_Dense/pytorch_model.bin", "2_Dense/weights.pt"])
def test_pickled_weights_are_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir()
    (folder / name).write_bytes(b"pickle")
    with pytest.raises(ModelFolderError, match="pickled"):
        content_hash(folder)


def test_pickled_weights_beside_safetensors_are_passed_over(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    assert content_hash(folder)


def test_what_looks_like_a_path_is_never_looked_up_on_the_hub(tmp_path: Path) -> None:
    assert find_folder(str(tmp_path)) == tmp_path
    with pytest.raises(ModelFolderError, match="no such folder"):
        find_folder(str(tmp_path / "missing"))

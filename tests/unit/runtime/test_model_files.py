"""What a model's files hash to: anything that decides, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from services.runtime.model_files import hash_files


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "unet" / "config.json", tmp_path / "weights.safetensors"]
    made[0].parent.mkdir()
    for path in made:
        path.write_bytes(path.name.encode() * 3)
    return made


def test_hash_is_the_same_in_another_folder(files: list[Path], tmp_path: Path) -> None:
    moved = shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-moved")
    there = [moved / path.relative_to(tmp_path) for path in files]
    assert hash_files(there, moved) == hash_files(files, tmp_path)


def test_hash_changes_with_names_contents_order_and_what_else_decides(
    files: list[Path], tmp_path: Path
) -> None:
    first, second = files
    hashes = {
        hash_files(files, tmp_path),
        hash_files([first], tmp_path),
        hash_files([second, first], tmp_path),
        hash_files(files, tmp_path / "unet"),
        hash_files(files, tmp_path, "a"),
        hash_files(files, tmp_path, "a", "b"),
        hash_files(files, tmp_path, "ab"),
    }
    renamed = first.rename(first.with_name("other.json"))
    hashes.add(hash_files([renamed, second], tmp_path))
    renamed.write_bytes(b"other")
    hashes.add(hash_files([renamed, second], tmp_path))
    assert len(hashes) == 9

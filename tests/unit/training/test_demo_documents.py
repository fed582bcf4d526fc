"""The demo folder: the same each time, read by our own parsers, each question with one answer."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from services.retrieval.ingest.parsing import parse
from training.demo_documents import write_demo
from training.demo_world import draw_world
from training.names import Split, split_of, stems_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    counts = write_demo(folder)
    assert 190 <= counts["documents"] <= 210
    return folder


@pytest.fixture(scope="module")
def texts(folder: Path) -> dict[tuple[str, str], str]:
    """Path and title of each document to what our parsers read in it."""
    found = {}
    for path in sorted((folder / "documents").rglob("*.*")):
        parsed = parse(path.read_bytes(), path.name)
        name = path.relative_to(folder / "documents").as_posix()
        if path.suffix == ".csv":
            for block in parsed.blocks:
                found[name, block.title] = parsed.text[block.start : block.end]
        else:
            found[name, parsed.title] = parsed.text
    return found


@pytest.fixture(scope="module")
def questions(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "questions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    def contents(root: Path) -> dict[str, bytes]:
        files = (path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_bytes() for path in files}

    write_demo(tmp_path / "again")
    write_demo(tmp_path / "other", seed=1)
    assert contents(tmp_path / "again") == contents(folder)
    assert contents(tmp_path / "other") != contents(folder)


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="not empty"):
        write_demo(folder)


def test_every_format_is_there_in_its_share(texts: dict[tuple[str, str], str]) -> None:
    endings = Counter(path.rsplit(".", 1)[1] for path, _ in texts)
    shares = {ending: count / len(texts) for ending, count in endings.items()}
    assert set(shares) == {"md", "html", "pdf", "csv"}
    assert 0.4 < shares["md"] < 0.55
    assert 0.15 < shares["html"] < 0.25
    assert 0.07 < shares["pdf"] < 0.15


def test_names_are_held_out_and_no_two_alike(texts: dict[tuple[str, str], str]) -> None:
    names = [title for _, title in texts]
    assert len(set(names)) == len(names)
    assert all(split_of(stem) is Split.HELD_OUT for name in names for stem in stems_of(name))


def test_questions_are_enough_and_of_all_kinds(questions: list[dict[str, Any]]) -> None:
    kinds = Counter(question["kind"] for question in questions)
    assert len(questions) >= 400
    assert kinds["answerable"] / len(questions) == pytest.approx(0.6, abs=0.02)
    assert kinds["missing-entity"] == kinds["missing-fact"]
    asked = {(question["entity"], question["relation"]) for question in questions}
    assert len(asked) == len(questions)


def test_answers_are_in_their_document(
    texts: dict[tuple[str, str], str], questions: list[dict[str, Any]]
) -> None:
    for question in questions:
        if question["kind"] == "answerable":
            text = texts[question["document_id"], question["entity"]]
            assert question["answer"] in text
            assert question["entity"] in text
        else:
            assert question["answer"] is None


def test_what_is_missing_is_in_no_document(
    texts: dict[tuple[str, str], str], questions: list[dict[str, Any]]
) -> None:
    everything = "\n".join(text for text in texts.values())
    passages = {passage.entity.name: passage for passage in draw_world(2026).passages}
    for question in questions:
        if question["kind"] == "missing-entity":
            assert question["entity"] not in {title for _, title in texts}
            assert f" {question['entity']} " not in everything
            assert question["document_id"] is None
        elif question["kind"] == "missing-fact":
            unstated = {relation.name for relation in passages[question["entity"]].unstated}
            assert question["relation"] in unstated
            assert (question["document_id"], question["entity"]) in texts

"""Write the demo folder: `python -m training.demo_documents OUT_DIR [--seed N]`.

    OUT_DIR/documents/         some 200 short documents of the fictional world: Markdown, HTML,
                               PDF, and the rows of a few CSV files
    OUT_DIR/questions.jsonl    questions on them, with their answers: for the evaluation, and so not
                               among the documents

The same seed writes the same bytes. Knows formats; what the documents say is `demo_world.py`'s.
"""

from __future__ import annotations

import argparse
import csv
import html
import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF

from training.demo_world import DemoWorld, WorldQuestion, draw_world
from training.world import Passage

__all__ = ["DEFAULT_SEED", "DemoFile", "demo_files", "main", "write_demo"]

DEFAULT_SEED = 2026
DOCUMENTS = "documents"
QUESTIONS = "questions.jsonl"
_FOLDERS = {
    "person": "people", "organisation": "organisations", "town": "places", "ship": "ships",
    "instrument": "instruments", "book": "books", "building": "places", "festival": "festivals",
    "animal": "animals",
}  # fmt: skip
_SHARES = {"md": 0.60, "html": 0.27, "pdf": 0.13}  # of the files with one document
_REGISTERS = ("town", "ship", "organisation", "instrument")  # kinds that have a CSV file
_REGISTER_SHARE = 0.5  # of their documents, how many are rows of it
# Columns of the CSV files besides title, text and kind, each with the fact that it repeats.
_COLUMNS = {"region": "region", "launched": "launch", "founded": "founding_year"}
_TWO_SECTIONS_SHARE = 0.15  # of the Markdown and HTML documents with enough to say
_SECTION_TITLES = ("Further notes", "From the records", "More", "Other particulars")
_WRITTEN_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class DemoFile:
    """A file of the folder with the passages in it. `path` is relative to `documents/`."""

    path: str
    content: bytes
    passages: tuple[Passage, ...]


def write_demo(folder: Path, seed: int = DEFAULT_SEED) -> dict[str, int]:
    """Writes everything below `folder`; returns how many there are of each kind of thing.

    Raises `FileExistsError` when the folder has something in it already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    world = draw_world(seed)
    files = demo_files(world, seed)
    for file in files:
        path = folder / DOCUMENTS / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    homes = {passage.entity.name: file.path for file in files for passage in file.passages}
    lines = [json.dumps(_question(question, homes)) for question in world.questions]
    (folder / QUESTIONS).write_text("\n".join(lines) + "\n")
    kinds = Counter(question.kind.value for question in world.questions)
    return {"documents": len(homes), "files": len(files), **kinds}


def demo_files(world: DemoWorld, seed: int) -> list[DemoFile]:
    """The files of a world, by path."""
    rng = random.Random(f"files-{seed}")
    rows: dict[str, list[Passage]] = {kind: [] for kind in _REGISTERS}
    singles: list[Passage] = []
    for passage in world.passages:
        is_row = passage.entity.kind.name in rows and rng.random() < _REGISTER_SHARE
        (rows[passage.entity.kind.name] if is_row else singles).append(passage)
    formats = [kind for kind, share in _SHARES.items() for _ in range(round(share * len(singles)))]
    formats = (formats + ["md"] * len(singles))[: len(singles)]
    rng.shuffle(formats)
    files = [_file(passage, kind, rng) for passage, kind in zip(singles, formats, strict=True)]
    files += [_register(kind, passages) for kind, passages in rows.items() if passages]
    return sorted(files, key=lambda file: file.path)


def _question(question: WorldQuestion, homes: dict[str, str]) -> dict[str, str | None]:
    path = homes[question.entity] if question.passage is not None else None
    return {
        "question": question.text,
        "answer": question.answer,
        "document_id": path,
        "entity": question.entity,
        "relation": question.relation.name,
        "kind": question.kind.value,
    }


def _file(passage: Passage, ending: str, rng: random.Random) -> DemoFile:
    sections = _sections(passage, rng)
    if ending == "md":
        content = _markdown(passage, sections).encode()
    elif ending == "html":
        content = _html(passage, sections).encode()
    else:
        content = _pdf(passage)
    slug = re.sub(r"[^a-z0-9]+", "-", passage.entity.name.lower()).strip("-")
    return DemoFile(f"{_FOLDERS[passage.entity.kind.name]}/{slug}.{ending}", content, (passage,))


def _sections(passage: Passage, rng: random.Random) -> list[tuple[str, str]]:
    """The text under its headings: the first is the entity's name, a second may follow."""
    name, text = passage.document.title, passage.document.text
    sentences = re.split(r"(?<=\.) ", text)
    middle = next(
        (place for place in range(2, len(sentences) - 1) if name in sentences[place]), None
    )
    if middle is None or rng.random() >= _TWO_SECTIONS_SHARE:
        return [(name, text)]
    first, second = " ".join(sentences[:middle]), " ".join(sentences[middle:])
    return [(name, first), (rng.choice(_SECTION_TITLES), second)]


def _markdown(passage: Passage, sections: Iterable[tuple[str, str]]) -> str:
    marks = ("#", "##")
    body = [
        f"{mark} {title}\n\n{text}\n" for mark, (title, text) in zip(marks, sections, strict=False)
    ]
    return f"---\nkind: {passage.entity.kind.name}\n---\n\n" + "\n".join(body)


def _html(passage: Passage, sections: Iterable[tuple[str, str]]) -> str:
    name = html.escape(passage.document.title)
    body = "\n".join(
        f"<h{level}>{html.escape(title)}</h{level}>\n<p>{html.escape(text)}</p>"
        for level, (title, text) in enumerate(sections, start=1)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{name}</title>\n"
        "<style>body { max-width: 40em; margin: auto; font-family: serif; }</style>\n</head>\n"
        '<body>\n<nav><a href="/">Archive</a> <a href="/search">Search</a></nav>\n'
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _pdf(passage: Passage) -> bytes:
    pdf = FPDF()
    pdf.set_creation_date(_WRITTEN_AT)
    pdf.set_title(passage.document.title)
    pdf.add_page()
    pdf.set_font("times", "B", 18)
    pdf.cell(0, 14, passage.document.title, new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("times", size=12)
    pdf.multi_cell(0, 6, passage.document.text, align="L")
    return bytes(pdf.output())


def _register(kind: str, passages: list[Passage]) -> DemoFile:
    """A CSV file with a row for each passage; a further column repeats what the texts say."""
    relations = {relation.name for relation in passages[0].entity.kind.relations}
    columns = {title: fact for title, fact in _COLUMNS.items() if fact in relations}
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(["title", "text", "kind", *columns])
    for passage in passages:
        stated = {relation.name for relation in passage.stated}
        facts = [passage.entity.facts[fact] if fact in stated else "" for fact in columns.values()]
        writer.writerow([passage.document.title, passage.document.text, kind, *facts])
    path = f"registers/{kind}s.csv"
    return DemoFile(path, sheet.getvalue().encode(), tuple(passages))


def main() -> None:
    """Parse the command line, write, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write; must be empty or not exist")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    arguments = parser.parse_args()
    try:
        counts = write_demo(arguments.folder, arguments.seed)
    except FileExistsError as error:
        parser.error(str(error))
    print(", ".join(f"{count} {name}" for name, count in counts.items()))


if __name__ == "__main__":
    main()

"""The demo documents on the running platform: the folder, the collection, the questions.

The folder is written once below the data folder, by `training/demo_documents.py`: texts about
entities whose names the demo models have never seen.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from deploy.local import data_dir_of
from deploy.state import PlatformState
from orrery import Client
from orrery.results import IngestReport
from services.runtime.config import Settings
from training.demo_documents import DOCUMENTS, QUESTIONS, write_demo

__all__ = [
    "COLLECTION",
    "DemoFolder",
    "Question",
    "Running",
    "ingest",
    "running_platform",
    "tour_questions",
]

COLLECTION = "demo"
FOLDER = "demo"
# What the tour asks about: a file of each format, then something that no document says.
_TOUR_ENDINGS = (".md", ".html", ".pdf", ".csv")
_TOUR_UNANSWERABLE = "missing-fact"


@dataclass(frozen=True)
class DemoFolder:
    """The demo folder of one data folder."""

    documents: Path
    questions: Path

    @classmethod
    def below(cls, data_dir: Path) -> DemoFolder:
        """The folder, written now if it is not there yet."""
        folder = data_dir / FOLDER
        if not folder.exists():
            partial = folder.with_name(f"{FOLDER}.partial")  # renamed once it is whole
            shutil.rmtree(partial, ignore_errors=True)
            write_demo(partial)
            partial.rename(folder)
        return cls(folder / DOCUMENTS, folder / QUESTIONS)


@dataclass(frozen=True)
class Question:
    """A question; `answer` and `document_id` are None where the documents do not tell."""

    text: str
    answer: str | None
    document_id: str | None
    kind: str


@dataclass(frozen=True)
class Running:
    """The platform of this data folder, and how to talk to it."""

    state: PlatformState
    data_dir: Path
    api_key: str | None = field(repr=False)  # one of the platform's own; None: it asks for none


def running_platform(console: Console) -> Running | None:
    """The platform that runs; None, with a word on what to do, where there is none."""
    settings = Settings.from_env()
    data_dir = data_dir_of(settings)
    state = PlatformState.load(data_dir)
    if state is None:
        console.print("[bold red]error:[/] no platform is running; start it with `make up`")
        return None
    return Running(state, data_dir, next(iter(settings.all_api_keys()), None))


def ingest(client: Client, folder: DemoFolder) -> IngestReport:
    """Puts the documents into the demo collection, with a progress bar."""
    return client.ingest(folder.documents, collection=COLLECTION, progress=True, prune=True)


def tour_questions(folder: DemoFolder) -> list[Question]:
    """Five questions: one on a file of each format, and one that has no answer."""
    lines = folder.questions.read_text().splitlines()
    questions = [_question(json.loads(line)) for line in lines]
    answerable = [question for question in questions if question.document_id is not None]
    tour = [
        next(q for q in answerable if q.answer and str(q.document_id).endswith(ending))
        for ending in _TOUR_ENDINGS
    ]
    return [*tour, next(q for q in questions if q.kind == _TOUR_UNANSWERABLE)]


def _question(fields: dict[str, str | None]) -> Question:
    return Question(
        text=str(fields["question"]),
        answer=fields["answer"],
        document_id=fields["document_id"],
        kind=str(fields["kind"]),
    )

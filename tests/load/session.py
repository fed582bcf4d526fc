"""The platform that was started here: where it listens, what it serves, where reports go."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.demo_data import COLLECTION, DemoFolder, Running, ingest
from orrery import Client
from orrery.load.asks import Subject
from orrery.load.transports import Target

__all__ = ["Served", "look_up", "new_folder", "target_of"]

_REPORTS = Path(".orrery/load")
_ASKS_QUESTIONS = ("rag", "mixed")


@dataclass(frozen=True, slots=True)
class Served:
    """What requests can be about, and how many sequences the model runs at a time."""

    subject: Subject
    max_running: int


def target_of(running: Running) -> Target:
    return Target(running.state.grpc, f"http://{running.state.http}", running.api_key)


def look_up(running: Running, model: str, workload: str) -> Served:
    """Asks the platform. A workload that asks questions has the demo documents put in first."""
    target = target_of(running)
    with Client(target.grpc, api_key=target.api_key) as client:
        info = client.model(model)
        questions: tuple[str, ...] = ()
        if workload in _ASKS_QUESTIONS:
            folder = DemoFolder.below(running.data_dir)
            ingest(client, folder)
            lines = folder.questions.read_text().splitlines()
            questions = tuple(json.loads(line)["question"] for line in lines)
    subject = Subject(model, info.vocab_size, collection=COLLECTION, questions=questions)
    return Served(subject, info.limits.max_running)


def new_folder(name: str) -> Path:
    """For the files of a report, named by what it is of and when."""
    folder = _REPORTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

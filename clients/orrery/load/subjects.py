"""What a platform can be asked for: its model, its documents, the services that it has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orrery.client import Client
from orrery.errors import InvalidRequestError
from orrery.load.asks import MIXED_SHARES, Subject, Workload
from orrery.results import ModelInfo

__all__ = ["GENERATES", "Documents", "Found", "look_up"]

# Workloads for which a model generates, after prompts of our own.
GENERATES: tuple[Workload, ...] = ("generation", "chat", "mixed")


@dataclass(frozen=True, slots=True)
class Documents:
    """A collection that is there, and questions about it."""

    collection: str
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What requests can be about; the model is None where the workload has no use for one."""

    subject: Subject
    model: ModelInfo | None


def look_up(
    client: Client, workload: Workload, model: str | None, documents: Documents | None
) -> Found:
    """Asks the platform. `mixed` is made of all that it has; of RAG, if there are documents.

    Raises:
        InvalidRequestError: The workload needs what the platform has not.
        OrreryError: It does not answer, or does not know the model or the collection.
    """
    applications = {application.name for application in client.applications()}
    info = client.model(model) if workload in GENERATES else None
    missing = {
        kind: lack
        for kind in MIXED_SHARES
        if (lack := _lack(kind, client, applications, info, documents))
    }
    for kind in (workload, "rag") if documents else (workload,):
        if kind in missing:
            raise InvalidRequestError(f"workload: {kind} needs {missing[kind]}", field="workload")
    if documents:
        client.collections.get(documents.collection)  # not every question shall find that out
    subject = Subject(
        model=model or (info.name if info else ""),
        vocab_size=info.vocab_size if info else 0,
        collection=documents.collection if documents else "",
        questions=documents.questions if documents else (),
        mixture=tuple(kind for kind in MIXED_SHARES if kind not in missing),
    )
    return Found(subject, info)


def _lack(
    kind: Workload,
    client: Client,
    applications: Collection[str],
    info: ModelInfo | None,
    documents: Documents | None,
) -> str | None:
    """What is missing to ask for that kind; None = nothing."""
    services = client.settings.services
    needed = {"embeddings": services.embedding, "images": services.image, "rag": services.rag}
    if kind in needed and needed[kind] not in applications:
        return f"an application {needed[kind]!r}, which the platform does not have"
    if kind == "rag" and documents is None:
        return "documents: a collection, and questions about it"
    if kind == "chat" and info is not None and not info.has_chat_template:
        return f"a model with a chat template, which {info.name} does not have"
    return None

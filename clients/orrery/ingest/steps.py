"""`ingest` as steps: walk, make the collection, send the files, remove what is gone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypedDict

import grpc

from orrery.calls.common import CallOptions, begin
from orrery.calls.retrieval import RetrievalCalls
from orrery.calls.uploads import Upload, Window, read_document
from orrery.documents import Document, MetadataInput
from orrery.effects import Emit, ExchangeSteps
from orrery.errors import (
    CollectionNotFoundError,
    DeadlineExceededError,
    InvalidRequestError,
    OrreryError,
)
from orrery.ingest.walk import FoundFile, Walk, walk_files
from orrery.requests.documents import build_list
from orrery.requests.filters import fill_metadata
from orrery.results import (
    FileProblem,
    IngestProgress,
    IngestReport,
    UpsertResult,
)
from orrery.steps import Work
from orrery.v1 import retrieval_pb2 as pb

__all__ = ["DEFAULT_MAX_FILE_BYTES", "Ingest", "IngestOptions"]

DEFAULT_MAX_FILE_BYTES = 8 << 20
_PAGE_SIZE = 1000
_DELETE_AT_ONCE = 500


class IngestOptions(TypedDict, total=False):
    """More about what is ingested and how.

    Attributes:
        metadata: Given to every document.
        max_file_bytes: Larger files are skipped; by default 8 MiB, the service's own limit.
        max_in_flight: Most documents sent and not yet answered.
        embedding_application: Of the collection, where it has to be made (`clip` for pictures); one
            that is there must have been made with it.
    """

    metadata: MetadataInput
    max_file_bytes: int
    max_in_flight: int
    embedding_application: str | None


@dataclass(slots=True)
class _Tally:
    """The report while it grows."""

    by_status: dict[str, list[str]] = field(default_factory=dict)
    failed: list[FileProblem] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    num_chunks: int = 0
    num_done: int = 0

    def add(self, result: UpsertResult) -> None:
        self.num_done += 1
        self.num_chunks += result.num_chunks
        if result.error is None:
            self.by_status.setdefault(result.status, []).append(result.document_id)
        else:
            error = result.error
            self.failed.append(FileProblem(result.document_id, error.reason, error.message))

    def names(self, status: str) -> tuple[str, ...]:
        return tuple(self.by_status.get(status, ()))


class Ingest:
    """One run over a file or folder; `steps` may be taken once."""

    def __init__(
        self,
        retrieval: RetrievalCalls,
        path: Path,
        collection: str,
        *,
        prune: bool,
        options: CallOptions,
        choices: IngestOptions,
    ) -> None:
        unknown = sorted(set(choices) - set(IngestOptions.__annotations__))
        if unknown:
            raise TypeError(f"unexpected keyword argument {unknown[0]!r}: not an option of ingest")
        self._settings = retrieval.settings
        self._retrieval = retrieval
        self._tokens = retrieval.tokens
        self._path = path
        self._collection = collection
        self._prune = prune
        self._context = begin(self._settings, options)
        self._metadata = choices.get("metadata", {})
        self._max_file_bytes = choices.get("max_file_bytes", DEFAULT_MAX_FILE_BYTES)
        self._embedding_application = choices.get("embedding_application")
        fill_metadata(pb.Document().metadata, self._metadata, "metadata")  # refused before all else
        self._window = Window(max_documents=choices.get("max_in_flight", Window().max_documents))
        if prune and os.path.isfile(path):  # `Path.is_file` raises where it may not look
            raise InvalidRequestError("prune: expected a folder, got a file", field="prune")

    def steps(self) -> ExchangeSteps[IngestReport]:
        """Emits an `IngestProgress` for each file; gives back the report."""
        began, tally = time.monotonic(), _Tally()
        walk: Walk = yield Work(partial(walk_files, self._path, self._max_file_bytes))
        if self._prune and not walk.files:
            raise InvalidRequestError(
                f"prune: no file was found in {self._path}, so every document of "
                f"{self._collection!r} would be removed; delete the collection if that is meant",
                field="prune",
            )
        yield from self._ensure_collection()
        yield from self._send(walk, tally)
        if self._prune:
            yield from self._remove_gone(walk, tally)
        return IngestReport(
            collection=self._collection,
            added=tally.names("added"),
            replaced=tally.names("replaced"),
            unchanged=tally.names("unchanged"),
            failed=tuple(tally.failed),
            skipped=walk.skipped,
            removed=tuple(tally.removed),
            num_chunks=tally.num_chunks,
            consistency_token=self._tokens.newest(self._collection),
            duration_s=time.monotonic() - began,
        )

    def _ensure_collection(self) -> ExchangeSteps[None]:
        wanted = self._embedding_application
        try:
            found = yield from self._retrieval.get(self._collection, None, self._call())
        except CollectionNotFoundError:
            config = {"embedding_application": wanted}
            yield from self._retrieval.create(
                self._collection, "", None, config, exist_ok=True, options=self._call()
            )
            return
        there = found.config.embedding_application
        if wanted not in (None, there):
            told = f"was made with {there!r}" if there else "was made with the service's default"
            raise InvalidRequestError(
                f"embedding_application: {self._collection!r} {told}, not with {wanted!r}",
                field="embedding_application",
            )

    def _send(self, walk: Walk, tally: _Tally) -> ExchangeSteps[None]:
        files = iter(walk.files)
        take = partial(self._take, files)
        application = self._settings.services.retrieval
        upload = Upload(self._context, application, take, self._tokens, self._window).steps()
        total = len(walk.files)

        def count(result: UpsertResult) -> IngestProgress:
            tally.add(result)
            return IngestProgress(tally.num_done, total, result.document_id, result.status)

        yield from _mapped(upload, count)

    def _take(
        self, files: Iterator[FoundFile]
    ) -> ExchangeSteps[pb.UpsertRequest | UpsertResult | None]:
        file = next(files, None)
        if file is None:
            return None
        document = Document(file.document_id, file.path, metadata=self._metadata)
        return (
            yield from read_document(
                self._collection, document, self._context, max_bytes=self._max_file_bytes
            )
        )

    def _remove_gone(self, walk: Walk, tally: _Tally) -> ExchangeSteps[None]:
        """Removes the documents for which the folder has no file, whatever became of it."""
        there, beginnings = walk.there
        gone: list[str] = []
        request = build_list(self._collection, None, _PAGE_SIZE)
        while True:
            documents, request.page_token = yield from self._retrieval.documents_page(
                request, None, self._call()
            )
            names = (document.id for document in documents)
            gone += [n for n in names if n not in there and not n.startswith(beginnings)]
            if not request.page_token:
                break
        for at in range(0, len(gone), _DELETE_AT_ONCE):
            batch = gone[at : at + _DELETE_AT_ONCE]
            yield from self._retrieval.delete_documents(self._collection, batch, None, self._call())
            tally.removed += batch

    def _call(self) -> CallOptions:
        """For one of the unary calls: the client's usual time, as far as the run has it."""
        left_s = self._context.deadline.remaining_s()
        if left_s == 0.0:
            raise DeadlineExceededError(
                "the time was up before all was done", request_id=self._context.request_id
            )
        return CallOptions(None, min(left_s, self._settings.timeout_s), self._context.request_id)


def _mapped(
    steps: ExchangeSteps[None], change: Callable[[UpsertResult], IngestProgress]
) -> ExchangeSteps[None]:
    """The same steps, which emit `change(result)` where they emit a result."""
    try:
        effect = next(steps)
        while True:
            if isinstance(effect, Emit):
                effect = Emit(change(effect.result))
            try:
                outcome = yield effect
            except (grpc.RpcError, OrreryError) as failure:
                effect = steps.throw(failure)
            else:
                effect = steps.send(outcome)
    except StopIteration:
        return
    finally:
        steps.close()

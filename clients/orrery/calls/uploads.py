"""Documents into a collection, over a stream that is opened anew when it breaks, as steps.

    source --take--> request --write--> [ in flight, in order ] --read--> result --emit-->

A document stays in memory from when it is read until it is answered, and only so many are in
flight. Answers come in the order of the documents. When the server goes away, the unanswered ones
are sent again: a document that was written but not answered is then found unchanged. Knows nothing
of files.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import grpc

from orrery.calls.common import absence
from orrery.channels import MAX_MESSAGE_BYTES
from orrery.consistency import ConsistencyTokens
from orrery.documents import Document, DocumentSource, as_document
from orrery.effects import DoneWriting, Emit, ExchangeSteps, Open, Read, Take, Write
from orrery.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    OrreryError,
    OverloadedError,
    UnavailableError,
)
from orrery.methods import UPSERT
from orrery.parsing.retrieval import parse_upsert
from orrery.requests.documents import build_upsert
from orrery.results import Timing, UpsertResult, Usage
from orrery.retry import Deadline, RetryPolicy
from orrery.status import FailedCall, is_said_by_server, to_error
from orrery.steps import CallContext, Pause, Work
from orrery.v1 import retrieval_pb2 as pb

__all__ = ["TakeRequest", "Upload", "Window", "read_document", "take_documents"]

_Item = pb.UpsertRequest | UpsertResult
TakeRequest = Callable[[], ExchangeSteps[_Item | None]]
"""Steps to the next request, or to the result of a document that cannot be sent; None = no more."""

# How long a service may be away, without one document answered, before the upload gives up.
_PATIENCE_S = 60.0
_MANY = 1_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be in flight: documents, and bytes of them (one always may)."""

    max_documents: int = 32
    max_bytes: int = 32 << 20

    def __post_init__(self) -> None:
        if self.max_documents < 1:
            raise ValueError(f"max_in_flight: expected 1 or more, got {self.max_documents}")


class Upload:
    """One upload; `steps` may be taken once."""

    def __init__(
        self,
        context: CallContext,
        application: str,
        take: TakeRequest,
        tokens: ConsistencyTokens,
        window: Window = Window(),
    ) -> None:
        self._context = context
        self._application = application
        self._take = take
        self._tokens = tokens
        self._window = window
        self._retry = _persistent(context.retry)
        self._patience: Deadline | None = None  # begins with the first failure after an answer
        self._retries = 0
        # In flight, with their bytes; between them the results of those that cannot be sent.
        self._sent: deque[tuple[_Item, int]] = deque()
        self._again: deque[_Item] = deque()  # before the source's next
        self._setback: OrreryError | None = None  # a document failed for now: pause, then resend
        self._source_ended = False
        self._is_open = False
        self._is_answering = False  # the stream that is open has answered something
        self._num_done = 0

    def steps(self) -> ExchangeSteps[None]:
        """Emits an `UpsertResult` for each document.

        Raises:
            OrreryError: The call failed for good; the documents not yet answered may or may not be
                in the collection.
        """
        while True:
            try:
                if (yield from self._converse()):
                    return
                lost = ConnectionLostError(
                    "the server ended the stream before every document was answered",
                    request_id=self._context.request_id,
                )
                yield from self._recover(lost, None)
            except grpc.RpcError as failure:
                call = cast(FailedCall, failure)
                error = to_error(call, request_id=self._context.request_id)
                yield from self._recover(error, failure)

    def _converse(self) -> ExchangeSteps[bool]:
        """Until all is answered (True), or the server ends the stream too early (False)."""
        while True:
            yield from self._fill()
            if not self._sent:
                break
            item, _ = self._sent[0]
            if isinstance(item, UpsertResult):
                self._sent.popleft()
                yield from self._emit(item)
                continue
            response = yield Read()
            if response is None:
                return False
            self._sent.popleft()
            self._is_answering = True
            yield from self._answered(item, response)
        if self._is_open:
            yield DoneWriting()
            if (yield Read()) is not None:
                raise self._out_of_step()
        return True

    def _fill(self) -> ExchangeSteps[None]:
        """Sends until the window is full or there is nothing more to send."""
        while self._again or not self._source_ended:
            if self._setback is not None:
                if self._sent:
                    return
                setback, self._setback = self._setback, None
                yield from self._pause(setback, said_by_server=True)
            if self._is_full():
                return
            item = self._again.popleft() if self._again else (yield from self._take())
            if item is None:
                self._source_ended = True
            elif isinstance(item, UpsertResult):
                self._sent.append((item, 0))
            else:
                yield from self._send(item)

    def _send(self, request: pb.UpsertRequest) -> ExchangeSteps[None]:
        # First of all, so that a call that breaks now finds it among the unanswered.
        self._sent.append((request, request.ByteSize()))
        if not self._is_open:
            timeout_s = self._context.deadline.grpc_timeout()
            if timeout_s == 0.0:
                raise DeadlineExceededError(
                    "the time was up before all documents were sent",
                    request_id=self._context.request_id,
                )
            yield Open(UPSERT, self._context.metadata(self._application, timeout_s), timeout_s)
            self._is_open = True
        yield Write(request)

    def _answered(
        self, request: pb.UpsertRequest, response: pb.UpsertResponse
    ) -> ExchangeSteps[None]:
        if response.document_id != request.document.id:
            raise self._out_of_step()
        result = parse_upsert(response, self._context.request_id, 0)
        if self._is_passing(result):
            self._again.append(request)
            self._setback = result.error
            return
        self._tokens.saw(request.collection, result.consistency_token)
        if result.status != "failed":
            self._retries = 0
            self._patience = None
        yield from self._emit(result)

    def _is_passing(self, result: UpsertResult) -> bool:
        """Whether a document failed for a reason that is worth waiting for."""
        if not isinstance(result.error, UnavailableError | OverloadedError):
            return False
        return self._delay_s(result.error, said_by_server=True) is not None

    def _emit(self, result: UpsertResult) -> ExchangeSteps[None]:
        self._num_done += 1
        yield Emit(replace(result, num_done=self._num_done))

    def _recover(self, error: OrreryError, cause: grpc.RpcError | None) -> ExchangeSteps[None]:
        """After the call broke: pauses, and prepares to send again what was not answered."""
        said = cause is not None and is_said_by_server(cast(FailedCall, cause))
        if isinstance(error, InvalidRequestError) and not said:  # a message that is too large
            if not self._is_answering:
                yield from self._give_up_first(error)
                return
            error = ConnectionLostError(error.message, request_id=error.request_id)
        self._again.extendleft(item for item, _ in reversed(self._sent))
        self._sent.clear()
        self._is_open = False
        self._is_answering = False
        self._setback = None
        error.__cause__ = cause
        yield from self._pause(error, said_by_server=said)

    def _give_up_first(self, error: OrreryError) -> ExchangeSteps[None]:
        """The only document in flight cannot be sent."""
        item, _ = self._sent.popleft()
        self._is_open = False
        if isinstance(item, pb.UpsertRequest):
            item = _failure(item.document.id, error)
        yield from self._emit(item)

    def _pause(self, error: OrreryError, *, said_by_server: bool) -> ExchangeSteps[None]:
        delay_s = self._delay_s(error, said_by_server=said_by_server)
        if delay_s is None:
            raise absence(error, self._application) or error
        self._retries += 1
        yield Pause(delay_s)

    def _delay_s(self, error: OrreryError, *, said_by_server: bool) -> float | None:
        delay_s = self._retry.delay_s(error, retries=self._retries, said_by_server=said_by_server)
        if self._patience is None:
            self._patience = Deadline(_PATIENCE_S)
        left_s = min(self._context.deadline.remaining_s(), self._patience.remaining_s())
        return None if delay_s is None or delay_s >= left_s else delay_s

    def _is_full(self) -> bool:
        # A stream begins with one document: where it is refused altogether, gRPC may lose the
        # reason while more are being written.
        if not self._is_answering:
            return bool(self._sent)
        if len(self._sent) >= self._window.max_documents:
            return True
        return sum(size for _, size in self._sent) >= self._window.max_bytes

    def _out_of_step(self) -> InternalError:
        return InternalError(
            "the server's answers do not match the documents sent",
            request_id=self._context.request_id,
        )


def _persistent(retry: RetryPolicy) -> RetryPolicy:
    """As often as patience allows, unless the client is not to repeat anything."""
    return replace(retry, max_retries=_MANY) if retry.max_retries else retry


def take_documents(collection: str, context: CallContext) -> TakeRequest:
    """Takes documents from the caller's source, as requests."""

    def take() -> ExchangeSteps[_Item | None]:
        source: DocumentSource | None = yield Take()
        if source is None:
            return None
        return (yield from read_document(collection, as_document(source), context))

    return take


def read_document(
    collection: str, document: Document, context: CallContext, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> ExchangeSteps[_Item]:
    """Steps to a document's request, or to its failure where it cannot be read or sent."""
    build = partial(build_upsert, collection, document, max_bytes=max_bytes)
    try:
        if not isinstance(document.content, os.PathLike):
            return build()
        request: pb.UpsertRequest = yield Work(build)
    except InvalidRequestError as error:
        error.request_id = context.request_id
        return _failure(document.id, error)
    return request


def _failure(document_id: str, error: OrreryError) -> UpsertResult:
    return UpsertResult(document_id, "failed", error, 0, "", 0, Usage(), Timing())

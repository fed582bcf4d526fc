"""One RPC with its retries, as steps that somebody else carries out.

A generator yields what is to be done next (`Send` an RPC, `Pause`, `Work`) and is given the
outcome. `Client` carries the steps out with blocking calls, `AsyncClient` with awaiting ones; the
logic exists once and needs no network to be tested. For a streaming RPC, `Send` means: open the
stream and wait for its first message; from there on nothing is repeated.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import grpc

from orrery.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    InvalidRequestError,
    OrreryError,
)
from orrery.methods import Method
from orrery.retry import Deadline, RetryPolicy
from orrery.settings import ClientSettings, valid_timeout_s
from orrery.status import FailedCall, is_said_by_server, to_error

__all__ = [
    "INNER_HEADER",
    "CallContext",
    "Effect",
    "Metadata",
    "Pause",
    "Send",
    "Steps",
    "Work",
    "send_with_retries",
]

T = TypeVar("T")
ResponseT = TypeVar("ResponseT")

Metadata: TypeAlias = tuple[tuple[str, str], ...]

INNER_HEADER = "x-orrery-inner"
_MAX_REQUEST_ID_CHARS = 128
# The `x-timeout-ms` of a year says "no hurry" and still fits every integer it may be parsed into.
_MAX_TIMEOUT_MS = 365 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Send:
    """Perform one RPC and give back its response; of a stream the first message, None if none."""

    method: Method[Any, Any]
    request: Any
    metadata: Metadata
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Run a function that blocks, and give back its result. `orrery.exchange` throws its error."""

    function: Callable[[], Any]


Effect: TypeAlias = Send | Pause | Work
Steps: TypeAlias = Generator[Effect, Any, T]


@dataclass(frozen=True, slots=True)
class CallContext:
    """What all RPCs made on behalf of one call share. `traceparent`: W3C Trace Context's header.

    `inner`: of a service to another, for the sake of a call that the platform has let in. Such
    RPCs are let in, too, while it shuts down.
    """

    request_id: str
    deadline: Deadline
    api_key: str | None
    retry: RetryPolicy
    traceparent: str | None = None
    inner: bool = False

    @classmethod
    def begin(
        cls, settings: ClientSettings, *, timeout_s: float | None, request_id: str | None
    ) -> CallContext:
        """Starts the clock of a call.

        Raises:
            InvalidRequestError: `timeout_s` is not positive, or `request_id` is not 1 to 128
                visible ASCII characters.
        """
        timeout_s = settings.timeout_s if timeout_s is None else valid_timeout_s(timeout_s)
        return cls(
            request_id=uuid.uuid4().hex if request_id is None else _valid_request_id(request_id),
            deadline=Deadline(timeout_s),
            api_key=settings.api_key,
            retry=RetryPolicy(
                max_retries=settings.max_retries, not_found_retries=min(2, settings.max_retries)
            ),
        )

    def metadata(self, application: str, timeout_s: float | None) -> Metadata:
        """The metadata of one RPC; `application` may be empty where a server has only one."""
        pairs = [("x-request-id", self.request_id)]
        if application:
            pairs.append(("application", application))
        if timeout_s is not None:
            milliseconds = min(_MAX_TIMEOUT_MS, max(1, math.ceil(timeout_s * 1000)))
            pairs.append(("x-timeout-ms", str(milliseconds)))
        if self.api_key is not None:
            pairs.append(("authorization", f"Bearer {self.api_key}"))
        if self.traceparent is not None:
            pairs.append(("traceparent", self.traceparent))
        if self.inner:
            pairs.append((INNER_HEADER, "1"))
        return tuple(pairs)


def _send_once(
    context: CallContext,
    method: Method[Any, ResponseT],
    request: Any,
    application: str,
    at_most_s: float,
) -> Steps[ResponseT]:
    """One attempt. A failure comes as the `grpc.RpcError` that it is."""
    timeout_s = context.deadline.grpc_timeout(at_most_s)
    if timeout_s == 0.0:
        raise DeadlineExceededError(
            "the time of the call was up before it could be sent", request_id=context.request_id
        )
    metadata = context.metadata(application, timeout_s)
    return cast(ResponseT, (yield Send(method, request, metadata, timeout_s)))


def send_with_retries(
    context: CallContext,
    method: Method[Any, ResponseT],
    request: Any,
    *,
    application: str,
    at_most_s: float = math.inf,
) -> Steps[ResponseT]:
    """Attempts until one succeeds or trying again makes no sense or does not fit the deadline.

    `at_most_s` bounds a single attempt where the deadline of the call leaves it more.

    Raises:
        OrreryError: What the last attempt ended with.
    """
    retries = 0
    while True:
        error: OrreryError
        cause: grpc.RpcError | None = None
        said_by_server = False
        try:
            response = yield from _send_once(context, method, request, application, at_most_s)
        except grpc.RpcError as failure:
            call, cause = cast(FailedCall, failure), failure
            error = to_error(call, request_id=context.request_id)
            said_by_server = is_said_by_server(call)
        else:
            if response is not None:
                return response
            # Every stream of the contract has a message. A server that is being stopped may end
            # one without, and with status OK.
            error = ConnectionLostError(
                "the server ended the stream before its first message",
                request_id=context.request_id,
            )
        delay_s = context.retry.delay_s(error, retries=retries, said_by_server=said_by_server)
        if delay_s is None or delay_s >= context.deadline.remaining_s():
            raise error from cause
        yield Pause(delay_s)
        retries += 1


def _valid_request_id(request_id: str) -> str:
    visible = all("!" <= character <= "~" for character in request_id)
    if not visible or not 1 <= len(request_id) <= _MAX_REQUEST_ID_CHARS:
        raise InvalidRequestError(
            f"request_id: expected 1 to {_MAX_REQUEST_ID_CHARS} visible ASCII characters",
            field="request_id",
        )
    return request_id

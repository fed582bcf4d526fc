"""The RPC wrapper under a plain grpc.aio server and under a context like Ray Serve's."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from orrery.v1 import generation_pb2 as pb
from services.runtime.auth import Authenticator
from services.runtime.errors import InvalidRequest, OrreryError, Overloaded
from services.runtime.peer import Caller
from services.runtime.rpc import (
    Call,
    MalformedRequest,
    RpcPolicy,
    ServicerContext,
    bidi_stream,
    server_stream,
    unary,
)


class ServeContext:
    """What Ray Serve hands over: a copy of the context, with four methods that work."""

    def __init__(self, **metadata: str) -> None:
        self.metadata = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailing: dict[str, Any] = {}

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self.trailing = dict([("request_id", "serve"), *_only_a_list(trailing_metadata)])

    @property
    def error_info(self) -> error_details_pb2.ErrorInfo:
        status = status_pb2.Status.FromString(self.trailing["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        return info


def _only_a_list(metadata: Any) -> list[tuple[str, Any]]:
    assert isinstance(metadata, list), "Serve adds this to a list of its own"
    return metadata


class Echo:
    """A servicer that does as the test's function says."""

    def __init__(self, policy: RpcPolicy | None = None) -> None:
        self.policy = policy or RpcPolicy()
        self.calls: list[Call] = []
        self.raises: Exception | None = None
        self.closed = False
        self.waits = False

    @property
    def rpc(self) -> RpcPolicy:
        return self.policy

    @unary(pb.GetLoadResponse)
    async def GetLoad(self, request: pb.GetLoadRequest, call: Call) -> pb.GetLoadResponse:
        """Says hello."""
        self.calls.append(call)
        if self.waits:
            await asyncio.sleep(60)
        if self.raises:
            raise self.raises
        return pb.GetLoadResponse(model=request.model)

    @server_stream()
    async def Generate(
        self, request: pb.GenerateRequest, call: Call
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        try:
            for number in range(3):
                yield pb.GenerateResponse(model=f"{request.model}{number}")
            if self.waits:
                await asyncio.sleep(60)
            if self.raises:
                raise self.raises
        finally:
            self.closed = True

    @bidi_stream()
    async def Chat(
        self, requests: AsyncIterator[pb.GetLoadRequest], call: Call
    ) -> AsyncGenerator[pb.GetLoadResponse, None]:
        self.calls.append(call)
        try:
            async for request in requests:
                yield pb.GetLoadResponse(model=request.model)
            if self.raises:
                raise self.raises
        finally:
            self.closed = True


REQUEST = pb.GetLoadRequest(model="m")


async def test_unary_answers_and_returns_the_callers_request_id() -> None:
    echo, context = Echo(), ServeContext(x_request_id="mine-1")
    response = await echo.GetLoad(REQUEST, grpc_context=context)
    assert response.model == "m"
    assert context.code is None
    assert context.trailing["x-request-id"] == "mine-1"
    assert echo.calls[0].request_id == "mine-1"


async def test_unary_makes_a_request_id_for_each_call() -> None:
    echo = Echo()
    contexts = [ServeContext(), ServeContext()]
    for context in contexts:
        await echo.GetLoad(REQUEST, context)
    ids = {context.trailing["x-request-id"] for context in contexts}
    assert len(ids) == 2


@pytest.mark.parametrize("request_id", ["", "with space", "x" * 129, "new\nline", "ümlaut"])
async def test_unary_refuses_a_malformed_request_id(request_id: str) -> None:
    context = ServeContext(x_request_id=request_id)
    await Echo().GetLoad(REQUEST, context)
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.error_info.metadata["field"] == "x-request-id"
    assert context.trailing["x-request-id"] != request_id


async def test_unary_sets_status_and_returns_when_the_method_raises() -> None:
    echo, context = Echo(), ServeContext(x_request_id="r")
    echo.raises = Overloaded("full", retry_after_s=2.0)
    response = await echo.GetLoad(REQUEST, context)
    assert response == pb.GetLoadResponse()
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert context.details == "full"
    assert context.error_info.reason == "OVERLOADED"
    assert dict(context.error_info.metadata) == {"request_id": "r", "retry_after_s": "2"}


async def test_unary_hides_and_logs_what_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    echo, context = Echo(), ServeContext(x_request_id="r-9")
    echo.raises = ZeroDivisionError("a secret of the implementation")
    with caplog.at_level(logging.ERROR, "orrery.rpc"):
        await echo.GetLoad(REQUEST, context)
    assert context.code is grpc.StatusCode.INTERNAL
    assert "secret" not in context.details
    assert "Traceback" not in context.details
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.__dict__["request_id"] == "r-9"


async def test_translate_turns_domain_errors_into_the_taxonomy() -> None:
    def translate(error: Exception) -> OrreryError | None:
        return InvalidRequest("not that", field="n") if isinstance(error, KeyError) else None

    echo, context = Echo(RpcPolicy(translate=translate)), ServeContext()
    echo.raises = KeyError("n")
    await echo.GetLoad(REQUEST, context)
    assert context.error_info.reason == "INVALID_REQUEST"


async def test_unary_asks_for_the_key_before_the_method_runs() -> None:
    echo = Echo(RpcPolicy(authenticator=Authenticator(["k"])))
    refused, let_in = ServeContext(), ServeContext(authorization="Bearer k")
    await echo.GetLoad(REQUEST, refused)
    await echo.GetLoad(REQUEST, let_in)
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert let_in.code is None
    assert len(echo.calls) == 1


async def test_deadline_comes_from_the_header() -> None:
    echo = Echo()
    before = time.monotonic()
    await echo.GetLoad(REQUEST, ServeContext(x_timeout_ms="5000"))
    deadline_s = echo.calls[0].deadline_s
    assert deadline_s is not None
    assert before + 5.0 <= deadline_s <= time.monotonic() + 5.0


@pytest.mark.parametrize("header", ["", "-1", "1.5", "soon", "9" * 13])
async def test_malformed_deadline_is_refused(header: str) -> None:
    context = ServeContext(x_timeout_ms=header)
    await Echo().GetLoad(REQUEST, context)
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.error_info.metadata["field"] == "x-timeout-ms"


async def test_call_past_its_deadline_does_not_run() -> None:
    echo, context = Echo(), ServeContext(x_timeout_ms="0")
    await echo.GetLoad(REQUEST, context)
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not echo.calls


async def test_stream_ends_with_the_status_after_what_was_sent() -> None:
    echo, context = Echo(), ServeContext()
    echo.raises = InvalidRequest("late", field="n")
    messages = [message.model async for message in echo.Generate(pb.GenerateRequest(), context)]
    assert messages == ["0", "1", "2"]
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert echo.policy.lifecycle.num_in_flight == 0


async def test_stream_left_by_its_reader_closes_the_method() -> None:
    echo, context = Echo(), ServeContext()
    stream = echo.Generate(pb.GenerateRequest(), context)
    await anext(stream)  # type: ignore[call-overload]
    await stream.aclose()  # type: ignore[attr-defined]
    assert echo.closed
    assert echo.policy.lifecycle.num_in_flight == 0


async def test_stream_cancelled_while_waiting_closes_the_method_and_stays_cancelled() -> None:
    echo = Echo()
    echo.waits = True

    async def read() -> None:
        async for _ in echo.Generate(pb.GenerateRequest(), ServeContext()):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert echo.closed


async def test_drain_waits_for_running_calls_and_refuses_new_ones() -> None:
    echo, late = Echo(), ServeContext()
    reader = asyncio.create_task(_consume(echo))
    await asyncio.sleep(0.01)
    assert echo.policy.lifecycle.num_in_flight == 1
    assert await echo.policy.lifecycle.drain(limit_s=5.0) == 0
    assert await reader == ["0", "1", "2"]
    await echo.GetLoad(REQUEST, late)
    assert late.code is grpc.StatusCode.UNAVAILABLE
    assert late.error_info.reason == "NOT_READY"


async def _consume(echo: Echo) -> list[str]:
    messages = []
    async for message in echo.Generate(pb.GenerateRequest(), ServeContext()):
        await asyncio.sleep(0.02)
        messages.append(message.model)
    return messages


async def test_drain_cuts_what_outlives_the_limit_as_unavailable() -> None:
    echo, context = Echo(), ServeContext()
    echo.waits = True
    task: asyncio.Task[pb.GetLoadResponse] = asyncio.create_task(
        _await(echo.GetLoad(REQUEST, context))
    )
    await asyncio.sleep(0.01)
    assert await echo.policy.lifecycle.drain(limit_s=0.05) == 1
    await task
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert context.error_info.reason == "NOT_READY"


async def test_stream_cut_while_a_message_is_sent_ends_unavailable_after_it() -> None:
    echo, context = Echo(), ServeContext()
    sent = asyncio.Event()

    async def read() -> None:
        """As gRPC does: its own await between two messages, which a cancellation would end."""
        async for _ in echo.Generate(pb.GenerateRequest(), context):
            await sent.wait()

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    assert await echo.policy.lifecycle.drain(limit_s=0.05) == 1
    assert not reader.done()
    sent.set()
    await reader
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert context.error_info.reason == "NOT_READY"
    assert echo.closed


async def _await(awaitable: Any) -> Any:
    return await awaitable


async def test_observe_is_told_of_every_end() -> None:
    seen: list[tuple[str, str]] = []
    policy = RpcPolicy(observe=lambda method, status, _seconds: seen.append((method, status)))
    echo = Echo(policy)
    await echo.GetLoad(REQUEST, ServeContext())
    echo.raises = InvalidRequest("no")
    await echo.GetLoad(REQUEST, ServeContext())
    stream = echo.Generate(pb.GenerateRequest(), ServeContext())
    await anext(stream)  # type: ignore[call-overload]
    await stream.aclose()  # type: ignore[attr-defined]
    assert seen == [("GetLoad", "OK"), ("GetLoad", "INVALID_ARGUMENT"), ("Generate", "CANCELLED")]


def test_handlers_have_the_signature_that_serve_looks_for() -> None:
    for handler in (Echo.GetLoad, Echo.Generate):
        assert list(inspect.signature(handler).parameters) == ["self", "request", "grpc_context"]
    assert inspect.isasyncgenfunction(Echo.Generate)
    assert inspect.iscoroutinefunction(Echo.GetLoad)
    assert Echo.GetLoad.__name__ == "GetLoad"
    assert Echo.GetLoad.__doc__ == "Says hello."


def test_serve_context_is_a_servicer_context() -> None:
    context: ServicerContext = ServeContext()
    assert context.invocation_metadata() == []


async def _stream(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def test_bidi_answers_each_message_and_returns_the_request_id() -> None:
    echo, context = Echo(), ServeContext(x_request_id="b-1", authorization="Bearer k")
    requests = _stream(*(pb.GetLoadRequest(model=name) for name in "abc"))
    answers = [message.model async for message in echo.Chat(requests, grpc_context=context)]
    assert answers == ["a", "b", "c"]
    assert context.code is None
    assert context.trailing["x-request-id"] == "b-1"
    assert echo.calls[0].authorization == "Bearer k"
    assert "Bearer" not in repr(echo.calls[0])


async def test_bidi_ends_with_the_error_after_the_answers_so_far() -> None:
    echo, context = Echo(), ServeContext()
    echo.raises = Overloaded("full")
    answers = [message async for message in echo.Chat(_stream(REQUEST), context)]
    assert len(answers) == 1
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert echo.closed


async def test_bidi_refuses_bytes_that_are_no_message_where_they_come() -> None:
    echo, context = Echo(), ServeContext()
    requests = _stream(REQUEST, MalformedRequest(), REQUEST)
    answers = [message async for message in echo.Chat(requests, context)]
    assert len(answers) == 1
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert echo.closed


async def test_bidi_closed_by_its_reader_closes_the_method() -> None:
    echo, context = Echo(), ServeContext()
    responses = echo.Chat(_stream(REQUEST, REQUEST), context)
    await anext(aiter(responses))
    await responses.aclose()  # type: ignore[attr-defined]
    assert echo.closed


class _Spans:
    """A tracer that notes what becomes of its spans."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str | None]] = []
        self.ended: list[tuple[str, bool]] = []

    def start(self, name: str, traceparent: str | None, attributes: Mapping[str, str]) -> _Spans:
        assert attributes["request_id"]
        self.begun.append((name, traceparent))
        return self

    @property
    def traceparent(self) -> str | None:
        return "of this span"

    def end(self, status: str, *, failed: bool, name: str | None = None) -> None:
        del name
        self.ended.append((status, failed))


async def test_a_span_ends_with_its_call_however_that_ends() -> None:
    spans = _Spans()
    echo = Echo(RpcPolicy(tracer=spans))
    await echo.GetLoad(REQUEST, grpc_context=ServeContext(traceparent="of the caller"))
    echo.raises = InvalidRequest("no", field="model")
    await echo.GetLoad(REQUEST, grpc_context=ServeContext())
    echo.raises = RuntimeError("a bug")
    await echo.GetLoad(REQUEST, grpc_context=ServeContext())
    stream = echo.Generate(pb.GenerateRequest(), grpc_context=ServeContext())
    await anext(stream)
    await stream.aclose()
    assert spans.begun == [
        ("GetLoad", "of the caller"),
        ("GetLoad", None),
        ("GetLoad", None),
        ("Generate", None),
    ]
    assert spans.ended == [
        ("OK", False),
        ("INVALID_ARGUMENT", False),
        ("INTERNAL", True),
        ("CANCELLED", False),
    ]
    assert echo.calls[0].traceparent == "of this span"


def test_calls_made_on_behalf_of_a_call_are_in_its_trace() -> None:
    call = Call("Ask", "r1", time.monotonic(), None, traceparent="of this span")
    assert Caller.of(call, default_timeout_s=1.0).traceparent == "of this span"

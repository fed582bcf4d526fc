"""What both clients do when calls fail: which are repeated, and how errors look."""

from __future__ import annotations

import math

import grpc
import pytest

import orrery
from orrery.v1 import generation_pb2 as pb
from services.runtime import errors as served
from tests.unit.client.both_clients import AnyClient
from tests.unit.client.conftest import MakeClient
from tests.unit.client.scripted import (
    ScriptedServer,
    abort,
    endless,
    refuse,
    reply,
    stall,
    tokens,
)

UNAVAILABLE = abort(grpc.StatusCode.UNAVAILABLE, "connection refused")


async def test_generate_returns_the_joined_answer(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", tokens("Once", " upon", " a time"))
    result = await client.call("generate", "Tell me", max_tokens=3, temperature=0, request_id="r-1")
    assert result.text == "Once upon a time"
    assert result.choices[0].token_ids == (0, 1, 2)
    assert result.finish_reason == "stop"
    assert result.request_id == "r-1"
    seen = server.calls("Generate")[0]
    assert seen.request.prompt.text == "Tell me"
    assert seen.request.sampling == pb.SamplingParams(max_tokens=3, temperature=0)


async def test_generate_unavailable_twice_succeeds_at_the_third_attempt(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", UNAVAILABLE, UNAVAILABLE, tokens("here"))
    assert (await client.call("generate", "x")).text == "here"
    attempts = server.calls("Generate")
    assert len(attempts) == 3
    assert len({attempt.metadata["x-request-id"] for attempt in attempts}) == 1


@pytest.mark.parametrize("method", ["score", "load"])
async def test_unary_call_unavailable_once_is_repeated(
    server: ScriptedServer, client: AnyClient, method: str
) -> None:
    server.on("Score", UNAVAILABLE, reply(pb.ScoreResponse(perplexity=2.0)))
    server.on("GetLoad", UNAVAILABLE, reply(pb.GetLoadResponse(num_running=2)))
    result = await client.call(method, "scripted")
    assert result is not None
    assert len(server.calls("Score") + server.calls("GetLoad")) == 2


async def test_max_retries_zero_gives_the_first_error(
    server: ScriptedServer, make_client: MakeClient
) -> None:
    server.on("Generate", UNAVAILABLE, tokens("never"))
    with pytest.raises(orrery.UnavailableError, match="connection refused"):
        await make_client(max_retries=0).call("generate", "x")
    assert len(server.calls("Generate")) == 1


async def test_stream_failing_after_the_first_token_is_not_repeated(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", abort(grpc.StatusCode.UNAVAILABLE, "gone", after=tokens("a", "b")))
    stream = client.stream("x")
    events = await client.read(stream, 2)
    with pytest.raises(orrery.UnavailableError):
        await client.read(stream, 1)
    assert [event.text for event in events] == ["a", "b"]
    assert len(server.calls("Generate")) == 1


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.CANCELLED, "RST_STREAM with code CANCEL"),
        (grpc.StatusCode.CANCELLED, ""),
        (grpc.StatusCode.UNKNOWN, "Stream removed"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.INTERNAL, "Internal error from Core"),
        (grpc.StatusCode.UNKNOWN, "Received http2 header with status: 500"),
    ],
)
async def test_cancel_nobody_asked_for_is_a_lost_connection(
    server: ScriptedServer, client: AnyClient, code: grpc.StatusCode, details: str
) -> None:
    server.on("Generate", abort(code, details, after=tokens("a")))
    stream = client.stream("x")
    await client.read(stream, 1)
    with pytest.raises(orrery.ConnectionLostError) as caught:
        await client.read(stream, 1)
    assert isinstance(caught.value, orrery.UnavailableError)
    assert caught.value.reason == "CONNECTION_LOST"
    assert caught.value.request_id == stream.request_id


async def test_replica_lost_before_the_first_token_is_repeated(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", abort(grpc.StatusCode.CANCELLED), tokens("second"))
    assert (await client.call("generate", "x")).text == "second"


async def test_server_that_stops_midstream_is_a_lost_connection(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", endless())
    stream = client.stream("x")
    await client.read(stream, 3)
    await server.grpc_server.stop(grace=None)
    with pytest.raises(orrery.UnavailableError):
        await client.read(stream, 100_000)


async def test_target_where_nobody_listens_is_unavailable(make_client: MakeClient) -> None:
    client = make_client("127.0.0.1:1", max_retries=1)
    with pytest.raises(orrery.UnavailableError):
        await client.call("generate", "x", model="llama")


async def test_overloaded_with_retry_after_waits_that_long(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", refuse(served.Overloaded("full", retry_after_s=0.3)), tokens("ok"))
    assert (await client.call("generate", "x", timeout_s=5)).text == "ok"
    first, second = (int(s.metadata["x-timeout-ms"]) for s in server.calls("Generate"))
    assert first - second >= 300  # what was left shrank at least by the wait


async def test_overloaded_beyond_the_deadline_is_raised_at_once(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", refuse(served.Overloaded("full", retry_after_s=30)), tokens("never"))
    with pytest.raises(orrery.OverloadedError, match="full") as caught:
        await client.call("generate", "x", timeout_s=5)
    assert caught.value.retry_after_s == 30
    assert len(server.calls("Generate")) == 1


async def test_slow_server_ends_at_the_deadline(server: ScriptedServer, client: AnyClient) -> None:
    server.on("Generate", stall())
    with pytest.raises(orrery.DeadlineExceededError):
        await client.call("generate", "x", timeout_s=0.3)
    assert len(server.calls("Generate")) == 1


async def test_deadline_in_the_middle_of_a_stream_is_raised(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", endless())
    with pytest.raises(orrery.DeadlineExceededError):
        await client.call("generate", "x", timeout_s=0.5)


@pytest.mark.parametrize("timeout_s", [0, -1, math.nan])
async def test_timeout_that_is_no_time_is_refused_by_name(
    server: ScriptedServer, client: AnyClient, timeout_s: float
) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await client.call("generate", "x", timeout_s=timeout_s)
    assert caught.value.field == "timeout_s"
    assert server.seen == []


async def test_infinite_timeout_sends_no_deadline(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", tokens("a"))
    await client.call("generate", "x", timeout_s=math.inf)
    assert "x-timeout-ms" not in server.calls("Generate")[0].metadata


async def test_error_of_the_server_carries_reason_field_and_its_request_id(
    server: ScriptedServer, client: AnyClient
) -> None:
    error = served.InvalidRequest("top_p: expected (0, 1]", field="top_p", request_id="of-server")
    server.on("Generate", refuse(error))
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await client.call("generate", "x")
    assert caught.value.message == "top_p: expected (0, 1]"
    assert (caught.value.reason, caught.value.field) == ("INVALID_REQUEST", "top_p")
    assert caught.value.request_id == "of-server"
    assert len(server.calls("Generate")) == 1


async def test_api_key_travels_as_a_bearer_token(
    server: ScriptedServer, make_client: MakeClient
) -> None:
    server.on("Generate", tokens("a"))
    await make_client(api_key="secret-1").call("generate", "x")
    await make_client().call("generate", "x")
    with_key, without = server.calls("Generate")
    assert with_key.metadata["authorization"] == "Bearer secret-1"
    assert "authorization" not in without.metadata


@pytest.mark.parametrize("request_id", ["", "with space", "a" * 129, "ü", "line\nbreak"])
async def test_malformed_request_id_is_refused_by_name(
    server: ScriptedServer, client: AnyClient, request_id: str
) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await client.call("generate", "x", request_id=request_id)
    assert caught.value.field == "request_id"
    assert server.seen == []


async def test_batch_keeps_the_order_and_puts_errors_in_their_place(
    server: ScriptedServer, client: AnyClient
) -> None:
    done = pb.BatchResult(
        completions=[pb.Completion(text="one", finish_reason="FINISH_REASON_STOP")]
    )
    failed = pb.BatchResult(
        error=pb.PromptError(reason="CONTEXT_TOO_LONG", message="too long", field="prompt")
    )
    server.on("GenerateBatch", reply(pb.GenerateBatchResponse(results=[done, failed])))
    first, second = (await client.call("generate_batch", ["a", [1, 2]])).results
    assert first.text == "one"
    assert isinstance(second, orrery.ContextTooLongError)
    assert second.field == "prompt"


async def test_message_larger_than_the_server_takes_is_an_invalid_request(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", tokens("never"))
    with pytest.raises(orrery.InvalidRequestError, match="too large"):
        await client.call("generate", "x" * (5 << 20))
    assert server.calls("Generate") == []


async def test_answer_of_ten_megabytes_arrives(server: ScriptedServer, client: AnyClient) -> None:
    server.on("Generate", tokens("x" * (10 << 20)))
    assert len((await client.call("generate", "x")).text) == 10 << 20


async def test_stream_that_ends_well_without_a_message_is_repeated(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", tokens(), tokens("second"))
    assert (await client.call("generate", "x")).text == "second"


async def test_stream_that_always_ends_without_a_message_is_a_lost_connection(
    server: ScriptedServer, make_client: MakeClient
) -> None:
    server.on("Generate", tokens())
    with pytest.raises(orrery.ConnectionLostError, match="before its first message"):
        await make_client(max_retries=1).call("generate", "x")
    assert len(server.calls("Generate")) == 2


async def test_stream_that_ends_well_half_way_is_a_lost_connection(
    server: ScriptedServer, client: AnyClient
) -> None:
    half = pb.GenerateResponse(choices=[pb.CompletionDelta(text="half")])
    server.on("Generate", reply(half))
    stream = client.stream("x")
    assert [event.text for event in await client.read(stream, 1)] == ["half"]
    with pytest.raises(orrery.ConnectionLostError, match="before the answer was complete"):
        await client.read(stream, 1)
    with pytest.raises(orrery.CancelledError):
        await client.read(stream, 1)
    assert len(server.calls("Generate")) == 1


async def test_closed_client_refuses_to_call(server: ScriptedServer, client: AnyClient) -> None:
    server.on("Generate", tokens("a"))
    await client.call("generate", "x")
    await client.close()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.call("generate", "x")

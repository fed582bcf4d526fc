"""How a stream ends when the caller has had enough."""

from __future__ import annotations

import asyncio
import gc
import threading

import grpc
import pytest

import orrery
from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from tests.fakes.generation_server import generation_server_in_thread
from tests.unit.client.both_clients import AnyClient
from tests.unit.client.scripted import ScriptedServer, abort, endless, stall, tokens

PATIENCE_S = 5.0


async def test_closing_a_stream_cancels_the_call(server: ScriptedServer, client: AnyClient) -> None:
    server.on("Generate", endless())
    stream = client.stream("x")
    assert len(await client.read(stream, 3)) == 3
    await client.close_stream(stream)
    await asyncio.wait_for(server.cancelled.wait(), PATIENCE_S)
    await client.close_stream(stream)


async def test_reading_a_closed_stream_raises_cancelled(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", endless())
    stream = client.stream("x")
    await client.read(stream, 1)
    await client.close_stream(stream)
    with pytest.raises(orrery.CancelledError):
        await client.read(stream, 1)


async def test_closing_an_unread_stream_sends_nothing(
    server: ScriptedServer, client: AnyClient
) -> None:
    stream = client.stream("x")
    await client.close_stream(stream)
    with pytest.raises(orrery.CancelledError):
        await client.read(stream, 1)
    assert server.seen == []


async def test_finished_stream_stays_finished_when_closed(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", tokens("a", "b"))
    stream = client.stream("x")
    assert [event.text for event in await client.read(stream, 10)] == ["a", "b"]
    await client.close_stream(stream)
    assert await client.read(stream, 1) == []


async def test_stream_that_failed_does_not_begin_again(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", abort(grpc.StatusCode.INTERNAL, "broken"), tokens("never"))
    stream = client.stream("x")
    with pytest.raises(orrery.InternalError, match="broken"):
        await client.read(stream, 1)
    with pytest.raises(orrery.CancelledError):
        await client.read(stream, 1)
    assert len(server.calls("Generate")) == 1


@pytest.mark.parametrize("script", [endless(), stall()], ids=["streaming", "silent"])
async def test_closing_while_another_reads_ends_the_reading(
    server: ScriptedServer, client: AnyClient, script: object
) -> None:
    server.on("Generate", script)  # type: ignore[arg-type]
    stream = client.stream("x")
    reading = asyncio.create_task(client.read(stream, 100_000))
    await server.arrival("Generate")
    await client.close_stream(stream)
    with pytest.raises(orrery.CancelledError):
        await asyncio.wait_for(reading, PATIENCE_S)
    await asyncio.wait_for(server.cancelled.wait(), PATIENCE_S)


async def test_closing_the_client_ends_its_streams(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", endless())
    stream = client.stream("x")
    reading = asyncio.create_task(client.read(stream, 100_000))
    await server.arrival("Generate")
    await client.close()
    with pytest.raises(orrery.CancelledError):
        await asyncio.wait_for(reading, PATIENCE_S)
    await asyncio.wait_for(server.cancelled.wait(), PATIENCE_S)


async def test_blocking_stream_left_by_break_cancels_the_call(server: ScriptedServer) -> None:
    server.on("Generate", endless())

    def read_a_little(client: orrery.Client) -> None:
        for event in client.stream("x"):
            if event.text:
                break
        gc.collect()

    with orrery.Client(server.target) as client:
        await asyncio.to_thread(read_a_little, client)
        await asyncio.wait_for(server.cancelled.wait(), PATIENCE_S)


async def test_blocking_stream_left_by_an_exception_cancels_the_call(
    server: ScriptedServer,
) -> None:
    server.on("Generate", endless())

    def fail_while_reading(client: orrery.Client) -> None:
        with client.stream("x") as stream:
            next(stream)
            raise KeyError("of the caller")

    with orrery.Client(server.target) as client:
        with pytest.raises(KeyError):
            await asyncio.to_thread(fail_while_reading, client)
        await asyncio.wait_for(server.cancelled.wait(), PATIENCE_S)


async def test_async_stream_dropped_without_closing_cancels_the_call(
    server: ScriptedServer,
) -> None:
    server.on("Generate", endless())
    async with orrery.AsyncClient(server.target) as client:
        async for _ in client.stream("x"):
            break
        gc.collect()
        await asyncio.wait_for(server.cancelled.wait(), PATIENCE_S)


@pytest.mark.parametrize("script", [endless(), stall()], ids=["streaming", "silent"])
async def test_cancelled_task_cancels_the_call_and_sees_asyncio_cancelled(
    server: ScriptedServer, script: object
) -> None:
    server.on("Generate", script)  # type: ignore[arg-type]
    async with orrery.AsyncClient(server.target) as client:
        task = asyncio.create_task(client.generate("x"))
        await server.arrival("Generate")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.cancelled.wait(), PATIENCE_S)


async def test_cancelled_task_leaves_other_calls_alone(server: ScriptedServer) -> None:
    server.on("Generate", tokens(*"abc", pause_s=0.2))
    async with orrery.AsyncClient(server.target) as client:
        doomed, kept = (asyncio.create_task(client.generate("x")) for _ in range(2))
        await server.arrival("Generate", count=2)
        doomed.cancel()
        assert (await kept).text == "abc"
        with pytest.raises(asyncio.CancelledError):
            await doomed


async def test_result_of_a_half_read_stream_holds_all_of_it(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", tokens("a", "b", "c"))
    stream = client.stream("x")
    await client.read(stream, 1)
    whole = await client.result(stream)
    assert whole.text == "abc"
    assert whole.finish_reason == "stop"


async def test_events_of_several_choices_join_by_index(
    server: ScriptedServer, client: AnyClient
) -> None:
    def delta(index: int, text: str, **others: object) -> pb.CompletionDelta:
        return pb.CompletionDelta(index=index, text=text, **others)  # type: ignore[arg-type]

    logprob = common_pb2.TokenLogprob(token_id=1, token="a", logprob=-0.5, rank=1)
    position = common_pb2.PositionLogprobs(chosen=logprob, top=[logprob])
    first = pb.GenerateResponse(
        model="m",
        prompt_token_ids=[7, 8],
        prompt_logprobs=[common_pb2.PositionLogprobs()],
        choices=[delta(1, "B"), delta(0, "A", logprobs=[position])],
        usage=common_pb2.Usage(prompt_tokens=2, completion_tokens=2),
    )
    last = pb.GenerateResponse(
        model="m",
        choices=[
            delta(0, "a", finish_reason="FINISH_REASON_STOP", stop_string="\n"),
            delta(1, "b", finish_reason="FINISH_REASON_LENGTH", cumulative_logprob=-2.0),
        ],
        usage=common_pb2.Usage(prompt_tokens=2, completion_tokens=4, cached_tokens=1),
        timing=common_pb2.Timing(queue_ns=5, total_ns=9),
    )

    async def handler(request: object, context: object) -> object:
        yield first
        yield last

    server.on("Generate", handler)  # type: ignore[arg-type]
    result = await client.call("generate", "x", n=2, logprobs=1)
    one, two = result.choices
    assert (one.index, one.text, one.finish_reason, one.stop_reason) == (0, "Aa", "stop", "\n")
    assert (two.index, two.text, two.finish_reason, two.stop_reason) == (1, "Bb", "length", None)
    assert two.cumulative_logprob == -2.0
    assert one.cumulative_logprob is None
    assert one.logprobs[0].chosen.token == "a"
    assert result.prompt_token_ids == (7, 8)
    assert result.prompt_logprobs[0].chosen is None
    assert (result.usage.completion_tokens, result.usage.cached_tokens) == (4, 1)
    assert (result.usage.total_tokens, result.timing.total_ns) == (6, 9)


async def test_event_text_is_that_of_the_first_choice(
    server: ScriptedServer, client: AnyClient
) -> None:
    async def handler(request: object, context: object) -> object:
        yield pb.GenerateResponse(choices=[pb.CompletionDelta(index=1, text="second")])
        yield pb.GenerateResponse(
            choices=[
                pb.CompletionDelta(text="fi"),
                pb.CompletionDelta(text="rst", finish_reason="FINISH_REASON_STOP"),
                pb.CompletionDelta(index=1, finish_reason="FINISH_REASON_STOP"),
            ]
        )

    server.on("Generate", handler)  # type: ignore[arg-type]
    assert [event.text for event in await client.read(client.stream("x"), 5)] == ["", "first"]


async def test_finish_reason_from_the_future_is_unknown(
    server: ScriptedServer, client: AnyClient
) -> None:
    delta = pb.CompletionDelta(text="x")
    delta.MergeFromString(b"\x28\x63")  # finish_reason = 99

    async def handler(request: object, context: object) -> object:
        yield pb.GenerateResponse(choices=[delta])

    server.on("Generate", handler)  # type: ignore[arg-type]
    assert (await client.call("generate", "x")).finish_reason == "unknown"


def test_threads_share_one_client() -> None:
    texts: dict[int, str] = {}
    with generation_server_in_thread() as server, orrery.Client(server.target) as client:

        def ask(i: int) -> None:
            texts[i] = client.generate("hi", max_tokens=8, temperature=0).text

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(texts) == 16
    assert len(set(texts.values())) == 1

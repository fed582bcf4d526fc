"""The engine for asyncio: events, places, fairness; the steps never held up."""

from __future__ import annotations

import asyncio
import math
import time

import numpy as np
import pytest
import torch

from services.image.loop.async_engine import AsyncImageEngine
from services.image.loop.jobs import Job, Line
from services.image.loop.prepared import Prepared
from services.image.schedulers import make_plan
from services.image.types import Finished, PictureRequest, Preview, PreviewKind, Progress, Source
from services.runtime.errors import InvalidRequest, Overloaded
from tests.unit.image.asking import LIMITS, Recorder, accepted, collect, is_empty, picture, until
from tests.unit.image.toy_model import ToyModel, toy_request


async def test_stream_tells_every_step_and_ends_with_the_picture(engine: AsyncImageEngine) -> None:
    events = await collect(engine, toy_request(num_steps=6))
    assert events[:-1] == [Progress(step, 6) for step in range(7)]
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.pixels.shape == (8, 8, 3)
    assert min(last.times.queue_s, last.times.denoise_s, last.times.decode_s) >= 0
    load = engine.load()
    assert (load.num_steps_done, load.num_images_done) == (6, 1)


async def test_strength_says_how_many_steps_there_are(engine: AsyncImageEngine) -> None:
    source = Source(np.zeros((8, 8, 3), np.uint8), strength=0.5)
    events = await collect(engine, toy_request(num_steps=10, source=source))
    assert events[:-1] == [Progress(step, 5) for step in range(6)]


async def test_seed_decides_and_the_batch_does_not(engine: AsyncImageEngine) -> None:
    requests = [toy_request(seed % 5, prompt="x" * (seed % 5 + 1)) for seed in range(10)]
    pictures = await asyncio.gather(*(picture(engine, request) for request in requests))
    for i, made in enumerate(pictures):
        assert np.array_equal(made, pictures[i % 5])
    assert len({made.tobytes() for made in pictures}) == 5


async def test_decoded_previews_have_the_pictures_shape(engine: AsyncImageEngine) -> None:
    events = await collect(engine, toy_request(num_steps=9, preview_every=3))
    previews = [event for event in events if isinstance(event, Preview)]
    assert all(preview.step in (3, 6) for preview in previews)
    for preview in previews:
        assert preview.content.shape == (8, 8, 3)
        assert preview.content.dtype == np.uint8


async def test_latent_previews_are_the_estimate_and_cost_no_decoding(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    request = toy_request(num_steps=9, preview_every=2, preview_kind=PreviewKind.LATENT)
    stream = await accepted(engine, request)
    events = [event async for event in stream]
    previews = [event for event in events if isinstance(event, Preview)]
    assert previews
    assert all(preview.content.shape == (3, 4, 4) for preview in previews)
    assert model.num_decoded == 1


async def test_previews_are_dropped_when_decoding_is_slow_and_steps_go_on(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    model.pixels.close()
    stream = await accepted(engine, toy_request(num_steps=40, preview_every=1))
    await until(lambda: engine.load().num_steps_done == 40)
    # The one that is being decoded and the picture itself; no other preview waits.
    model.pixels.open()
    events = [event async for event in stream]
    assert isinstance(events[-1], Finished)
    assert [event for event in events if isinstance(event, Preview)] == []
    assert model.num_decoded == 2


async def test_the_latest_preview_takes_the_place_of_one_not_read(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    model.steps.close()
    request = toy_request(num_steps=6, preview_every=1, preview_kind=PreviewKind.LATENT)
    stream = await accepted(engine, request)
    model.steps.let(4)
    await until(lambda: engine.load().num_steps_done == 4)
    model.steps.open()
    events = [event async for event in stream]
    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2, 3, 4, 5, 6]
    assert len([event for event in events if isinstance(event, Preview)]) < 5


# --- places ---


async def test_a_full_line_refuses_before_anything_is_held(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    model.steps.close()
    streams = [await accepted(engine, toy_request(seed)) for seed in range(10)]  # 4 and 6
    before = engine.load()
    with pytest.raises(Overloaded) as refusal:
        await collect(engine, toy_request())
    assert refusal.value.retry_after_s is not None
    assert refusal.value.retry_after_s >= 1
    assert engine.load().num_waiting + engine.load().num_running == 10
    assert before.num_waiting + before.num_running == 10
    await streams[3].aclose()
    with pytest.raises(Overloaded), engine.reserve(2):
        pass
    with engine.reserve(1):
        pass
    for stream in streams:
        await stream.aclose()


async def test_places_reserved_are_the_calls_until_its_pictures_end(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    with engine.reserve(8) as reservation:
        stream = engine.stream(toy_request(), reservation=reservation)
        await anext(stream)
        with pytest.raises(Overloaded), engine.reserve(3):
            pass
        with engine.reserve(2), pytest.raises(Overloaded):
            await collect(engine, toy_request())
        await stream.aclose()
        with engine.reserve(3):  # that of the picture that ended
            pass
    with engine.reserve(10):
        pass


async def test_a_picture_that_its_reader_has_not_taken_keeps_its_place(
    engine: AsyncImageEngine,
) -> None:
    streams = [await accepted(engine, toy_request(seed, num_steps=1)) for seed in range(10)]
    await until(lambda: engine.load().num_images_done == 10)
    with pytest.raises(Overloaded):
        await collect(engine, toy_request())
    for stream in streams:
        assert isinstance([event async for event in stream][-1], Finished)
    await collect(engine, toy_request())


async def test_steps_that_the_schedule_cannot_take_are_refused(engine: AsyncImageEngine) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await collect(engine, toy_request(num_steps=5000))
    assert refusal.value.field == "num_steps"
    assert engine.failure is None


async def test_strength_that_leaves_no_step_is_refused(engine: AsyncImageEngine) -> None:
    source = Source(np.zeros((8, 8, 3), np.uint8), strength=0.1)
    with pytest.raises(InvalidRequest) as refusal:
        await collect(engine, toy_request(num_steps=5, source=source))
    assert refusal.value.field == "strength"


# --- fairness ---


async def test_a_small_picture_is_done_before_large_ones_that_came_first(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    model.denoiser.before_call = lambda: time.sleep(0.001)
    order: list[str] = []

    async def ask(name: str, request: PictureRequest) -> None:
        await collect(engine, request)
        order.append(name)

    await asyncio.gather(
        *(ask("large", toy_request(i, width=16, height=16, num_steps=20)) for i in range(3)),
        ask("small", toy_request(9, num_steps=20)),
    )
    assert order == ["small", "large", "large", "large"]


async def test_a_small_picture_is_decoded_before_large_ones_that_came_first(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    model.pixels.close()
    order: list[str] = []

    async def ask(name: str, request: PictureRequest) -> None:
        await collect(engine, request)
        order.append(name)

    large = [toy_request(i, width=16, height=16, num_steps=1) for i in range(3)]
    asked = [asyncio.create_task(ask("large", large[0]))]
    await asyncio.to_thread(model.pixels.is_reached.wait, 5)
    asked += [asyncio.create_task(ask("large", request)) for request in large[1:]]
    await until(lambda: engine.load().num_decoding == 3)
    asked.append(asyncio.create_task(ask("small", toy_request(9))))
    await until(lambda: engine.load().num_decoding == 4)
    model.pixels.open()
    await asyncio.gather(*asked)
    assert order == ["large", "small", "large", "large"]


def test_large_pictures_are_decoded_among_small_ones_that_keep_coming() -> None:
    line, taken = Line(), []
    large, small = torch.zeros(4, 32, 32), torch.zeros(4, 8, 8)
    line.add_final(toy_job(), large)
    for _ in range(40):
        line.add_final(toy_job(), small)
        taken.append(line.take_decode_task().latents.shape[1])
    assert taken.count(32) == 1
    assert taken.index(32) == 15  # as many latents in small ones came first


async def test_waiting_pictures_join_first_come_first_served(
    engine: AsyncImageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[int] = []
    batch = engine._workers._engine
    add = batch.add

    def remember(prepared: Prepared) -> int:
        joined.append(prepared.generator.initial_seed())
        return add(prepared)

    monkeypatch.setattr(batch, "add", remember)
    sizes = [4, 16, 8, 4, 8, 16, 4, 4, 16, 8]
    requests = [toy_request(seed, width=size) for seed, size in enumerate(sizes)]
    await asyncio.gather(*(collect(engine, request) for request in requests))
    assert joined == list(range(10))


# --- what an observer hears ---


async def test_observer_hears_of_every_call(model: ToyModel) -> None:
    recorder = Recorder()
    engine = AsyncImageEngine(model, LIMITS, recorder)
    await asyncio.gather(*(collect(engine, toy_request(seed, num_steps=7)) for seed in range(3)))
    await engine.close()
    assert sum(stats.num_pictures for stats in recorder.steps) == 21
    assert max(load.num_running for load in recorder.loads) <= 4
    assert max(load.state_bytes for load in recorder.loads) > 0
    assert max(stats.num_rows for stats in recorder.steps) <= 6


@pytest.mark.parametrize("held", ["prompts", "steps", "pixels"])
async def test_observer_is_told_last_that_nothing_is_held(model: ToyModel, held: str) -> None:
    """Of a cancelled picture too, whose memory is given back after its stream has ended."""
    recorder = Recorder()
    engine = AsyncImageEngine(model, LIMITS, recorder)
    gate = getattr(model, held)
    gate.close()
    stream = await accepted(engine, toy_request())
    await asyncio.to_thread(gate.is_reached.wait, 5)
    await stream.aclose()
    gate.open()
    await until(lambda: recorder.loads[-1].state_bytes == 0 and is_empty(engine))
    last = recorder.loads[-1]
    assert (last.num_running, last.num_waiting, last.num_decoding) == (0, 0, 0)
    await engine.close()
    assert recorder.loads[-1] == last


def toy_job() -> Job:
    request = toy_request()
    plan = make_plan(ToyModel().schedule, request.sampling, None)
    return Job(request, plan, math.inf, 0.0, asyncio.Event())

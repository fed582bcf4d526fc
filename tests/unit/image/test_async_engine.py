"""The engine for asyncio: one outcome each, everything given back, the steps never held up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from services.image.loop.async_engine import AsyncImageEngine
from services.image.loop.limits import EngineLimits
from services.image.loop.stats import EngineLoad, StepStats
from services.image.types import (
    Event,
    Finished,
    PictureRequest,
    Preview,
    PreviewKind,
    Progress,
    SchedulerName,
    Source,
)
from services.runtime.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    NotReady,
    OrreryError,
    Overloaded,
)
from tests.unit.image.toy_model import BROKEN, NOT_A_NUMBER, UNREADABLE, ToyModel, toy_request

LIMITS = EngineLimits(max_running=4, max_waiting=6, max_pixels_per_call=200)


class Recorder:
    def __init__(self) -> None:
        self.steps: list[StepStats] = []
        self.loads: list[EngineLoad] = []

    def step_finished(self, stats: StepStats, load: EngineLoad) -> None:
        self.steps.append(stats)
        self.loads.append(load)


@pytest.fixture
def model() -> ToyModel:
    return ToyModel()


@pytest.fixture
async def engine(model: ToyModel) -> AsyncIterator[AsyncImageEngine]:
    """Whatever a test did, nothing is held once its streams are closed."""
    engine = AsyncImageEngine(model, LIMITS)
    yield engine
    for gate in (model.prompts, model.steps, model.pixels):
        gate.open()
    await until(lambda: is_empty(engine))
    engine.check_integrity()
    await engine.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to be")


def is_empty(engine: AsyncImageEngine) -> bool:
    load = engine.load()
    held = (load.num_running, load.num_waiting, load.num_decoding, load.state_bytes)
    return held == (0, 0, 0, 0) and engine._line.preparing is None and not engine._jobs


async def collect(
    engine: AsyncImageEngine, request: PictureRequest, in_s: float | None = None
) -> list[Event]:
    deadline_s = None if in_s is None else time.monotonic() + in_s
    async with aclosing(engine.stream(request, deadline_s=deadline_s)) as stream:
        return [event async for event in stream]


async def picture(engine: AsyncImageEngine, request: PictureRequest) -> np.ndarray:
    last = (await collect(engine, request))[-1]
    assert isinstance(last, Finished)
    return last.pixels


async def accepted(engine: AsyncImageEngine, request: PictureRequest, **options: Any) -> Any:
    """A stream whose first event was read."""
    stream = engine.stream(request, **options)
    first = await anext(stream)
    assert isinstance(first, Progress)
    assert first.step == 0
    return stream


# --- events -----------------------------------------------------------------------------------


async def test_stream_tells_every_step_and_ends_with_the_picture(engine: AsyncImageEngine) -> None:
    events = await collect(engine, toy_request(num_steps=6))
    assert events[:-1] == [Progress(step, 6) for step in range(7)]
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.pixels.shape == (8, 8, 3)
    assert min(last.queue_s, last.denoise_s, last.decode_s) >= 0
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


# --- refused ----------------------------------------------------------------------------------


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
    with pytest.raises(Overloaded):
        engine.ensure_room(1)
    assert engine.load().num_waiting + engine.load().num_running == 10
    assert before.num_waiting + before.num_running == 10
    await streams[3].aclose()
    await until(lambda: engine.load().num_waiting + engine.load().num_running == 9)
    engine.ensure_room(1)
    with pytest.raises(Overloaded):
        engine.ensure_room(2)
    for stream in streams:
        await stream.aclose()


async def test_steps_that_the_schedule_cannot_take_are_refused(engine: AsyncImageEngine) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await collect(engine, toy_request(num_steps=5000))
    assert refusal.value.field == "num_steps"
    assert engine.healthy


# --- deadlines --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "stage"), [("prompts", "queue"), ("steps", "denoise"), ("pixels", "decode")]
)
async def test_deadline_ends_a_picture_at_any_stage_and_says_which(
    engine: AsyncImageEngine, model: ToyModel, held: str, stage: str
) -> None:
    await collect(engine, toy_request())
    getattr(model, held).close()
    with pytest.raises(DeadlineExceeded) as error:
        await collect(engine, toy_request(), in_s=1.5)
    assert error.value.stage == stage
    assert not engine._jobs


async def test_a_deadline_in_the_past_is_refused_at_once(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    with pytest.raises(DeadlineExceeded) as error:
        await collect(engine, toy_request(), in_s=-1)
    assert error.value.stage == "queue"
    assert engine._threads == []


async def test_deadline_passes_while_the_reader_sleeps(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    model.steps.close()
    stream = await accepted(engine, toy_request(), deadline_s=time.monotonic() + 0.05)
    await until(lambda: not engine._jobs)  # nobody reads
    with pytest.raises(DeadlineExceeded):
        await anext(stream)


# --- leaving ----------------------------------------------------------------------------------


@pytest.mark.parametrize("held", ["prompts", "steps", "pixels"])
async def test_closing_the_stream_gives_everything_back(
    engine: AsyncImageEngine, model: ToyModel, held: str
) -> None:
    gate = getattr(model, held)
    gate.close()
    stream = await accepted(engine, toy_request())
    await asyncio.to_thread(gate.is_reached.wait, 5)
    await stream.aclose()
    assert not engine._jobs
    gate.open()
    await until(lambda: is_empty(engine))
    assert engine.load().num_images_done == 0


async def test_a_picture_cancelled_in_line_costs_no_step(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    model.steps.close()
    running = [await accepted(engine, toy_request(seed)) for seed in range(4)]
    waiting = await accepted(engine, toy_request(9, width=4, height=4))
    await waiting.aclose()
    model.steps.open()
    for stream in running:
        assert isinstance([event async for event in stream][-1], Finished)
    assert (2, 2) not in {(height, width) for _, height, width in model.denoiser.calls}


async def test_two_hundred_cancels_at_random_steps_and_deadlines_leave_nothing(
    model: ToyModel,
) -> None:
    rng = random.Random(11)
    engine = AsyncImageEngine(model, EngineLimits(max_running=24, max_waiting=300))
    model.denoiser.before_call = lambda: time.sleep(0.0005)
    outcomes = {"finished": 0, "cancelled": 0, "deadline": 0}

    async def ask(seed: int) -> None:
        request = toy_request(
            seed,
            num_steps=rng.randint(1, 30),
            width=rng.choice([4, 8]),
            guidance_scale=rng.choice([1.0, 4.0]),
            preview_every=rng.choice([0, 1]),
            scheduler=rng.choice(list(SchedulerName)),
        )
        # One in five may end; the others are given up at some step, the last one too.
        stop_at = -1 if seed % 5 == 0 else rng.randint(0, request.sampling.num_steps)
        in_s = rng.choice([None, None, rng.random()])
        deadline_s = None if in_s is None else time.monotonic() + in_s
        try:
            async with aclosing(engine.stream(request, deadline_s=deadline_s)) as stream:
                async for event in stream:
                    if isinstance(event, Finished):
                        outcomes["finished"] += 1
                    elif isinstance(event, Progress) and event.step == stop_at:
                        outcomes["cancelled"] += 1
                        return
        except DeadlineExceeded:
            outcomes["deadline"] += 1

    tasks = [asyncio.create_task(ask(seed)) for seed in range(260)]
    for task in rng.sample(tasks, 60):
        await asyncio.sleep(0.002)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    num_killed = sum(task.cancelled() for task in tasks)
    assert sum(outcomes.values()) + num_killed == 260
    assert outcomes["cancelled"] + outcomes["deadline"] + num_killed >= 200
    await until(lambda: is_empty(engine))
    engine.check_integrity()
    assert engine.load().num_images_done >= outcomes["finished"]
    await engine.close()
    assert [thread for thread in engine._threads if thread.is_alive()] == []


# --- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [UNREADABLE, BROKEN, NOT_A_NUMBER])
async def test_a_picture_that_breaks_fails_alone(engine: AsyncImageEngine, prompt: str) -> None:
    expected = await picture(engine, toy_request(1, num_steps=20))
    results = await asyncio.gather(
        picture(engine, toy_request(1, num_steps=20)),
        picture(engine, toy_request(2, num_steps=20, prompt=prompt)),
        picture(engine, toy_request(1, num_steps=20)),
        return_exceptions=True,
    )
    assert isinstance(results[1], Internal)
    assert results[1].__cause__ is not None
    assert np.array_equal(results[0], expected)
    assert np.array_equal(results[2], expected)
    assert engine.healthy


async def test_a_decoder_that_fails_ends_the_picture(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    def fail() -> None:
        raise RuntimeError("no memory")

    model.on_decode = fail
    with pytest.raises(Internal):
        await collect(engine, toy_request())
    model.on_decode = lambda: None
    await collect(engine, toy_request())


async def test_failures_in_a_row_are_unhealthy_until_one_succeeds(
    engine: AsyncImageEngine,
) -> None:
    for _ in range(3):
        assert engine.healthy
        with pytest.raises(Internal):
            await collect(engine, toy_request(prompt=BROKEN))
    assert not engine.healthy
    await collect(engine, toy_request())
    assert engine.healthy


async def test_a_dead_loop_ends_every_stream_and_refuses_more(model: ToyModel) -> None:
    class Dying(Recorder):
        def step_finished(self, stats: StepStats, load: EngineLoad) -> None:
            raise RuntimeError("the loop is broken")

    engine = AsyncImageEngine(model, LIMITS, Dying())
    results = await asyncio.gather(
        *(collect(engine, toy_request(seed)) for seed in range(6)), return_exceptions=True
    )
    assert all(isinstance(result, OrreryError) for result in results)
    assert not engine.healthy
    with pytest.raises(NotReady):
        await collect(engine, toy_request())
    await engine.close()


# --- fairness ---------------------------------------------------------------------------------


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


async def test_waiting_pictures_join_first_come_first_served(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    model.steps.close()
    done: list[int] = []

    async def ask(seed: int) -> None:
        await collect(engine, toy_request(seed, num_steps=3 if seed < 4 else 2))
        done.append(seed)

    tasks = []
    for seed in range(10):
        tasks.append(asyncio.create_task(ask(seed)))
        await asyncio.sleep(0)
    model.steps.open()
    await asyncio.gather(*tasks)
    assert sorted(done[:4]) == [0, 1, 2, 3]
    assert sorted(done[4:8]) == [4, 5, 6, 7]


# --- closing ----------------------------------------------------------------------------------


async def test_closing_lets_what_runs_end_within_its_time(model: ToyModel) -> None:
    engine = AsyncImageEngine(model, LIMITS)
    stream = await accepted(engine, toy_request())

    async def rest() -> list[Event]:
        return [event async for event in stream]

    reading = asyncio.create_task(rest())
    await engine.close(drain_timeout_s=10)
    assert isinstance((await reading)[-1], Finished)
    with pytest.raises(NotReady):
        await collect(engine, toy_request())


async def test_closing_ends_what_does_not(model: ToyModel) -> None:
    engine = AsyncImageEngine(model, LIMITS)
    model.steps.close()
    reading = asyncio.create_task(collect(engine, toy_request()))
    await asyncio.to_thread(model.steps.is_reached.wait, 5)
    closing = asyncio.create_task(engine.close(drain_timeout_s=0.05))
    with pytest.raises(NotReady):
        await reading
    model.steps.open()
    await closing
    assert [thread for thread in engine._threads if thread.is_alive()] == []


async def test_an_unused_engine_closes(model: ToyModel) -> None:
    await AsyncImageEngine(model).close(drain_timeout_s=1)


async def test_observer_hears_of_every_call(model: ToyModel) -> None:
    recorder = Recorder()
    engine = AsyncImageEngine(model, LIMITS, recorder)
    await asyncio.gather(*(collect(engine, toy_request(seed, num_steps=7)) for seed in range(3)))
    await engine.close()
    assert sum(stats.num_pictures for stats in recorder.steps) == 21
    assert recorder.loads[-1].num_running == 0
    assert max(load.num_running for load in recorder.loads) <= 4
    assert max(stats.num_rows for stats in recorder.steps) <= 6

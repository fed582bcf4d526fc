"""However a picture ends: one outcome, everything given back, the others as if it had not been."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from services.image.loop import async_engine
from services.image.loop.async_engine import AsyncImageEngine
from services.image.loop.limits import EngineLimits
from services.image.loop.stats import StepStats
from services.image.schedulers import make_plan
from services.image.types import Event, Finished, Progress, SchedulerName
from services.runtime.errors import DeadlineExceeded, Internal, NotReady, OrreryError
from tests.unit.image.asking import LIMITS, Recorder, accepted, collect, is_empty, picture, until
from tests.unit.image.toy_model import BROKEN, NOT_A_NUMBER, UNREADABLE, ToyModel, toy_request


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
    assert not engine._workers._jobs


async def test_a_deadline_in_the_past_is_refused_at_once(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    with pytest.raises(DeadlineExceeded) as error:
        await collect(engine, toy_request(), in_s=-1)
    assert error.value.stage == "queue"
    assert engine._workers._threads == []


async def test_deadline_passes_while_the_reader_sleeps(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    model.steps.close()
    stream = await accepted(engine, toy_request(), deadline_s=time.monotonic() + 0.05)
    await until(lambda: not engine._workers._jobs)  # nobody reads
    with pytest.raises(DeadlineExceeded):
        await anext(stream)


# --- leaving ---


@pytest.mark.parametrize("held", ["prompts", "steps", "pixels"])
async def test_closing_the_stream_gives_everything_back(
    engine: AsyncImageEngine, model: ToyModel, held: str
) -> None:
    gate = getattr(model, held)
    gate.close()
    stream = await accepted(engine, toy_request())
    await asyncio.to_thread(gate.is_reached.wait, 5)
    await stream.aclose()
    assert not engine._workers._jobs
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


@pytest.mark.usefixtures("only_new_objects")
async def test_two_hundred_cancels_at_random_steps_and_deadlines_leave_nothing(
    model: ToyModel,
) -> None:
    engine = AsyncImageEngine(model, EngineLimits(max_running=24, max_waiting=300))
    model.denoiser.before_call = lambda: time.sleep(0.0005)
    await collect(engine, toy_request())
    before = live_tensors()
    outcomes = await ask_and_leave(engine, 260)
    assert sum(outcomes.values()) == 260
    assert 260 - outcomes["finished"] >= 200
    await until(lambda: is_empty(engine))
    engine.check_integrity()
    assert engine.load().num_images_done >= outcomes["finished"]
    await until(lambda: live_tensors() <= before)  # whatever the engine itself says
    await engine.close()
    assert [thread for thread in engine._workers._threads if thread.is_alive()] == []


async def ask_and_leave(engine: AsyncImageEngine, num_pictures: int) -> Counter[str]:
    """Gives up four pictures of five: at some step, the last one too, in line, when time is up."""
    rng = random.Random(11)
    outcomes: Counter[str] = Counter()

    async def ask(seed: int) -> None:
        request = toy_request(
            seed,
            num_steps=rng.randint(1, 30),
            width=rng.choice([4, 8]),
            guidance_scale=rng.choice([1.0, 4.0]),
            preview_every=rng.choice([0, 1]),
            scheduler=rng.choice(list(SchedulerName)),
        )
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

    tasks = [asyncio.create_task(ask(seed)) for seed in range(num_pictures)]
    for task in rng.sample(tasks, 60):
        await asyncio.sleep(0.002)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    outcomes["killed"] = sum(task.cancelled() for task in tasks)
    return outcomes


def live_tensors() -> Counter[int]:
    """How many there are in this process, by the bytes of what they are of."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
    strided = [tensor for tensor in tensors if tensor.layout is torch.strided]
    return Counter(tensor.untyped_storage().nbytes() for tensor in strided)


# --- failures ---


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
    assert engine.failure is None


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


@pytest.mark.parametrize("kind", ["prompts", "steps", "pixels"])
async def test_work_of_one_kind_that_fails_every_time_is_unhealthy_until_it_succeeds(
    engine: AsyncImageEngine, model: ToyModel, kind: str
) -> None:
    def fail() -> None:
        raise RuntimeError("the device is lost")

    gate = getattr(model, kind)
    whole, gate.pass_through = gate.pass_through, fail
    for _ in range(3):
        assert engine.failure is None
        with pytest.raises(Internal):
            await collect(engine, toy_request())
    assert engine.failure is not None
    gate.pass_through = whole
    await collect(engine, toy_request())
    assert engine.failure is None


@pytest.mark.parametrize("kind", ["prompts", "steps", "pixels"])
async def test_work_that_does_not_end_is_told_until_it_does(model: ToyModel, kind: str) -> None:
    engine = AsyncImageEngine(model, replace(LIMITS, stuck_after_s=0.01))
    gate = getattr(model, kind)
    gate.close()
    asked = asyncio.create_task(collect(engine, toy_request()))
    await until(lambda: "has been under way" in (engine.failure or ""))
    gate.open()
    await asked
    assert engine.failure is None
    await engine.close()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError()])
async def test_pictures_too_large_say_nothing_of_the_model(
    engine: AsyncImageEngine, model: ToyModel, error: Exception
) -> None:
    def fail() -> None:
        raise error

    model.denoiser.before_call = fail
    for _ in range(5):
        with pytest.raises(Internal):
            await collect(engine, toy_request())
    assert engine.failure is None


async def test_pictures_whose_numbers_are_none_say_nothing_of_the_model(
    engine: AsyncImageEngine,
) -> None:
    for _ in range(5):
        with pytest.raises(Internal):
            await collect(engine, toy_request(prompt=NOT_A_NUMBER))
    assert engine.failure is None


async def test_pictures_that_break_together_are_one_failure(
    engine: AsyncImageEngine, model: ToyModel
) -> None:
    model.steps.close()
    asked = [asyncio.create_task(collect(engine, toy_request(prompt=BROKEN)))]
    await asyncio.to_thread(model.steps.is_reached.wait, 5)
    asked += [asyncio.create_task(collect(engine, toy_request(prompt=BROKEN))) for _ in range(3)]
    await until(lambda: len(engine._workers._line.ready) == 3)
    model.steps.open()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(result, Internal) for result in results)
    assert engine.failure is None  # of two calls of the model


async def test_a_dead_loop_ends_every_stream_and_refuses_more(model: ToyModel) -> None:
    class Dying(Recorder):
        def step_finished(self, stats: StepStats) -> None:
            raise RuntimeError("the loop is broken")

    engine = AsyncImageEngine(model, LIMITS, Dying())
    results = await asyncio.gather(
        *(collect(engine, toy_request(seed)) for seed in range(6)), return_exceptions=True
    )
    assert all(isinstance(result, OrreryError) for result in results)
    assert engine.failure is not None
    with pytest.raises(NotReady):
        await collect(engine, toy_request())
    await engine.close()


async def test_a_picture_that_comes_while_the_loop_dies_is_refused_too(
    engine: AsyncImageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the place it is given and the line nothing is known to be alive."""

    def planned(*_: Any) -> Any:
        engine._workers.refuse("the image engine has stopped")
        return make_plan(*_)

    monkeypatch.setattr(async_engine, "make_plan", planned)
    with engine.reserve(1) as reservation, pytest.raises(NotReady):
        async with aclosing(engine.stream(toy_request(), reservation=reservation)) as stream:
            await anext(stream)


# --- closing ---


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
    assert [thread for thread in engine._workers._threads if thread.is_alive()] == []


async def test_an_unused_engine_closes(model: ToyModel) -> None:
    await AsyncImageEngine(model).close(drain_timeout_s=1)

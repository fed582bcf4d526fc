"""A call's pictures, over the scripted engine: which events, in what order, and what is held."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.image.checks import PreviewWish
from services.image.events import Advanced, Done, LatentPreview, Made, PngPreview
from services.image.types import Event, PictureRequest, PreviewKind
from services.runtime.errors import (
    ContextTooLong,
    DeadlineExceeded,
    DependencyDown,
    Internal,
    InvalidRequest,
    Overloaded,
)
from services.runtime.peer import Caller
from tests.fakes.image_server import CONFIG, ScriptedRanker
from tests.fakes.scripted_images import ScriptedEngine, ScriptedSettings, picture_of, scripted_model
from tests.unit.image.serving import Served, made, serving, wish


async def test_progress_of_every_step_then_the_picture_then_done() -> None:
    async with serving() as served:
        events = await served.events(wish())
    assert events[:5] == [Advanced(0, step, 4) for step in range(5)]
    assert isinstance(events[5], Made)
    assert isinstance(events[6], Done)
    assert len(events) == 7
    assert events[6].num_prompt_tokens == 5


async def test_picture_is_what_the_engine_made_and_tells_how() -> None:
    async with serving() as served:
        (picture,) = made(
            await served.events(
                wish(negative_prompt="blue", width=72, height=48, guidance_scale=3.0)
            )
        )
    request = served.engine.requests[0]
    assert (request.prompt, request.negative_prompt) == ("a red circle", "blue")
    image = Image.open(io.BytesIO(picture.png))
    np.testing.assert_array_equal(np.asarray(image), picture_of(request))
    assert image.size == (72, 48)
    assert image.text["prompt"] == "a red circle"
    assert image.text["negative_prompt"] == "blue"
    assert image.text["model"] == CONFIG.model_name
    assert image.text["weight_hash"] == scripted_model().weight_hash
    assert json.loads(image.text["recipe"]) == {
        "seed": 7, "width": 72, "height": 48, "num_steps": 4, "scheduler": "dpm_solver_pp_2m",
        "guidance_scale": 3.0, "guidance_rescale": 0.0, "eta": 0.0, "karras_sigmas": False,
    }  # fmt: skip


async def test_n_pictures_have_a_seed_each_and_their_own_steps_in_order() -> None:
    async with serving() as served:
        events = await served.events(wish(n=3))
    assert [request.seed for request in served.engine.requests] == [7, 8, 9]
    for index in range(3):
        steps = [e.step for e in events if isinstance(e, Advanced) and e.index == index]
        assert steps == [0, 1, 2, 3, 4]
    assert sorted(picture.index for picture in made(events)) == [0, 1, 2]
    assert len({picture.png for picture in made(events)}) == 3
    for picture in made(events):
        assert picture.request.seed == 7 + picture.index
    assert isinstance(events[-1], Done)


async def test_previews_come_every_so_many_steps_but_not_at_the_last() -> None:
    async with serving() as served:
        events = await served.events(wish(previews=PreviewWish(2, PreviewKind.DECODED)))
        latent = await served.events(wish(previews=PreviewWish(1, PreviewKind.LATENT)))
    previews = [event for event in events if isinstance(event, PngPreview)]
    assert [preview.step for preview in previews] == [2]
    assert Image.open(io.BytesIO(previews[0].png)).size == (64, 64)
    shapes = [event.latents.shape for event in latent if isinstance(event, LatentPreview)]
    assert shapes == [(4, 8, 8)] * 3


async def test_ranked_pictures_come_last_and_the_best_first() -> None:
    async with serving() as served:
        events = await served.events(wish(n=5, rank_by_similarity=True))
        best = await served.events(wish(n=5, rank_by_similarity=True, top_n=2))
        plain = await served.events(wish(n=5))
    assert served.ranker.asked == [5, 5]
    kinds = [type(event) for event in events]
    assert kinds[-6:] == [Made] * 5 + [Done]
    cosines = [picture.similarity for picture in made(events)]
    assert cosines == sorted(cosines, key=lambda value: -(value or 0.0))
    assert None not in cosines
    assert [p.index for p in made(best)] == [p.index for p in made(events)][:2]
    assert all(picture.similarity is None for picture in made(plain))


async def test_clip_is_shown_large_pictures_made_smaller() -> None:
    shown = []

    class Looking(ScriptedRanker):
        async def similarities(self, prompt: str, pngs: Any, caller: Caller) -> list[float]:
            shown.extend(Image.open(io.BytesIO(png)).size for png in pngs)
            return await super().similarities(prompt, pngs, caller)

    served = Served(ranker=Looking())
    events = await served.events(wish(width=2048, height=256, rank_by_similarity=True))
    served.service.close()
    assert shown == [(512, 64)]
    assert Image.open(io.BytesIO(made(events)[0].png)).size == (2048, 256)


async def test_clip_that_is_away_refuses_before_anything_is_made() -> None:
    async with serving() as served:
        served.ranker.fails_with = DependencyDown("the service 'clip' does not answer")
        with pytest.raises(DependencyDown):
            await served.events(wish(rank_by_similarity=True))
        assert served.engine.requests == []


async def test_one_that_fails_ends_the_call_and_frees_the_rest() -> None:
    async with serving(ScriptedSettings(step_s=0.001)) as served:
        served.engine.fails_on = "red"
        with pytest.raises(Internal):
            await served.events(wish(n=4, num_steps=100))
        assert served.engine.holds == 0
        reasons = {"internal", "cancelled"}
        counts = {r: served.sample("images_total", finished_reason=r) for r in reasons}
        assert sum(counts.values()) == 4
        assert counts["internal"] >= 1


async def test_closing_the_stream_frees_all_pictures() -> None:
    async with serving(ScriptedSettings(step_s=0.001)) as served:
        async with aclosing(served.make(wish(n=6, num_steps=100))) as events:
            async for event in events:
                if isinstance(event, Advanced) and event.step == 3:
                    break
            assert served.engine.holds == 6
        assert served.engine.holds == 0
        assert served.sample("images_total", finished_reason="cancelled") == 6
        assert served.sample("requests_orphaned_total") == 6


async def test_cancelled_task_frees_all_pictures() -> None:
    async with serving(ScriptedSettings(step_s=0.001)) as served:
        task = asyncio.create_task(served.events(wish(n=6, num_steps=100)))
        await asyncio.sleep(0.02)
        assert served.engine.load().num_running
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert served.engine.holds == 0


@pytest.mark.parametrize(("running", "stage"), [(0, "denoise"), (1, "queue")])
async def test_deadline_names_its_stage(running: int, stage: str) -> None:
    async with serving(ScriptedSettings(step_s=0.01, max_running=1)) as served:
        others = [asyncio.create_task(served.events(wish(num_steps=100))) for _ in range(running)]
        await asyncio.sleep(0.02)
        with pytest.raises(DeadlineExceeded) as caught:
            await served.events(wish(num_steps=100), seconds=0.1)
        assert caught.value.stage == stage
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def test_full_line_refuses_the_whole_call_before_it_reads_a_picture() -> None:
    async with serving(ScriptedSettings(max_running=1, max_waiting=1, step_s=0.01)) as served:
        with pytest.raises(Overloaded) as caught:
            await served.events(wish(n=3))
        assert caught.value.retry_after_s is not None
        assert served.engine.requests == []


async def test_bad_wishes_never_reach_the_engine() -> None:
    async with serving() as served:
        for bad in (
            wish(" "),
            wish(num_steps=0),
            wish(n=0),
            wish(width=60),
            wish(negative_prompt="x", guidance_scale=1.0),
        ):
            with pytest.raises(InvalidRequest):
                await served.events(bad)
        for long, field in (
            (wish("word " * 80), "prompt"),
            (wish(negative_prompt="word " * 80), "parameters.negative_prompt"),
        ):
            with pytest.raises(ContextTooLong) as caught:
                await served.events(long)
            assert caught.value.field == field
        assert served.engine.requests == []


@pytest.mark.parametrize(
    ("field", "told"), [("num_steps", "parameters.num_steps"), ("strength", "strength")]
)
async def test_refusal_by_the_schedule_names_the_contracts_field(field: str, told: str) -> None:
    class Refusing(ScriptedEngine):
        async def stream(self, request: PictureRequest, **_: Any) -> AsyncGenerator[Event, None]:
            raise InvalidRequest(f"{field}: the schedule has 1000 levels", field=field)
            yield

    served = Served(engine=Refusing())
    with pytest.raises(InvalidRequest) as caught:
        await served.events(wish())
    assert (caught.value.field, caught.value.message) == (
        told,
        f"{told}: the schedule has 1000 levels",
    )
    served.service.close()


async def test_metrics_count_each_picture_once() -> None:
    async with serving() as served:
        await served.events(wish(n=3))
        assert served.sample("images_total", finished_reason="done") == 3
        assert served.sample("e2e_request_latency_seconds_count") == 3
        assert served.sample("request_queue_time_seconds_count") == 3
        assert served.sample("prompt_tokens_total") == 5
        assert served.sample("image_rank_seconds_count") == 0
        await served.events(wish(rank_by_similarity=True))
        assert served.sample("image_rank_seconds_count") == 1

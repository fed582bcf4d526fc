"""The work of the service: a call's pictures from the engine, ranked if asked for, as one stream.

Puts together reading, the engine, PNG and the ranking. Knows nothing of gRPC, protobuf or Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar, cast

from services.image.checks import invalid
from services.image.config import RANKED_SIDE, ImageConfig
from services.image.events import (
    Advanced,
    Done,
    LatentPreview,
    Made,
    PngPreview,
    ServiceEvent,
)
from services.image.loop.stats import EngineLoad
from services.image.merging import merged
from services.image.metrics import ImageMetrics
from services.image.png import Provenance, encode_png, encode_small_png
from services.image.ranking import Ranker, best_first
from services.image.served_model import ServedModel
from services.image.types import (
    Event,
    Finished,
    Latents,
    PictureRequest,
    Pixels,
    Preview,
    PreviewKind,
    Progress,
)
from services.image.wishes import PicturesToMake, Wish, WishReader
from services.runtime.errors import DeadlineExceeded, InvalidRequest, kind_of
from services.runtime.peer import Caller

__all__ = [
    "Engine",
    "ImageService",
]

# Decoding what is sent and encoding what is made; the engine has threads of its own.
_PIXEL_THREADS = 2

T = TypeVar("T")


class Engine(Protocol):
    """What makes the pictures: `services.image.loop.async_engine.AsyncImageEngine`."""

    @property
    def healthy(self) -> bool: ...
    def load(self) -> EngineLoad: ...
    def ensure_room(self, num_pictures: int) -> None: ...
    def stream(
        self, request: PictureRequest, *, deadline_s: float | None = None
    ) -> AsyncGenerator[Event, None]: ...
    async def close(self, drain_timeout_s: float = 0.0) -> None: ...


class ImageService:
    """Makes pictures for one event loop. The engine stays its maker's to close."""

    def __init__(
        self,
        config: ImageConfig,
        model: ServedModel,
        engine: Engine,
        ranker: Ranker | None,
        metrics: ImageMetrics,
    ) -> None:
        self._config = config
        self._model = model
        self._engine = engine
        self._ranker = ranker
        self._metrics = metrics
        self._pixels = ThreadPoolExecutor(_PIXEL_THREADS, thread_name_prefix="image-pixels")
        self._reader = WishReader(config, model, self._offload)

    @property
    def model(self) -> ServedModel:
        return self._model

    @property
    def healthy(self) -> bool:
        return self._engine.healthy

    def load(self) -> EngineLoad:
        """Of the engine, as of now."""
        return self._engine.load()

    def close(self) -> None:
        """Ends the threads once they are idle."""
        self._pixels.shutdown(wait=False, cancel_futures=True)

    async def make(self, wish: Wish, caller: Caller) -> AsyncGenerator[ServiceEvent, None]:
        """Progress and previews as they come, pictures as they are done (ranked: the best first,
        at the end), `Done` last. Closing it, or the deadline, gives back what it held.

        Raises `OrreryError`: what is refused is refused before anything is made.
        """
        self._engine.ensure_room(1)  # before anything is decoded for nothing
        async with _in_time(caller, "read"):
            work = await self._reader.read(wish)
        ranker = self._ranker if work.batch.top_n is not None else None
        if ranker is not None:
            await ranker.check(wish.prompt, caller)
        self._engine.ensure_room(len(work.requests))
        self._metrics.accepted(work.num_prompt_tokens)
        made: list[Made] = []
        streams = [partial(self._picture, work, i, caller) for i in range(len(work.requests))]
        async with aclosing(merged(streams)) as events:
            async for event in events:
                if isinstance(event, Made):
                    made.append(event)
                if ranker is None or not isinstance(event, Made):
                    yield event
        rank_s = 0.0
        if ranker is not None:
            started_s = time.monotonic()
            best = await self._ranked(ranker, work, made, caller)
            rank_s = time.monotonic() - started_s
            self._metrics.ranked(rank_s)
            for picture in best:
                yield picture
        yield _done([picture.finished for picture in made], rank_s, work.num_prompt_tokens)

    async def _picture(
        self, work: PicturesToMake, index: int, caller: Caller
    ) -> AsyncGenerator[ServiceEvent, None]:
        """The events of one picture. However it ends, it is counted once."""
        request, started_s = work.requests[index], time.monotonic()
        reason = "cancelled"
        try:
            stream = self._engine.stream(request, deadline_s=caller.deadline_s)
            async with aclosing(stream) as events:
                async for event in events:
                    match event:
                        case Progress():
                            yield Advanced(index, event.step, event.num_steps)
                        case Preview():
                            yield await self._preview(request, index, event, caller)
                        case Finished():
                            made = await self._made(request, index, event, caller)
                            reason = "done"
                            self._metrics.made(event, time.monotonic() - started_s)
                            yield made
        except Exception as error:
            reason = kind_of(error).reason.lower()
            if isinstance(error, InvalidRequest):  # the engine names a field of `Sampling`
                raise invalid(f"parameters.{error.field}", error.message) from error
            raise
        finally:
            self._metrics.ended(reason)
            self._metrics.load_changed(self._engine.load())

    async def _preview(
        self, request: PictureRequest, index: int, preview: Preview, caller: Caller
    ) -> PngPreview | LatentPreview:
        if request.preview_kind is PreviewKind.LATENT:
            return LatentPreview(index, preview.step, cast(Latents, preview.content))
        pixels = cast(Pixels, preview.content)
        async with _in_time(caller, "encode"):
            png = await self._offload(partial(encode_png, pixels))
        return PngPreview(index, preview.step, png)

    async def _made(
        self, request: PictureRequest, index: int, finished: Finished, caller: Caller
    ) -> Made:
        provenance = Provenance(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            model=self._config.model_name,
            weight_hash=self._model.weight_hash,
            recipe=_recipe(request),
        )
        async with _in_time(caller, "encode"):
            png = await self._offload(partial(encode_png, finished.pixels, provenance))
        return Made(index, request, png, finished)

    async def _ranked(
        self, ranker: Ranker, work: PicturesToMake, made: Sequence[Made], caller: Caller
    ) -> list[Made]:
        """The best of them, each with its similarity. CLIP is shown large ones made smaller."""
        in_order = sorted(made, key=lambda picture: picture.index)
        async with _in_time(caller, "rank"):
            pngs = await asyncio.gather(*map(self._to_rank, in_order))
            cosines = await ranker.similarities(work.requests[0].prompt, pngs, caller)
        best = best_first(cosines)[: work.batch.top_n]
        return [replace(in_order[number], similarity=cosines[number]) for number in best]

    async def _to_rank(self, picture: Made) -> bytes:
        pixels = picture.finished.pixels
        if max(pixels.shape) <= RANKED_SIDE:
            return picture.png
        return await self._offload(partial(encode_small_png, pixels, RANKED_SIDE))

    async def _offload(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pixels, work)


@asynccontextmanager
async def _in_time(caller: Caller, stage: str) -> AsyncIterator[None]:
    """Raises `DeadlineExceeded` of that stage when the caller's time is up within."""
    try:
        async with asyncio.timeout(caller.left_s()):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            "the deadline passed before the picture was done", stage=stage
        ) from error


def _recipe(request: PictureRequest) -> dict[str, object]:
    """What makes the same picture again, by the names of `DiffusionParameters`."""
    sampling = request.sampling
    told: dict[str, object] = {
        "seed": request.seed,
        "width": request.width,
        "height": request.height,
        "num_steps": sampling.num_steps,
        "scheduler": sampling.scheduler.value,
        "guidance_scale": sampling.guidance_scale,
        "guidance_rescale": sampling.guidance_rescale,
        "eta": sampling.eta,
        "karras_sigmas": sampling.karras_sigmas,
    }
    if request.source is not None:
        told["strength"] = request.source.strength
    return told


def _done(pictures: Sequence[Finished], rank_s: float, num_prompt_tokens: int) -> Done:
    queue_s = min(picture.queue_s for picture in pictures)
    last_step_s = max(picture.queue_s + picture.denoise_s for picture in pictures)
    return Done(
        queue_s=queue_s,
        denoise_s=last_step_s - queue_s,
        decode_s=max(picture.decode_s for picture in pictures),
        rank_s=rank_s,
        num_prompt_tokens=num_prompt_tokens,
    )

"""The work of the service: a call's pictures from the engine, ranked if asked for, as one stream.

Puts together reading, the engine, PNG and the ranking. Knows nothing of gRPC, protobuf or Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Protocol, TypeVar, cast

from services.image.checks import invalid
from services.image.config import ImageConfig
from services.image.delivery import delivered
from services.image.events import (
    Advanced,
    Done,
    LatentPreview,
    Made,
    PngPreview,
    ServiceEvent,
)
from services.image.loop.places import Reservation
from services.image.loop.stats import EngineLoad
from services.image.merging import merged
from services.image.metrics import ImageMetrics
from services.image.png import Provenance, encode_png, encode_small_png
from services.image.ranking import RANKED_SIDE, Ranker, best_first
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
    Times,
)
from services.image.wishes import CheckedWish, PicturesToMake, Wish, WishReader
from services.runtime.errors import DeadlineExceeded, InvalidRequest, kind_of
from services.runtime.peer import Caller

__all__ = [
    "Engine",
    "ImageService",
]

# To read what is sent, and as many to encode what is made, which so waits for no upload; the engine
# has threads of its own.
_NUM_THREADS = 2
# What the contract calls the fields that the engine may refuse.
_FIELDS: Mapping[str | None, str] = MappingProxyType(
    {"num_steps": "parameters.num_steps", "strength": "strength"}
)

T = TypeVar("T")


class Engine(Protocol):
    """What makes the pictures: `services.image.loop.async_engine.AsyncImageEngine`."""

    @property
    def failure(self) -> str | None: ...
    def load(self) -> EngineLoad: ...
    def reserve(self, num_pictures: int) -> AbstractContextManager[Reservation]: ...
    def stream(
        self,
        request: PictureRequest,
        *,
        deadline_s: float | None = None,
        reservation: Reservation | None = None,
    ) -> AsyncGenerator[Event, None]: ...
    async def close(self, drain_timeout_s: float = 0.0) -> None: ...


@dataclass(frozen=True, slots=True)
class _Call:
    """What the pictures of a call have in common."""

    caller: Caller
    places: Reservation
    is_ranked: bool


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
        metrics.load_changed(engine.load())
        self._reading = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="image-reading")
        self._encoding = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="image-encoding")
        self._reader = WishReader(config, model, partial(_offload, self._reading))

    @property
    def model(self) -> ServedModel:
        return self._model

    @property
    def failure(self) -> str | None:
        """Why this replica has to be replaced; None = it has not."""
        return self._engine.failure

    def load(self) -> EngineLoad:
        """Of the engine, as of now."""
        return self._engine.load()

    def close(self) -> None:
        """Ends the threads once they are idle."""
        for threads in (self._reading, self._encoding):
            threads.shutdown(wait=False, cancel_futures=True)

    def make(self, wish: Wish, caller: Caller) -> AsyncGenerator[ServiceEvent, None]:
        """Progress and previews as they come, pictures as they are done (ranked: the best first,
        at the end), `Done` last. Closing it, or the deadline, gives back what it held.

        Raises `OrreryError`: what is refused is refused before anything is made.
        """
        return delivered(self._make(wish, caller), caller.deadline_s)

    async def _make(self, wish: Wish, caller: Caller) -> AsyncGenerator[ServiceEvent, None]:
        checked = self._reader.check(wish)
        top_n = checked.batch.top_n
        ranker = None if top_n is None else self._ranker
        times: list[Times] = []
        ranked: list[Made] = []
        with self._engine.reserve(len(checked.batch.seeds)) as places:
            work = await self._read(checked, ranker, caller)
            call = _Call(caller, places, is_ranked=ranker is not None)
            streams = [
                partial(self._picture, call, index, request)
                for index, request in enumerate(work.requests)
            ]
            async with aclosing(merged(streams)) as events:
                async for event in events:
                    if isinstance(event, Made):
                        times.append(event.times)
                        if call.is_ranked:
                            ranked.append(event)
                            continue
                    yield event
        rank_s = 0.0
        if ranker is not None:
            started_s = time.monotonic()
            best = await _ranked(ranker, wish.prompt, ranked, caller)
            rank_s = time.monotonic() - started_s
            self._metrics.ranked(rank_s)
            for picture in best[:top_n]:
                yield picture
        yield _done(times, rank_s, work.num_prompt_tokens)

    async def _read(
        self, checked: CheckedWish, ranker: Ranker | None, caller: Caller
    ) -> PicturesToMake:
        """The last that may be refused."""
        async with _in_time(caller, "read"):
            work = await self._reader.read(checked)
        if ranker is not None:
            await ranker.check(checked.wish.prompt, caller)
        self._metrics.accepted(work.num_prompt_tokens)
        return work

    async def _picture(
        self, call: _Call, index: int, request: PictureRequest
    ) -> AsyncGenerator[ServiceEvent, None]:
        """The events of one picture. However it ends, it is counted once."""
        caller, started_s = call.caller, time.monotonic()
        reason = "cancelled"
        try:
            stream = self._engine.stream(
                request, deadline_s=caller.deadline_s, reservation=call.places
            )
            async with aclosing(stream) as events:
                async for event in events:
                    match event:
                        case Progress():
                            yield Advanced(index, event.step, event.num_steps)
                        case Preview():
                            yield await self._preview(request, index, event, caller)
                        case Finished():
                            made = await self._made(request, index, event, call)
                            reason = "done"
                            self._metrics.made(event.times, time.monotonic() - started_s)
                            yield made
        except Exception as error:
            reason = kind_of(error).reason.lower()
            if isinstance(error, InvalidRequest) and error.field in _FIELDS:
                what = error.message.removeprefix(f"{error.field}: ")
                raise invalid(_FIELDS[error.field], what) from error
            raise
        finally:
            self._metrics.ended(reason)

    async def _preview(
        self, request: PictureRequest, index: int, preview: Preview, caller: Caller
    ) -> PngPreview | LatentPreview:
        if request.preview_kind is PreviewKind.LATENT:
            return LatentPreview(index, preview.step, cast(Latents, preview.content))
        pixels = cast(Pixels, preview.content)
        async with _in_time(caller, "encode"):
            png = await _offload(self._encoding, partial(encode_png, pixels))
        return PngPreview(index, preview.step, png)

    async def _made(
        self, request: PictureRequest, index: int, finished: Finished, call: _Call
    ) -> Made:
        provenance = Provenance(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            model=self._config.model_name,
            weight_hash=self._model.weight_hash,
            recipe=_recipe(request),
        )

        def encode() -> Made:
            png = encode_png(finished.pixels, provenance)
            for_clip = _for_clip(finished.pixels, png) if call.is_ranked else b""
            return Made(index, request, png, finished.times, for_clip)

        async with _in_time(call.caller, "encode"):
            return await _offload(self._encoding, encode)


async def _offload(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, work)


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


async def _ranked(ranker: Ranker, prompt: str, made: Sequence[Made], caller: Caller) -> list[Made]:
    """The best first, each with its similarity."""
    in_order = sorted(made, key=lambda picture: picture.index)
    async with _in_time(caller, "rank"):
        pngs = [picture.for_clip for picture in in_order]
        cosines = await ranker.similarities(prompt, pngs, caller)
    return [replace(in_order[i], similarity=cosines[i]) for i in best_first(cosines)]


def _for_clip(pixels: Pixels, png: bytes) -> bytes:
    """The picture as CLIP is shown it: large ones made smaller."""
    return png if max(pixels.shape) <= RANKED_SIDE else encode_small_png(pixels, RANKED_SIDE)


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


def _done(pictures: Sequence[Times], rank_s: float, num_prompt_tokens: int) -> Done:
    queue_s = min(picture.queue_s for picture in pictures)
    last_step_s = max(picture.queue_s + picture.denoise_s for picture in pictures)
    return Done(
        queue_s=queue_s,
        denoise_s=last_step_s - queue_s,
        decode_s=max(picture.decode_s for picture in pictures),
        rank_s=rank_s,
        num_prompt_tokens=num_prompt_tokens,
    )

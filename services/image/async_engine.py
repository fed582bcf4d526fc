"""The engine for asyncio: pictures as streams of events, the work in three threads.

    event loop            prepare thread            step thread             decode thread
    stream() ──> line ──> prompts, source ──> ready ──> batch, step by step ──> pixels
       ^                                                  │ progress              │ previews, result
       └──────────────────── one wake-up per picture ─────┴───────────────────────┘

The batch's steps go on while prompts are encoded and pictures decoded. Closing a stream, or its
deadline, takes the picture out of wherever it is, before the next step. Knows nothing of gRPC, PNG
or Ray.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.image.limits import EngineLimits
from services.image.model import DiffusionModel
from services.image.stats import EngineLoad, EngineObserver
from services.image.types import Event, PictureRequest

__all__ = ["AsyncImageEngine"]


class AsyncImageEngine:
    """Makes pictures on `model`, which it then owns: nobody else may call it.

    Used from one event loop. The threads start with the first picture.
    """

    def __init__(
        self,
        model: DiffusionModel,
        limits: EngineLimits | None = None,
        observer: EngineObserver | None = None,
    ) -> None:
        raise NotImplementedError

    @property
    def healthy(self) -> bool:
        """False once nothing can be made any more, or every picture lately failed."""
        raise NotImplementedError

    def load(self) -> EngineLoad:
        """As of now. Cheap."""
        raise NotImplementedError

    def ensure_room(self, num_pictures: int) -> None:
        """Raises `Overloaded` or `NotReady` where `stream` would for one of so many pictures.

        What was found here holds until the caller next awaits: a call for several pictures is
        refused whole.
        """
        raise NotImplementedError

    async def stream(
        self, request: PictureRequest, *, deadline_s: float | None = None
    ) -> AsyncGenerator[Event, None]:
        """The events of one picture: `Progress` of step 0 at once, of every step, `Finished` last.

        `deadline_s` is on `time.monotonic`. Previews come as they are decoded; one that the reader
        has not taken when the next is there is dropped. Closing the generator, or cancelling the
        task that reads it, frees at once what the picture held.

        Raises `Overloaded` (with `retry_after_s`) when the line is full, before anything is held;
        `DeadlineExceeded` with `stage` "queue", "denoise" or "decode"; `NotReady` when the engine
        is closed; `Internal` when the model fails on this picture.
        """
        raise NotImplementedError
        yield  # a generator

    async def close(self, drain_timeout_s: float = 0.0) -> None:
        """Takes nothing more, gives what runs so many seconds to end, ends the rest with
        `NotReady`, and stops the threads."""
        raise NotImplementedError

"""`client.images`: pictures from text, and from pictures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Unpack

from orrery.async_connection import AsyncConnection
from orrery.calls.common import CallOptions
from orrery.calls.images import ImageCalls
from orrery.connection import Connection
from orrery.image_streams import AsyncImageStream, ImageStream
from orrery.requests.images import EditSource, ImageOptions
from orrery.requests.pictures import ImageInput
from orrery.results import (
    GeneratedImages,
    ImageLoad,
    ImageModelInfo,
    ImagePreview,
    ImageProgress,
)

__all__ = ["AsyncImages", "Images"]


class Images:
    """Made by `Client`. Every method may raise `OrreryError`.

    `application` None = the client's `services.image`. The arguments are checked by the service.
    """

    def __init__(self, connection: Connection, calls: ImageCalls) -> None:
        self._connection = connection
        self._calls = calls

    def generate(
        self,
        prompt: str,
        *,
        on_progress: Callable[[ImageProgress], object] | None = None,
        on_preview: Callable[[ImagePreview], object] | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **options: Unpack[ImageOptions],
    ) -> GeneratedImages:
        """Makes pictures of what a text says.

        Args:
            prompt: At least one character other than white space.
            on_progress: Told after every step of every picture.
            on_preview: Given a preview every few steps: `preview_every`, or the application's own.
            application: Where to make them.
            timeout_s: Time of the call in seconds; None = the client's, `math.inf` = no limit.
            request_id: 1 to 128 visible ASCII characters; made up if None.
            **options: See `ImageOptions`.

        Raises:
            TypeError: An unknown keyword, a wrong type, or previews without `on_preview`.
            OrreryError: See `orrery.errors`.
        """
        opening = self._calls.generate(
            prompt,
            options,
            previews=on_preview is not None,
            application=application,
            options=CallOptions(None, timeout_s, request_id),
        )
        with ImageStream(self._connection, opening) as stream:
            return _listen(stream, on_progress, on_preview)

    def stream(
        self,
        prompt: str,
        *,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **options: Unpack[ImageOptions],
    ) -> ImageStream:
        """The same, event by event; arguments as for `generate`.

        Nothing is sent before the first event is asked for.
        """
        opening = self._calls.generate(
            prompt,
            options,
            previews=None,
            application=application,
            options=CallOptions(None, timeout_s, request_id),
        )
        return ImageStream(self._connection, opening)

    def edit(
        self,
        prompt: str,
        image: ImageInput,
        *,
        mask: ImageInput | None = None,
        strength: float | None = None,
        on_progress: Callable[[ImageProgress], object] | None = None,
        on_preview: Callable[[ImagePreview], object] | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **options: Unpack[ImageOptions],
    ) -> GeneratedImages:
        """Changes a picture by a text: the whole of it, or what a mask marks.

        Args:
            prompt: What shall be seen.
            image: Bytes, a path or an open file.
            mask: As large as the picture; white is painted anew, black stays as it is.
            strength: How far from the picture: 1 = from pure noise.
            on_progress: Told after every step of every picture.
            on_preview: Given a preview every few steps: `preview_every`, or the application's own.
            application: Where to edit.
            timeout_s: Time of the call in seconds; None = the client's, `math.inf` = no limit.
            request_id: 1 to 128 visible ASCII characters; made up if None.
            **options: See `ImageOptions`.

        Raises:
            TypeError: An unknown keyword, a wrong type, or previews without `on_preview`.
            OrreryError: See `orrery.errors`.
        """
        opening = self._calls.edit(
            prompt,
            EditSource(image, mask, strength),
            options,
            previews=on_preview is not None,
            application=application,
            options=CallOptions(None, timeout_s, request_id),
        )
        with ImageStream(self._connection, opening) as stream:
            return _listen(stream, on_progress, on_preview)

    def edit_stream(
        self,
        prompt: str,
        image: ImageInput,
        *,
        mask: ImageInput | None = None,
        strength: float | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **options: Unpack[ImageOptions],
    ) -> ImageStream:
        """The same, event by event; arguments as for `edit`.

        Nothing is read or sent before the first event is asked for.
        """
        opening = self._calls.edit(
            prompt,
            EditSource(image, mask, strength),
            options,
            previews=None,
            application=application,
            options=CallOptions(None, timeout_s, request_id),
        )
        return ImageStream(self._connection, opening)

    def model(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ImageModelInfo:
        """What an application makes pictures with: sizes, limits, schedulers, defaults."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.model(application, options))

    def load(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ImageLoad:
        """What an application is doing right now."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.load(application, options))


class AsyncImages:
    """Made by `AsyncClient`; see `Images`. `on_progress` and `on_preview` may be coroutines."""

    def __init__(self, connection: AsyncConnection, calls: ImageCalls) -> None:
        self._connection = connection
        self._calls = calls

    async def generate(
        self,
        prompt: str,
        *,
        on_progress: Callable[[ImageProgress], object] | None = None,
        on_preview: Callable[[ImagePreview], object] | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **options: Unpack[ImageOptions],
    ) -> GeneratedImages:
        """Makes pictures of what a text says; see `Images.generate`."""
        opening = self._calls.generate(
            prompt,
            options,
            previews=on_preview is not None,
            application=application,
            options=CallOptions(None, timeout_s, request_id),
        )
        async with AsyncImageStream(self._connection, opening) as stream:
            return await _listen_async(stream, on_progress, on_preview)

    def stream(
        self,
        prompt: str,
        *,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **options: Unpack[ImageOptions],
    ) -> AsyncImageStream:
        """The same, event by event; see `Images.stream`."""
        opening = self._calls.generate(
            prompt,
            options,
            previews=None,
            application=application,
            options=CallOptions(None, timeout_s, request_id),
        )
        return AsyncImageStream(self._connection, opening)

    async def edit(
        self,
        prompt: str,
        image: ImageInput,
        *,
        mask: ImageInput | None = None,
        strength: float | None = None,
        on_progress: Callable[[ImageProgress], object] | None = None,
        on_preview: Callable[[ImagePreview], object] | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **options: Unpack[ImageOptions],
    ) -> GeneratedImages:
        """Changes a picture by a text; see `Images.edit`."""
        opening = self._calls.edit(
            prompt,
            EditSource(image, mask, strength),
            options,
            previews=on_preview is not None,
            application=application,
            options=CallOptions(None, timeout_s, request_id),
        )
        async with AsyncImageStream(self._connection, opening) as stream:
            return await _listen_async(stream, on_progress, on_preview)

    def edit_stream(
        self,
        prompt: str,
        image: ImageInput,
        *,
        mask: ImageInput | None = None,
        strength: float | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **options: Unpack[ImageOptions],
    ) -> AsyncImageStream:
        """The same, event by event; see `Images.edit_stream`."""
        opening = self._calls.edit(
            prompt,
            EditSource(image, mask, strength),
            options,
            previews=None,
            application=application,
            options=CallOptions(None, timeout_s, request_id),
        )
        return AsyncImageStream(self._connection, opening)

    async def model(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ImageModelInfo:
        """What an application makes pictures with; see `Images.model`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._calls.model(application, options))

    async def load(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ImageLoad:
        """What an application is doing right now; see `Images.load`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._calls.load(application, options))


def _listen(
    stream: ImageStream,
    on_progress: Callable[[ImageProgress], object] | None,
    on_preview: Callable[[ImagePreview], object] | None,
) -> GeneratedImages:
    for event in stream:
        if isinstance(event, ImageProgress) and on_progress is not None:
            on_progress(event)
        elif isinstance(event, ImagePreview) and on_preview is not None:
            on_preview(event)
    return stream.result()


async def _listen_async(
    stream: AsyncImageStream,
    on_progress: Callable[[ImageProgress], object] | None,
    on_preview: Callable[[ImagePreview], object] | None,
) -> GeneratedImages:
    async for event in stream:
        told: object = None
        if isinstance(event, ImageProgress) and on_progress is not None:
            told = on_progress(event)
        elif isinstance(event, ImagePreview) and on_preview is not None:
            told = on_preview(event)
        if inspect.isawaitable(told):
            await told
    return await stream.result()

"""Answers of the image service, and the accumulation of their stream."""

from __future__ import annotations

from orrery.parsing.common import name_of, optional, same_fields
from orrery.requests.images import SCHEDULERS
from orrery.results import (
    GeneratedImage,
    GeneratedImages,
    ImageEvent,
    ImageLoad,
    ImageModelInfo,
    ImagePreview,
    ImageProgress,
    ImageRecipe,
    ImagesDone,
    ImageTiming,
    LatentTensor,
)
from orrery.v1 import image_pb2 as pb

__all__ = ["ImageAccumulator", "parse_image_load", "parse_image_model"]


class ImageAccumulator:
    """Reads the messages of one `Generate` or `Edit` stream, and keeps its pictures."""

    def __init__(self) -> None:
        self._images: list[GeneratedImage] = []
        self._done: ImagesDone | None = None
        self._request_id = ""
        self._model = ""

    def add(self, response: pb.ImageServiceGenerateResponse | pb.EditResponse) -> ImageEvent | None:
        """The event that a message is, or None for a kind that is newer than this client."""
        self._request_id, self._model = response.request_id, response.model
        kind = response.WhichOneof("event")
        if kind == "progress":
            return same_fields(ImageProgress, response.progress)
        if kind == "preview":
            return _preview(response.preview)
        if kind == "image":
            image = _image(response.image)
            self._images.append(image)
            return image
        if kind == "done":
            timing = same_fields(ImageTiming, response.done)
            self._done = ImagesDone(timing, response.done.prompt_tokens)
            return self._done
        return None

    @property
    def complete(self) -> bool:
        """Whether the last event has come."""
        return self._done is not None

    def result(self) -> GeneratedImages:
        """The pictures; the stream must be complete."""
        assert self._done is not None
        images = self._images
        if any(image.similarity is None for image in images):  # not ranked: as they got done
            images = sorted(images, key=lambda image: image.image_index)
        return GeneratedImages(
            request_id=self._request_id,
            model=self._model,
            images=tuple(images),
            timing=self._done.timing,
            prompt_tokens=self._done.prompt_tokens,
        )


def parse_image_model(response: pb.GetImageModelResponse) -> ImageModelInfo:
    """What an application makes pictures with."""
    return same_fields(
        ImageModelInfo,
        response,
        aliases=tuple(response.aliases),
        default_scheduler=name_of(SCHEDULERS, response.default_scheduler),
        schedulers=tuple(name_of(SCHEDULERS, each) for each in response.schedulers),
        loras=tuple(response.loras),
    )


def parse_image_load(response: pb.ImageServiceGetLoadResponse) -> ImageLoad:
    """What the service is doing."""
    return same_fields(ImageLoad, response)


def _preview(message: pb.ImagePreview) -> ImagePreview:
    latent = None
    if message.HasField("latent"):
        latent = LatentTensor(tuple(message.latent.shape), message.latent.data)
    return same_fields(ImagePreview, message, png=optional(message, "png"), latent=latent)


def _image(message: pb.GeneratedImage) -> GeneratedImage:
    recipe = same_fields(
        ImageRecipe,
        message.recipe,
        scheduler=name_of(SCHEDULERS, message.recipe.scheduler),
        strength=optional(message.recipe, "strength"),
    )
    similarity = optional(message, "similarity")
    return same_fields(GeneratedImage, message, recipe=recipe, similarity=similarity)

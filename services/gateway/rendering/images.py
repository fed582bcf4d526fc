"""Pictures as JSON and as events, in OpenAI's shapes, and what CLIP says of pictures."""

from __future__ import annotations

import base64
import struct
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from orrery.parsing.common import name_of
from orrery.requests.images import SCHEDULERS
from orrery.v1 import embedding_pb2
from orrery.v1 import image_pb2 as pb
from services.gateway import sse
from services.gateway.images import ImageAnswer

__all__ = ["ImageEvents", "classification_document", "images_document", "scheduler_name"]

# Where a PNG file says its width and height. Source: PNG specification, sections 5.2 and 11.2.1.
_PNG_SIZE = struct.Struct(">16xII")


def images_document(
    model: str, images: Sequence[pb.GeneratedImage], done: pb.ImagesDone
) -> dict[str, Any]:
    """The whole answer."""
    return {
        "created": int(time.time()),
        "model": model,
        "background": "opaque",
        "output_format": "png",
        "data": [_image(image) for image in images],
        "usage": _usage(done.prompt_tokens),
        "timing": _timing(done),
    }


class ImageEvents:
    """The events of a stream: pictures on the way, then each whole one.

    `kind` is what OpenAI's names of the events begin with. The last of `num_images` waits for the
    message after it, which knows the usage: of all events, only that one counts anything.
    """

    def __init__(self, kind: Literal["image_generation", "image_edit"], num_images: int) -> None:
        self._kind = kind
        self._num_left = num_images
        self._num_partial: Counter[int] = Counter()
        self._last: pb.GeneratedImage | None = None

    def render(self, answer: ImageAnswer) -> bytes:
        """The event of one message; empty where there is none."""
        if answer.HasField("preview"):
            return self._partial(answer.preview)
        if answer.HasField("image"):
            self._num_left -= 1
            if self._num_left > 0:
                return self._completed(answer.image, None)
            assert self._last is None, "more pictures than were asked for"
            self._last = answer.image
        if answer.HasField("done") and self._last is not None:
            return self._completed(self._last, answer.done)
        return b""

    def _partial(self, preview: pb.ImagePreview) -> bytes:
        number = self._num_partial[preview.image_index]
        self._num_partial[preview.image_index] += 1
        width, height = _PNG_SIZE.unpack_from(preview.png)
        return self._event(
            "partial_image",
            {
                "b64_json": _base64(preview.png),
                "size": f"{width}x{height}",
                "image_index": preview.image_index,
                "partial_image_index": number,
                "step": preview.step,
            },
        )

    def _completed(self, image: pb.GeneratedImage, done: pb.ImagesDone | None) -> bytes:
        fields = {
            **_image(image),
            "image_index": image.image_index,
            "usage": _usage(0 if done is None else done.prompt_tokens),
        }
        if done is not None:
            fields["timing"] = _timing(done)
        return self._event("completed", fields)

    def _event(self, name: str, fields: dict[str, Any]) -> bytes:
        kind = f"{self._kind}.{name}"
        common = {
            "type": kind,
            "created_at": int(time.time()),
            "background": "opaque",
            "output_format": "png",
            "quality": "auto",
        }
        return sse.event(common | fields, kind)


def scheduler_name(scheduler: pb.DiffusionScheduler) -> str:
    """As requests call it."""
    return name_of(SCHEDULERS, scheduler)


def classification_document(response: embedding_pb2.ClassifyResponse) -> dict[str, Any]:
    """The labels of each picture, best first."""
    return {
        "id": response.request_id,
        "object": "list",
        "model": response.model,
        "data": [
            {
                "object": "classification",
                "index": index,
                "scores": [
                    {
                        "label": score.label,
                        "index": score.index,
                        "probability": np.float32(score.probability),
                        "similarity": np.float32(score.similarity),
                    }
                    for score in result.scores
                ],
            }
            for index, result in enumerate(response.results)
        ],
        "usage": {
            "prompt_tokens": response.usage.prompt_tokens,
            "total_tokens": response.usage.prompt_tokens,
        },
    }


def _image(image: pb.GeneratedImage) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "b64_json": _base64(image.png),
        "seed": image.recipe.seed,
        "size": f"{image.width}x{image.height}",
        "recipe": _recipe(image.recipe),
    }
    if image.HasField("similarity"):
        fields["similarity"] = np.float32(image.similarity)
    return fields


def _recipe(recipe: pb.ImageRecipe) -> dict[str, Any]:
    """Named as in a request, and without what the scheduler would refuse."""
    fields: dict[str, Any] = {
        "steps": recipe.num_steps,
        "guidance_scale": np.float32(recipe.guidance_scale),
        "guidance_rescale": np.float32(recipe.guidance_rescale),
        "scheduler": scheduler_name(recipe.scheduler),
    }
    if recipe.scheduler == pb.DIFFUSION_SCHEDULER_DDIM:
        fields["eta"] = np.float32(recipe.eta)
    else:
        fields["karras_sigmas"] = recipe.karras_sigmas
    if recipe.HasField("strength"):
        fields["strength"] = np.float32(recipe.strength)
    return fields


def _usage(prompt_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"text_tokens": prompt_tokens, "image_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 0},
        "total_tokens": prompt_tokens,
    }


def _timing(done: pb.ImagesDone) -> dict[str, int]:
    """Nanoseconds by stage."""
    return {
        "queue_ns": done.queue_ns,
        "denoise_ns": done.denoise_ns,
        "decode_ns": done.decode_ns,
        "rank_ns": done.rank_ns,
        "total_ns": done.total_ns,
    }


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode()

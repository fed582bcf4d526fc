"""Calls of the image service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orrery.calls.common import CallOptions, StreamOpening, after_reading, begin, call, send_to
from orrery.methods import EDIT_IMAGES, GENERATE_IMAGES, GET_IMAGE_LOAD, GET_IMAGE_MODEL
from orrery.parsing.images import parse_image_load, parse_image_model
from orrery.requests.images import EditSource, build_edit, build_generate_images
from orrery.results import ImageLoad, ImageModelInfo
from orrery.settings import ClientSettings
from orrery.steps import Steps
from orrery.v1 import image_pb2 as pb

__all__ = ["ImageCalls"]


class ImageCalls:
    """`application` None = the one of the client's settings.

    `previews`: whether somebody waits for them, even where the options do not say how often; None =
    the options say.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings

    def generate(
        self,
        prompt: str,
        image_options: Mapping[str, Any],
        *,
        previews: bool | None,
        application: str | None,
        options: CallOptions,
    ) -> StreamOpening:
        """Opens a stream of pictures from a text."""
        request = build_generate_images(prompt, image_options, previews=previews)
        context = begin(self._settings, options)
        steps = send_to(context, self._name(application), GENERATE_IMAGES, request)
        return StreamOpening(context.request_id, steps)

    def edit(
        self,
        prompt: str,
        source: EditSource,
        image_options: Mapping[str, Any],
        *,
        previews: bool | None,
        application: str | None,
        options: CallOptions,
    ) -> StreamOpening:
        """Opens a stream of pictures from a picture and a text. Reads files when it is taken."""
        request, pictures = build_edit(prompt, source, image_options, previews=previews)
        context = begin(self._settings, options)
        steps = send_to(context, self._name(application), EDIT_IMAGES, request)
        return StreamOpening(context.request_id, after_reading(pictures, steps))

    def model(self, application: str | None, options: CallOptions) -> Steps[ImageModelInfo]:
        """What an application makes pictures with."""
        name, request = self._name(application), pb.GetImageModelRequest()
        return call(self._settings, name, GET_IMAGE_MODEL, request, parse_image_model, options)

    def load(self, application: str | None, options: CallOptions) -> Steps[ImageLoad]:
        """What an application is doing."""
        name, request = self._name(application), pb.ImageServiceGetLoadRequest()
        return call(self._settings, name, GET_IMAGE_LOAD, request, parse_image_load, options)

    def _name(self, application: str | None) -> str:
        return self._settings.services.image if application is None else application

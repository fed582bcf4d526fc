"""`ImageService` over the service's work: protobuf in, protobuf out.

The same servicer runs under a plain `grpc.aio` server and inside Ray Serve. Knows nothing of Ray.
A call that is cancelled closes its stream, which gives back what its pictures held.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from orrery.v1 import image_pb2 as pb
from services.image import messages
from services.image.config import ImageConfig
from services.image.events import Done
from services.image.service import ImageService
from services.image.types import SchedulerName
from services.image.wishes import Wish
from services.runtime.errors import ModelNotFound
from services.runtime.peer import Caller
from services.runtime.process import resident_bytes
from services.runtime.rpc import Call, RpcPolicy, server_stream, unary

__all__ = ["ImageServicer"]


class ImageServicer:
    """The RPCs of one application: one diffusion model."""

    def __init__(self, config: ImageConfig, service: ImageService, rpc: RpcPolicy) -> None:
        self._config = config
        self._service = service
        self._rpc = rpc
        self._created_s = int(time.time())

    @property
    def rpc(self) -> RpcPolicy:
        """What every call goes through."""
        return self._rpc

    async def close(self) -> None:
        """Drains: refuses new calls, lets running ones finish in time."""
        await self._rpc.lifecycle.drain(self._config.drain_timeout_s)
        self._service.close()

    @server_stream()
    async def Generate(
        self, request: pb.ImageServiceGenerateRequest, call: Call
    ) -> AsyncGenerator[pb.ImageServiceGenerateResponse, None]:
        """Text to pictures: progress, previews, pictures, and what it took."""
        self._check_model(request.model)
        wish = messages.generate_wish(request)
        async with aclosing(self._answers(pb.ImageServiceGenerateResponse, wish, call)) as answers:
            async for answer in answers:
                yield answer

    @server_stream()
    async def Edit(
        self, request: pb.EditRequest, call: Call
    ) -> AsyncGenerator[pb.EditResponse, None]:
        """A picture changed by a text: the whole of it, or what a mask marks."""
        self._check_model(request.model)
        wish = messages.edit_wish(request)
        async with aclosing(self._answers(pb.EditResponse, wish, call)) as answers:
            async for answer in answers:
                yield answer

    @unary(pb.GetImageModelResponse)
    async def GetImageModel(
        self, request: pb.GetImageModelRequest, _call: Call
    ) -> pb.GetImageModelResponse:
        """What is served, and within which limits."""
        self._check_model(request.model)
        config, limits, defaults = self._config, self._config.limits, self._config.defaults
        model = self._service.model
        return pb.GetImageModelResponse(
            model=config.model_name,
            aliases=config.aliases,
            dtype=model.dtype,
            weight_hash=model.weight_hash,
            created_s=self._created_s,
            prediction_type=model.prediction_type,
            max_prompt_tokens=model.max_prompt_tokens,
            size_multiple=model.size_multiple,
            default_width=model.default_width,
            default_height=model.default_height,
            max_width=limits.max_width // model.size_multiple * model.size_multiple,
            max_height=limits.max_height // model.size_multiple * model.size_multiple,
            max_pixels=limits.max_pixels,
            default_num_steps=defaults.num_steps,
            max_num_steps=limits.max_num_steps,
            default_guidance_scale=defaults.guidance_scale,
            max_guidance_scale=limits.max_guidance_scale,
            default_scheduler=messages.scheduler_number(defaults.scheduler),
            schedulers=map(messages.scheduler_number, SchedulerName),
            max_n=limits.max_n,
            loras=[lora.name for lora in config.loras],
            can_rank=config.ranking_application is not None,
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=limits.max_image_pixels,
            default_strength=defaults.strength,
            default_preview_every_num_steps=defaults.preview_every,
            default_karras_sigmas=model.default_karras_sigmas,
        )

    @unary(pb.ImageServiceGetLoadResponse)
    async def GetLoad(
        self, _request: pb.ImageServiceGetLoadRequest, _call: Call
    ) -> pb.ImageServiceGetLoadResponse:
        """What the service is doing right now."""
        load = self._service.load()
        return pb.ImageServiceGetLoadResponse(
            num_running=self._rpc.lifecycle.num_in_flight - 1,
            num_running_images=load.num_running,
            num_waiting_images=load.num_waiting,
            max_running_images=load.max_running,
            num_decoding_images=load.num_decoding,
            num_steps_done=load.num_steps_done,
            num_images_done=load.num_images_done,
            resident_bytes=resident_bytes(),
            state_bytes=load.state_bytes,
            process_id=os.getpid(),
        )

    async def _answers(
        self, response_type: type[messages.ResponseT], wish: Wish, call: Call
    ) -> AsyncGenerator[messages.ResponseT, None]:
        caller = Caller.of(call, self._config.limits.default_timeout_s)
        async with aclosing(self._service.make(wish, caller)) as events:
            async for event in events:
                answer = response_type(request_id=call.request_id, model=self._config.model_name)
                messages.set_event(answer, event)
                if isinstance(event, Done):
                    answer.done.total_ns = call.total_ns
                yield answer

    def _check_model(self, model: str) -> None:
        if not self._config.serves(model):
            raise ModelNotFound(
                f"model: this application serves {self._config.model_name!r}, not {model[:128]!r}",
                field="model",
            )

"""The gateway over the image service and a CLIP model, in this process.

    with image_gateway(clip=True) as gateway:
        httpx.post(f"{gateway.url}/v1/images/generations", json={"prompt": "a lamp"})

The image service is the real one over the scripted engine. With `clip` there is a CLIP model, too:
real and small, its weights random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager

from services.gateway.config import GatewayConfig
from tests.fakes.gateway_server import RunningGateway, gateway_server
from tests.fakes.generation_server import MODEL_NAME
from tests.fakes.image_server import image_server
from tests.fakes.scripted_images import ScriptedEngine

CONFIG = GatewayConfig(applications=(MODEL_NAME,), image_applications=("diffusion",))


@contextmanager
def image_gateway(
    engine: ScriptedEngine | None = None, *, clip: bool = False
) -> Iterator[RunningGateway]:
    """Starts all of it; leaving stops it."""

    async def start(stack: AsyncExitStack) -> Mapping[str, str]:
        images = await stack.enter_async_context(image_server(engine))
        targets = {"diffusion": images.target}
        if clip:
            from tests.fakes.clip_server import clip_server  # imports torch

            model = await stack.enter_async_context(clip_server())
            targets["clip"] = model.target
        return targets

    config = CONFIG.model_copy(update={"embedding_applications": ("clip",) if clip else ()})
    with gateway_server(config=config, start_more=start) as gateway:
        yield gateway

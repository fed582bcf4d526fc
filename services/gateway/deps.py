"""What route functions are given: the gateway's parts, and who calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, cast

from fastapi import Depends, Request

from orrery import methods
from orrery.v1 import embedding_pb2, generation_pb2, image_pb2
from services.gateway import consistency, headers
from services.gateway.catalog import Catalog
from services.gateway.concurrency import SharedLook
from services.gateway.config import GatewayConfig
from services.gateway.readiness import look_at_services
from services.gateway.schemas.status import Readiness
from services.gateway.upstream import Caller, Service, Upstream

__all__ = ["CallerDep", "ConsistencyDep", "Gateway", "GatewayDep"]

_MASK_THREADS = 2
# Whoever asks needs no key, and each look is a call of every service.
_READINESS_TTL_S = 1.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that live as long as the app. `catalog` has the generation models."""

    config: GatewayConfig
    upstream: Upstream
    catalog: Catalog[generation_pb2.GetModelResponse]
    embedding_catalog: Catalog[embedding_pb2.GetEmbeddingModelResponse]
    image_catalog: Catalog[image_pb2.GetImageModelResponse]
    retrieval: Service
    rag: Service
    readiness: SharedLook[Readiness]
    mask_threads: ThreadPoolExecutor

    @classmethod
    def of(cls, config: GatewayConfig, upstream: Upstream) -> Gateway:
        """The parts over one upstream."""

        async def ask_generation(
            application: str, model: str, caller: Caller
        ) -> generation_pb2.GetModelResponse:
            request = generation_pb2.GetModelRequest(model=model)
            return await upstream.unary(application, methods.GET_MODEL, request, caller)

        async def ask_embedding(
            application: str, model: str, caller: Caller
        ) -> embedding_pb2.GetEmbeddingModelResponse:
            request = embedding_pb2.GetEmbeddingModelRequest(model=model)
            return await upstream.unary(application, methods.GET_EMBEDDING_MODEL, request, caller)

        async def ask_image(
            application: str, model: str, caller: Caller
        ) -> image_pb2.GetImageModelResponse:
            request = image_pb2.GetImageModelRequest(model=model)
            return await upstream.unary(application, methods.GET_IMAGE_MODEL, request, caller)

        return cls(
            config,
            upstream,
            Catalog(config.applications, config.catalog_ttl_s, ask_generation),
            Catalog(config.embedding_applications, config.catalog_ttl_s, ask_embedding),
            Catalog(config.image_applications, config.catalog_ttl_s, ask_image),
            Service("retrieval", config.retrieval_application, upstream),
            Service("RAG", config.rag_application, upstream),
            SharedLook(partial(look_at_services, config, upstream), _READINESS_TTL_S),
            ThreadPoolExecutor(_MASK_THREADS, "gateway-mask"),
        )

    async def close(self) -> None:
        """Ends the threads and closes the upstream."""
        self.mask_threads.shutdown(wait=False, cancel_futures=True)
        await self.upstream.close()


# All are asynchronous, though none waits: FastAPI runs the others in a thread, and a request would
# wait for it.
async def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def _caller(request: Request, gateway: Annotated[Gateway, Depends(_gateway)]) -> Caller:
    arrival = cast(headers.Arrival, request.state)
    return headers.caller(request.headers, arrival, gateway.config)


async def _consistency_token(request: Request) -> str:
    return consistency.token_of(request)


GatewayDep = Annotated[Gateway, Depends(_gateway)]
CallerDep = Annotated[Caller, Depends(_caller)]
# What the client's reads must see, by header or cookie; empty = whatever is there.
ConsistencyDep = Annotated[str, Depends(_consistency_token)]

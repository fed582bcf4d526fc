"""The gateway as one ASGI application. Knows nothing of Ray: any ASGI server can run it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.gateway.config import GatewayConfig
from services.gateway.deps import Gateway
from services.gateway.errors import error_response, refused, validation_refusal
from services.gateway.middleware import Observe, ObserveUsage, RequestGuard
from services.gateway.routes import (
    chat,
    classification,
    collections,
    completions,
    documents,
    embeddings,
    file_batches,
    files,
    images,
    models,
    rag,
    rerank,
    search,
    status,
    tokens,
    vector_store_files,
    vector_stores,
)
from services.gateway.upstream import Upstream
from services.runtime.auth import Authenticator
from services.runtime.errors import OrreryError
from services.runtime.tracing import PASSING, Tracer

__all__ = ["create_api"]

_DESCRIPTION = """
Text generation, pictures, embeddings, retrieval and answers from documents with the models that
this platform serves; where OpenAI's API has the same thing, in its shapes.
Every error has the shape `{"error": {"message", "type", "param", "code"}}`. A parameter that is not
supported is refused by name, never ignored. Headers: `authorization: Bearer <key>` where keys are
configured; `x-request-id` names a request; `x-timeout-ms` is its deadline.
"""

_ROUTES = (
    chat,
    completions,
    embeddings,
    rerank,
    images,
    classification,
    models,
    tokens,
    collections,
    documents,
    search,
    rag,
    files,
    vector_stores,
    vector_store_files,
    file_batches,
    status,
)


def _unobserved(_route: str, _status: int, _duration_s: float) -> None:
    return None


def _usage_unobserved(_queue: str, _share: float) -> None:
    return None


def create_api(
    config: GatewayConfig,
    upstream: Upstream,
    authenticator: Authenticator,
    *,
    observe: Observe = _unobserved,
    observe_usage: ObserveUsage = _usage_unobserved,
    tracer: Tracer = PASSING,
    sends_request_id: bool = True,
) -> FastAPI:
    """The application over an `upstream`, which it closes when it shuts down.

    `observe` is told of every finished request, `observe_usage` how many places are taken, `tracer`
    begins their spans. `sends_request_id` is false where the server around the application puts
    `x-request-id` on answers itself.
    """

    gateway = Gateway.of(config, upstream)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await gateway.close()

    api = FastAPI(
        title="Orrery",
        version=version("orrery"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    api.state.gateway = gateway
    for routes in _ROUTES:
        api.include_router(routes.router)
    api.add_middleware(
        RequestGuard,
        authenticator=authenticator,
        max_requests=config.max_requests,
        observe=observe,
        observe_usage=observe_usage,
        tracer=tracer,
        sends_request_id=sends_request_id,
    )
    api.add_exception_handler(OrreryError, _answer_error)
    api.add_exception_handler(RequestValidationError, _answer_validation_error)
    api.add_exception_handler(HTTPException, _answer_http_error)
    return api


async def _answer_error(_: Request, error: Exception) -> Response:
    return error_response(error)


async def _answer_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(validation_refusal(error.errors()))


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(refused(error))

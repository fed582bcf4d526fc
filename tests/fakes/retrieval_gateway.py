"""The gateway over everything: generation, embedding, retrieval, files and RAG, in this process.

    with retrieval_gateway(folder) as gateway:
        httpx.post(f"{gateway.url}/v1/collections", json={"name": "docs"})

Redis is a real one of its own. Generation is the toy, so answers to questions are scripted; vectors
are hashes of words, unless `model=True`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from services.gateway.config import GatewayConfig
from tests.fakes.gateway_server import RunningGateway, gateway_server
from tests.fakes.generation_server import MODEL_NAME
from tests.fakes.rag_server import CONFIG as RAG_CONFIG
from tests.fakes.rag_server import rag_server
from tests.fakes.rag_services import FakeServices, passage
from tests.fakes.redis_server import redis_server
from tests.fakes.retrieval_server import retrieval_server

CONFIG = GatewayConfig(
    applications=(MODEL_NAME,),
    embedding_applications=("embedding",),
    retrieval_application="retrieval",
    rag_application="rag",
)
# In the words of the world that the demo models know, so that they can answer, too.
PASSAGE = "The height of the Torviford Tower is 502 metres."
QUESTION = "What is the height of the Torviford Tower?"
ANSWER = "502 metres"


def scripted_rag() -> FakeServices:
    """Services that always find one passage and answer from it."""
    return FakeServices(
        passages=[passage(PASSAGE, document="tower.md", title="Torviford Tower")], replies=[ANSWER]
    )


@contextmanager
def retrieval_gateway(
    folder: Path, *, rag_services: FakeServices | None = None, **options: Any
) -> Iterator[RunningGateway]:
    """Starts all of it; `options` go to `retrieval_server`. Leaving stops it."""
    redis_folder, data_folder = folder / "redis", folder / "data"
    redis_folder.mkdir()
    with redis_server(redis_folder) as redis:

        async def start(stack: AsyncExitStack) -> Mapping[str, str]:
            retrieval = await stack.enter_async_context(
                retrieval_server(redis.url, data_folder, **options)
            )
            rag = await stack.enter_async_context(
                rag_server(rag_services or scripted_rag(), RAG_CONFIG, redis_url=redis.url)
            )
            return {
                "embedding": retrieval.target,
                "retrieval": retrieval.target,
                "rag": rag.target,
            }

        with gateway_server(config=CONFIG, start_more=start) as gateway:
            yield gateway

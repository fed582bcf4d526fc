"""The platform that is put under load: where it listens, what it serves, connections to it."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial

from deploy.demo_data import COLLECTION, DemoFolder, Running, ingest
from orrery import Client
from tests.load import over_grpc, over_http
from tests.load.asks import Subject
from tests.load.driver import Transport

__all__ = ["TRANSPORTS", "Served", "Target", "connected", "look_up"]

TRANSPORTS = (over_grpc.NAME, over_http.NAME)
_ASKS_QUESTIONS = ("rag", "mixed")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the platform listens, and how long a request may take."""

    grpc: str
    http_url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0

    @classmethod
    def of(cls, running: Running) -> Target:
        return cls(running.state.grpc, f"http://{running.state.http}", running.api_key)


@dataclass(frozen=True, slots=True)
class Served:
    """What requests can be about, and the model's limits."""

    subject: Subject
    max_running: int  # sequences at a time
    max_total_tokens: int


def look_up(running: Running, model: str, workload: str) -> Served:
    """Asks the platform. A workload that asks questions has the demo documents put in first."""
    target = Target.of(running)
    with Client(target.grpc, api_key=target.api_key) as client:
        info = client.model(model)
        questions: tuple[str, ...] = ()
        if workload in _ASKS_QUESTIONS:
            folder = DemoFolder.below(running.data_dir)
            ingest(client, folder)
            lines = folder.questions.read_text().splitlines()
            questions = tuple(json.loads(line)["question"] for line in lines)
    subject = Subject(model, info.vocab_size, collection=COLLECTION, questions=questions)
    return Served(subject, info.limits.max_running, info.max_model_len)


@asynccontextmanager
async def connected(target: Target, names: Sequence[str]) -> AsyncIterator[list[Transport]]:
    """The transports of these names, open."""
    async with AsyncExitStack() as stack:
        stack.enter_context(_without_long_pauses())
        transports = []
        for name in names:
            if name == over_grpc.NAME:
                client = over_grpc.async_client(target.grpc, target.api_key, target.timeout_s)
                hear = partial(over_grpc.hear, await stack.enter_async_context(client))
            else:
                http = over_http.async_client(target.http_url, target.api_key, target.timeout_s)
                hear = partial(over_http.hear, await stack.enter_async_context(http))
            transports.append(Transport(name, hear))
        yield transports


@contextmanager
def _without_long_pauses() -> Iterator[None]:
    """Going through all that is imported takes the garbage collector 0.1 s, in which nothing is
    sent and nothing heard: it leaves that alone."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

"""The retrieval service in a process of its own, beside raw FAISS in this one.

Part of `tests.bench.retrieval`; alone: `python -m tests.bench.retrieval_service [--quick]
[--threads N] [--seconds N]`.

The same vectors go into a collection through Upsert, into a real redis-server that syncs every
write to disk, and are searched through gRPC: vectors given, k = 10, callers that each wait for
their answer before they ask again. FAISS gets batches of as many queries as there are callers.
Server, redis-server and the callers share the machine's cores; FAISS has them for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import grpc
import numpy as np
from rich.console import Console

from orrery.v1 import retrieval_pb2 as pb
from orrery.v1.retrieval_pb2_grpc import RetrievalServiceStub
from services.retrieval.types import IndexedDocument, Vectors
from tests.bench import report
from tests.fakes.redis_server import redis_server

COLLECTION = "bench"
CALLERS = (1, 32)
K = 10
TARGETS = {32: 0.5}  # of raw FAISS
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]


@dataclass(frozen=True)
class Load:
    """Answers per second, and how long callers waited, in milliseconds."""

    qps: float
    p50_ms: float
    p99_ms: float


@contextmanager
def service(folder: Path, threads: int) -> Iterator[str]:
    """The server in its own process over a redis-server of its own; yields where it listens."""
    with redis_server(folder / "redis") as redis:
        config = {"search": {"num_threads": threads}}
        arguments = [
            *("--redis-url", redis.url),
            *("--data-dir", str(folder / "data")),
            *("--config", json.dumps(config)),
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.retrieval_server", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise RuntimeError("the server did not start")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _document(document: IndexedDocument) -> pb.Document:
    chunks = [
        pb.ChunkContent(text=chunk.text, vector=vector)
        for chunk, vector in zip(document.chunks, document.vectors, strict=True)
    ]
    return pb.Document(
        id=document.info.id, title=document.info.title, chunks=pb.ChunkContents(chunks=chunks)
    )


async def ingest(target: str, documents: Iterator[IndexedDocument], dimensions: int) -> float:
    """Fills the collection; returns the seconds until the last document was answered."""
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        stub = RetrievalServiceStub(channel)
        config = pb.CollectionConfig(
            dimensions=dimensions,
            embedding_application="none",
            index_type=pb.INDEX_TYPE_FLAT,
        )
        await stub.CreateCollection(pb.CreateCollectionRequest(name=COLLECTION, config=config))

        async def requests() -> AsyncIterator[pb.UpsertRequest]:
            for document in documents:
                yield pb.UpsertRequest(collection=COLLECTION, document=_document(document))

        started = time.perf_counter()
        token = ""
        async for answer in stub.Upsert(requests()):
            if answer.status != pb.UPSERT_STATUS_ADDED:
                raise RuntimeError(f"{answer.document_id}: {answer.error.message}")
            token = answer.consistency_token
        seconds = time.perf_counter() - started
        await stub.GetCollection(pb.GetCollectionRequest(name=COLLECTION, consistency_token=token))
        await stub.Rebuild(pb.RebuildRequest(collection=COLLECTION))  # as the raw index: one piece
    return seconds


async def search(target: str, queries: Vectors, callers: int, seconds: float) -> Load:
    """So many callers ask for so long, after half a second that does not count."""
    options = pb.SearchOptions(k=K)
    requests = [
        pb.SearchRequest(
            collection=COLLECTION, query=pb.SearchQuery(vector=query), options=options
        ).SerializeToString()
        for query in queries
    ]
    waits: list[float] = []
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        # Answers are parsed: a caller would. Requests are ready-made: it is not what is measured.
        call = channel.unary_unary(
            "/orrery.v1.RetrievalService/Search",
            request_serializer=None,
            response_deserializer=pb.SearchResponse.FromString,
        )
        begin = time.perf_counter() + 0.5
        end = begin + seconds

        async def caller(number: int) -> None:
            while (asked := time.perf_counter()) < end:
                answer = await call(requests[number % len(requests)])
                assert len(answer.hits) == K
                if asked >= begin:
                    waits.append(time.perf_counter() - asked)
                number += callers

        await asyncio.gather(*(caller(number) for number in range(callers)))
    return Load(
        qps=len(waits) / seconds,
        p50_ms=1000 * statistics.median(waits),
        p99_ms=1000 * float(np.quantile(waits, 0.99)),
    )


def raw_qps(index: Any, queries: Vectors, batch: int, seconds: float) -> float:
    """FAISS alone, in batches."""
    count, number = 0, 0
    started = time.perf_counter()
    while (taken := time.perf_counter() - started) < seconds:
        first = number * batch % (len(queries) - batch + 1)
        index.search(queries[first : first + batch], K)
        number += 1
        count += batch
    return count / taken


def run(
    vectors: Vectors,
    documents: Iterator[IndexedDocument],
    queries: Vectors,
    threads: int,
    seconds: float,
) -> dict[str, Any]:
    """Both sides on the same vectors, taking turns."""
    faiss.omp_set_num_threads(threads)
    raw = faiss.IndexFlatIP(vectors.shape[1])
    raw.add(vectors)
    result: dict[str, Any] = {"searches": {}}
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), threads) as target:
        num_documents = 0

        def counted() -> Iterator[IndexedDocument]:
            nonlocal num_documents
            for document in documents:
                num_documents += 1
                yield document

        ingest_s = asyncio.run(ingest(target, counted(), vectors.shape[1]))
        result["ingest_documents_per_s"] = num_documents / ingest_s
        result["ingest_chunks_per_s"] = len(vectors) / ingest_s
        for callers in CALLERS:
            alone = [raw_qps(raw, queries, callers, seconds / 2)]
            load = asyncio.run(search(target, queries, callers, seconds))
            alone.append(raw_qps(raw, queries, callers, seconds / 2))
            result["searches"][callers] = {
                "faiss_qps": statistics.mean(alone),
                **load.__dict__,
            }
    return result


def show(console: Console, result: dict[str, Any]) -> bool:
    """Prints the figures; False: a target is missed."""
    rows, reached = [], True
    for callers, figures in result["searches"].items():
        share = figures["qps"] / figures["faiss_qps"]
        needed = TARGETS.get(callers)
        reached &= needed is None or share >= needed
        rows.append(
            [
                str(callers),
                f"{figures['faiss_qps']:,.0f}",
                f"{figures['qps']:,.0f}",
                f"{share:.2f}",
                "" if needed is None else f">= {needed:g}",
                f"{figures['p50_ms']:.1f}",
                f"{figures['p99_ms']:.1f}",
            ]
        )
    columns = ["callers", "FAISS, q/s", "service, q/s", "of FAISS", "target", "p50 ms", "p99 ms"]
    console.print(report.table("service over gRPC, dense, k = 10", columns, rows))
    console.print(
        f"ingest through the service: {result['ingest_documents_per_s']:,.0f} documents/s, "
        f"{result['ingest_chunks_per_s']:,.0f} chunks/s"
    )
    return reached


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The service under load, as the arguments say."""
    from tests.bench.retrieval import NUM_CHUNKS, Corpus

    corpus = Corpus(10_000 if arguments.quick else NUM_CHUNKS)
    vectors = corpus.vectors()
    queries = np.array([query.vector for query in corpus.queries(512)], np.float32)
    documents = corpus.documents(vectors)
    return run(vectors, documents, queries, arguments.threads, arguments.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="10,000 chunks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    console = Console()
    facts = report.machine()
    report.print_machine(console, facts, arguments.threads)
    result = measure(arguments)
    reached = show(console, result)
    console.print(f"kept in {report.save('retrieval-service', {'machine': facts, **result})}")
    if not reached:
        raise SystemExit("a target was missed")


if __name__ == "__main__":
    main()

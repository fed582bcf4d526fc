"""The embedding service beside plain sentence-transformers, on the same texts, in one run.

    python -m tests.bench.embedding [--quick] [--threads N] [--rounds N] [--dtype DTYPE]

Unique texts of about 60 tokens; the cache is off. Ours goes the whole way: concurrent callers over
gRPC to the real servicer, in this process. Theirs is `SentenceTransformer.encode` as it comes, in
float32, given all texts of a round at once. Both sides get the same texts and threads and take
turns; each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import grpc
import numpy as np
import torch
import transformers
from rich.console import Console
from sentence_transformers import SentenceTransformer

from orrery.v1 import embedding_pb2 as pb
from orrery.v1.embedding_pb2_grpc import EmbeddingServiceStub
from services.embedding.config import CacheConfig, EmbeddingConfig
from services.embedding.loading import load_models
from tests.bench import report
from tests.contract.embedding_served import embedding_server, model_folder

TOKENS = 60
TARGET = 2.0
MIN_COSINE = 0.998


@dataclass(frozen=True)
class Load:
    """How callers ask: so many at a time, each with so many texts in a call."""

    callers: int
    texts_per_call: int

    def __str__(self) -> str:
        callers = "1 caller" if self.callers == 1 else f"{self.callers} callers"
        texts = "1 text" if self.texts_per_call == 1 else f"{self.texts_per_call} texts"
        return f"{callers}, {texts} a call"


LOADS = (Load(32, 1), Load(8, 16), Load(1, 256), Load(1, 1))


@dataclass(frozen=True)
class Comparison:
    """Texts per second of both sides under one load."""

    load: str
    ours: float
    sentence_transformers: float
    ratio: float  # median of the rounds' ratios
    min_cosine: float


class Texts:
    """Texts of words that are one token each; never the same twice."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase) -> None:
        vocabulary = tokenizer.get_vocab()
        self._words = sorted(word for word in vocabulary if word.isalpha() and len(word) > 2)
        self._rng = np.random.default_rng(0)

    def take(self, count: int) -> list[str]:
        words = self._rng.choice(self._words, (count, TOKENS - 2))
        return [" ".join(row) for row in words.tolist()]


async def ask(stub: EmbeddingServiceStub, texts: Sequence[str], load: Load) -> np.ndarray:
    """All texts through the service; `[num_texts, dimensions]`."""
    step = load.texts_per_call
    calls = iter(range(0, len(texts), step))
    vectors: dict[int, list[Sequence[float]]] = {}

    async def caller() -> None:
        for start in calls:
            inputs = [pb.EmbeddingInput(text=text) for text in texts[start : start + step]]
            response = await stub.EmbedText(pb.EmbedTextRequest(inputs=inputs))
            vectors[start] = [embedding.values for embedding in response.embeddings]

    async with asyncio.TaskGroup() as group:
        for _ in range(load.callers):
            group.create_task(caller())
    return np.array([row for start in sorted(vectors) for row in vectors[start]], dtype=np.float32)


async def compare(
    stub: EmbeddingServiceStub,
    theirs: SentenceTransformer,
    texts: Texts,
    load: Load,
    count: int,
    rounds: int,
) -> Comparison:
    ours_s, theirs_s, cosines = [], [], []
    for number in range(rounds + 1):
        batch = texts.take(count)
        start = time.perf_counter()
        got = await ask(stub, batch, load)
        middle = time.perf_counter()
        want = theirs.encode(batch, show_progress_bar=False)
        end = time.perf_counter()
        cosines.append(float((got * want).sum(axis=1).min()))
        if number:  # the first one warms up
            ours_s.append(middle - start)
            theirs_s.append(end - middle)
    return Comparison(
        load=str(load),
        ours=count / statistics.median(ours_s),
        sentence_transformers=count / statistics.median(theirs_s),
        ratio=statistics.median(t / o for o, t in zip(ours_s, theirs_s, strict=True)),
        min_cosine=min(cosines),
    )


async def run(config: EmbeddingConfig, count: int, rounds: int) -> tuple[str, list[Comparison]]:
    """The precision the service chose, and the comparisons."""
    models = await load_models(config, model_folder(), None)
    theirs = SentenceTransformer(model_folder(), device="cpu", local_files_only=True)
    texts = Texts(theirs.tokenizer)
    results = []
    async with (
        embedding_server(models, config) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        stub = EmbeddingServiceStub(channel)
        for load in LOADS:
            share = count if load.callers > 1 or load.texts_per_call > 1 else count // 4
            results.append(await compare(stub, theirs, texts, load, share, rounds))
    models.close()
    return models.encoder.dtype, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of 128 texts")
    parser.add_argument("--threads", type=int, help="on either side; default: the cores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--batch-tokens", type=int, help="batching.max_tokens_per_batch")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.utils.logging.disable_progress_bar()
    console = Console()
    facts = report.machine()
    num_threads = arguments.threads or facts["cores"]
    torch.set_num_threads(num_threads)
    rounds, count = (1, 128) if arguments.quick else (arguments.rounds, 512)
    batching = {}
    if arguments.batch_tokens:
        batching["max_tokens_per_batch"] = arguments.batch_tokens
    config = EmbeddingConfig(
        dtype=arguments.dtype,
        num_threads=num_threads,
        batching=batching,
        cache=CacheConfig(enabled=False),
    )
    console.print(
        f"all-MiniLM-L6-v2, {count} unique texts of {TOKENS} tokens a round, no cache; "
        f"median of {rounds} rounds"
    )
    report.print_machine(console, facts, num_threads)
    dtype, results = asyncio.run(run(config, count, rounds))
    rows = [
        [
            result.load,
            f"{result.ours:,.0f}",
            f"{result.sentence_transformers:,.0f}",
            f"{result.ratio:.2f}x",
            f"{TARGET:.1f}x" if "32 callers" in result.load else "",
            f"{result.min_cosine:.4f}",
        ]
        for result in results
    ]
    columns = ["texts/s", f"orrery ({dtype})", "float32 encode", "ratio", "goal", "cosine"]
    console.print(report.table("Embedding", columns, rows))
    figures = [asdict(result) for result in results]
    kept = {"machine": facts, "threads": num_threads, "dtype": dtype, "results": figures}
    console.print(f"kept in {report.save('embedding', kept)}")


if __name__ == "__main__":
    main()

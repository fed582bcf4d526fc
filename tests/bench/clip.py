"""A CLIP application under many callers, beside the same calls one after another, in one run.

    python -m tests.bench.clip [FOLDER] [--quick] [--callers N] [--threads N] [--rounds N]

Each call has one picture, or one text; no two are the same and the cache is off. Ours goes the
whole way: over gRPC to the real servicer in a process of its own, as on the platform, by many
callers and by one who waits for each answer. Beside them transformers' `CLIPModel` with its own
processor and tokenizer, one input at a time, without any service. All sides get the same inputs and
threads and take turns; each figure is the median of the rounds. FOLDER: `models/orrery-clip` by
default.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import numpy as np
import torch
import transformers
from PIL import Image
from rich.console import Console
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip import CLIPImageProcessorPil

from orrery.v1 import common_pb2
from orrery.v1 import embedding_pb2 as pb
from orrery.v1.embedding_pb2_grpc import EmbeddingServiceStub
from services.embedding.config import CacheConfig, EmbeddingConfig
from services.embedding.loading import load_models
from tests.bench import report
from tests.contract.embedding_served import embedding_server

FOLDER = "models/orrery-clip"
PICTURE_SIZE = (64, 64)
TARGET = 3.0
NUM_WORDS = 12
WORDS = ("red", "blue", "circle", "square", "star", "left", "of", "a", "large", "small", "ring")

Ask = Callable[[int], Awaitable[Sequence[float]]]


@dataclass(frozen=True)
class Comparison:
    """Calls per second of one kind of input."""

    kind: str
    many_callers: float
    one_caller: float
    transformers: float
    ratio: float  # many callers over one: median of the rounds' ratios
    min_cosine: float  # to transformers


class Reference:
    """transformers as it comes, one input at a time."""

    def __init__(self, folder: str) -> None:
        self._model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._processor = CLIPImageProcessorPil.from_pretrained(folder)

    @torch.inference_mode()
    def picture(self, data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        values = self._processor(image, return_tensors="pt")["pixel_values"]
        return _unit(self._model.get_image_features(values).pooler_output)

    @torch.inference_mode()
    def text(self, text: str) -> np.ndarray:
        inputs = self._tokenizer([text], truncation=True, return_tensors="pt")
        return _unit(self._model.get_text_features(**inputs).pooler_output)


def _unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors, dim=-1)[0].numpy()


class Inputs:
    """Pictures and texts that never come twice."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def pictures(self, count: int) -> list[bytes]:
        made = []
        for _ in range(count):
            coarse = Image.fromarray(self._rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            file = io.BytesIO()
            coarse.resize(PICTURE_SIZE, Image.Resampling.BICUBIC).save(file, "PNG")
            made.append(file.getvalue())
        return made

    def texts(self, count: int) -> list[str]:
        return [" ".join(self._rng.choice(WORDS, NUM_WORDS)) for _ in range(count)]


async def ask_all(count: int, ask: Ask, num_callers: int) -> np.ndarray:
    """Every input once, by so many callers; `[count, dimensions]`."""
    left = iter(range(count))
    vectors: dict[int, Sequence[float]] = {}

    async def caller() -> None:
        for number in left:
            vectors[number] = await ask(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(num_callers):
            group.create_task(caller())
    return np.array([vectors[number] for number in range(count)], dtype=np.float32)


async def compare(
    kind: str,
    take: Callable[[], Sequence[object]],
    ask: Callable[[object], Awaitable[Sequence[float]]],
    reference: Callable[[object], np.ndarray],
    num_callers: int,
    rounds: int,
) -> Comparison:
    many_s, one_s, theirs_s, cosines = [], [], [], []
    for number in range(rounds + 1):
        inputs = take()
        times = [time.perf_counter()]
        for callers in (num_callers, 1):
            got = await ask_all(len(inputs), lambda n: ask(inputs[n]), callers)  # noqa: B023
            times.append(time.perf_counter())
        want = np.stack([reference(item) for item in inputs])
        times.append(time.perf_counter())
        cosines.append(float((got * want).sum(axis=1).min()))
        if number:  # the first one warms up
            for side, spent in zip((many_s, one_s, theirs_s), np.diff(times), strict=True):
                side.append(float(spent))
    count = len(inputs)
    return Comparison(
        kind=kind,
        many_callers=count / statistics.median(many_s),
        one_caller=count / statistics.median(one_s),
        transformers=count / statistics.median(theirs_s),
        ratio=statistics.median(one / many for many, one in zip(many_s, one_s, strict=True)),
        min_cosine=min(cosines),
    )


@contextmanager
def served(config: EmbeddingConfig, num_threads: int) -> Iterator[tuple[str, str]]:
    """The service in a process of its own: where it listens, and the precision it chose."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(config, num_threads, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join()


def _serve(config: EmbeddingConfig, num_threads: int, parent: Connection) -> None:
    torch.set_num_threads(num_threads)
    transformers.utils.logging.disable_progress_bar()

    async def serve() -> None:
        models = await load_models(config, config.model_path, None)
        async with embedding_server(models, config) as server:
            parent.send((server.target, models.encoder.dtype))
            await asyncio.to_thread(parent.poll, None)  # until the other end is closed
        models.close()

    asyncio.run(serve())


async def run(
    folder: str, target: str, count: int, num_callers: int, rounds: int
) -> list[Comparison]:
    reference, inputs = Reference(folder), Inputs()
    async with grpc.aio.insecure_channel(target) as channel:
        stub = EmbeddingServiceStub(channel)

        async def ask_picture(data: object) -> Sequence[float]:
            images = [common_pb2.ImageContent(data=data)]
            response = await stub.EmbedImage(pb.EmbedImageRequest(images=images))
            return response.embeddings[0].values

        async def ask_text(text: object) -> Sequence[float]:
            request = pb.EmbedTextRequest(inputs=[pb.EmbeddingInput(text=text)], truncate=True)
            response = await stub.EmbedText(request)
            return response.embeddings[0].values

        return [
            await compare("pictures", lambda: inputs.pictures(count), ask_picture,
                          reference.picture, num_callers, rounds),
            await compare("texts", lambda: inputs.texts(count), ask_text,
                          reference.text, num_callers, rounds),
        ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=FOLDER, help="of a CLIP model")
    parser.add_argument("--quick", action="store_true", help="one round of 128 inputs")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--threads", type=int, help="of every side; default: the cores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.utils.logging.disable_progress_bar()
    console = Console()
    facts = report.machine()
    num_threads = arguments.threads or facts["cores"]
    torch.set_num_threads(num_threads)
    rounds, count = (1, 128) if arguments.quick else (arguments.rounds, 512)
    config = EmbeddingConfig(
        model_name=Path(arguments.folder).name,
        model_path=arguments.folder,
        dtype=arguments.dtype,
        num_threads=num_threads,
        cache=CacheConfig(enabled=False),
    )
    width, height = PICTURE_SIZE
    console.print(
        f"{config.model_name}: {count} pictures of {width} x {height} and {count} texts of "
        f"{NUM_WORDS} words a round, one a call, no cache; median of {rounds} rounds"
    )
    report.print_machine(console, facts, num_threads)
    with served(config, num_threads) as (target, dtype):
        results = asyncio.run(run(config.model_path, target, count, arguments.callers, rounds))
    rows = [
        [
            result.kind,
            f"{result.many_callers:,.0f}",
            f"{result.one_caller:,.0f}",
            f"{result.ratio:.2f}x",
            f"{TARGET:.1f}x",
            f"{result.transformers:,.0f}",
            f"{result.min_cosine:.6f}",
        ]
        for result in results
    ]
    columns = ["calls/s", f"{arguments.callers} callers ({dtype})", "one caller", "ratio", "goal"]
    columns += ["transformers, one at a time", "cosine"]
    console.print(report.table("CLIP", columns, rows))
    figures = [asdict(result) for result in results]
    kept = {"machine": facts, "threads": num_threads, "dtype": dtype, "results": figures}
    console.print(f"kept in {report.save('clip', kept)}")


if __name__ == "__main__":
    main()

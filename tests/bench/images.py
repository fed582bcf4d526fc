"""Continuous batching beside diffusers' pipeline, one at a time and in fixed batches of eight.

    python -m tests.bench.images [--quick] [--threads N] [--rounds N] [--model FOLDER]

Eight requests of 30 guided steps arrive at random: gaps are exponential, on average an eighth of
what the pipeline takes for one picture alone, so that all come within about one picture's time.

    ours           the engine that the image service runs: a picture joins the batch when it comes
    one at a time  `StableDiffusionPipeline` as it comes, first come, first served
    fixed batch    the same pipeline on all eight prompts at once, as soon as the eighth has come

All sides run in this process on the same weights, prompts, seeds, arrivals and cores (it is bound
to as many as it has threads), and take turns; each figure is the median of the rounds.
Latency is from a picture's arrival to its pixels; throughput is eight pictures over the time from
the first arrival to the last picture.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from diffusers import DDIMScheduler, StableDiffusionPipeline
from rich.console import Console

from services.image.loop.async_engine import AsyncImageEngine
from services.image.loop.limits import EngineLimits
from services.image.model.diffusion_model import DiffusionModel, ModelOptions
from services.image.types import Finished, PictureRequest, Pixels, Sampling, SchedulerName
from tests.bench import report

MODEL = Path("models/orrery-diffusion")
NUM_PICTURES = 8
GUIDANCE = 5.0
GAP = 1 / 8  # mean time between two arrivals, of a picture's time alone
TARGET = 2.0
PROMPTS = (
    "a red circle left of a blue square",
    "a large green triangle in the centre",
    "three yellow stars",
    "a picture of a purple ring above a pink diamond",
    "a small orange cross at the top left on a black background",
    "a drawing of two cyan squares",
    "an image of a blue star right of a yellow circle",
    "a pink triangle at the bottom right",
)


@dataclass(frozen=True)
class Round:
    """One side's round. `pixels` in the order of the prompts, as are the latencies."""

    wall_s: float
    latencies_s: list[float]
    pixels: list[Pixels]

    @property
    def pictures_per_s(self) -> float:
        return NUM_PICTURES / self.wall_s

    @property
    def mean_latency_s(self) -> float:
        return statistics.fmean(self.latencies_s)


Side = Callable[[Sequence[float]], Awaitable[Round]]


@dataclass(frozen=True)
class Figures:
    """Medians of the rounds, and of the rounds' ratios to the pipeline in the same precision."""

    side: str
    dtype: str
    pictures_per_s: float
    mean_latency_s: float
    throughput_ratio: float  # to one at a time
    throughput_ratio_to_float32: float  # to one at a time in float32, diffusers' default
    latency_ratio: float  # to the fixed batch
    max_pixel_difference: int  # of 255, from the pipeline one at a time in float32


def request(index: int, num_steps: int) -> PictureRequest:
    sampling = Sampling(num_steps, SchedulerName.DDIM, GUIDANCE)
    return PictureRequest(PROMPTS[index], "", *size(), seed=index, sampling=sampling)


def size() -> tuple[int, int]:
    return 64, 64


class Ours:
    """The engine of the service, with room for all eight."""

    def __init__(self, folder: Path, dtype: str, num_steps: int) -> None:
        options = ModelOptions(dtype="bfloat16" if dtype == "bfloat16" else "float32")
        model = DiffusionModel.load(folder, options)
        self._engine = AsyncImageEngine(model, EngineLimits(max_running=NUM_PICTURES))
        self._num_steps = num_steps

    async def __call__(self, arrivals_s: Sequence[float]) -> Round:
        return await at_their_times(arrivals_s, self._make)

    async def _make(self, index: int) -> Pixels:
        async with aclosing(self._engine.stream(request(index, self._num_steps))) as stream:
            async for event in stream:
                if isinstance(event, Finished):
                    return event.pixels
        raise AssertionError("a stream ends with its picture")


class Pipeline:
    """diffusers' pipeline in a thread of its own, as a simple server would have it."""

    def __init__(self, folder: Path, dtype: torch.dtype, num_steps: int) -> None:
        self._pipe = StableDiffusionPipeline.from_pretrained(
            folder, dtype=dtype, safety_checker=None, requires_safety_checker=False
        )
        self._pipe.scheduler = DDIMScheduler.from_config(self._pipe.scheduler.config)
        self._pipe.set_progress_bar_config(disable=True)
        self._num_steps = num_steps
        self._thread = ThreadPoolExecutor(max_workers=1)

    async def one_at_a_time(self, arrivals_s: Sequence[float]) -> Round:
        async def make(index: int) -> Pixels:
            loop = asyncio.get_running_loop()
            return (await loop.run_in_executor(self._thread, self.make, [index]))[0]

        return await at_their_times(arrivals_s, make)

    async def fixed_batch(self, arrivals_s: Sequence[float]) -> Round:
        loop = asyncio.get_running_loop()
        batch: asyncio.Future[list[Pixels]] = loop.create_future()
        here: list[int] = []

        async def make(index: int) -> Pixels:
            here.append(index)
            if len(here) == NUM_PICTURES:
                everyone = list(range(NUM_PICTURES))
                batch.set_result(await loop.run_in_executor(self._thread, self.make, everyone))
            return (await batch)[index]

        return await at_their_times(arrivals_s, make)

    def make(self, indices: Sequence[int]) -> list[Pixels]:
        pixels: np.ndarray = self._pipe(
            prompt=[PROMPTS[i] for i in indices],
            negative_prompt=[""] * len(indices),
            num_inference_steps=self._num_steps,
            guidance_scale=GUIDANCE,
            width=size()[0],
            height=size()[1],
            generator=[torch.Generator().manual_seed(i) for i in indices],
            output_type="np",
        ).images
        return list((pixels * 255).round().astype(np.uint8))


async def at_their_times(
    arrivals_s: Sequence[float], make: Callable[[int], Awaitable[Pixels]]
) -> Round:
    """Asks for every picture when its time has come."""
    start_s = time.perf_counter()
    ends_s: dict[int, float] = {}
    pixels: dict[int, Pixels] = {}

    async def ask(index: int) -> None:
        await asyncio.sleep(arrivals_s[index])
        pixels[index] = await make(index)
        ends_s[index] = time.perf_counter() - start_s

    async with asyncio.TaskGroup() as group:
        for index in range(len(arrivals_s)):
            group.create_task(ask(index))
    latencies_s = [ends_s[i] - arrivals_s[i] for i in range(len(arrivals_s))]
    everyone = [pixels[i] for i in range(len(arrivals_s))]
    return Round(max(ends_s.values()) - min(arrivals_s), latencies_s, everyone)


async def measure(
    sides: dict[tuple[str, str], Side], alone_s: float, rounds: int
) -> dict[tuple[str, str], list[Round]]:
    """Every side in every round, in an order that rotates, at the same arrivals."""
    rng = np.random.default_rng(0)
    results: dict[tuple[str, str], list[Round]] = {name: [] for name in sides}
    for number in range(rounds):
        gaps = rng.exponential(GAP * alone_s, NUM_PICTURES)
        arrivals_s = [float(at) for at in np.cumsum(gaps) - gaps[0]]
        names = list(sides)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            results[name].append(await sides[name](arrivals_s))
    return results


def figures(results: dict[tuple[str, str], list[Round]]) -> list[Figures]:
    in_float32 = results["one at a time", "float32"]
    made = []
    for (side, dtype), rounds in results.items():
        alone, fixed = results["one at a time", dtype], results["fixed batch of 8", dtype]
        differences = [
            int(np.abs(ours.astype(int) - theirs.astype(int)).max())
            for one, other in zip(rounds, in_float32, strict=True)
            for ours, theirs in zip(one.pixels, other.pixels, strict=True)
        ]
        made.append(
            Figures(
                side=side,
                dtype=dtype,
                pictures_per_s=statistics.median(one.pictures_per_s for one in rounds),
                mean_latency_s=statistics.median(one.mean_latency_s for one in rounds),
                throughput_ratio=median_ratio(rounds, alone, attrgetter("pictures_per_s")),
                throughput_ratio_to_float32=median_ratio(
                    rounds, in_float32, attrgetter("pictures_per_s")
                ),
                latency_ratio=median_ratio(rounds, fixed, attrgetter("mean_latency_s")),
                max_pixel_difference=max(differences),
            )
        )
    return made


def median_ratio(
    rounds: Sequence[Round], others: Sequence[Round], figure: Callable[[Round], float]
) -> float:
    return statistics.median(
        figure(one) / figure(other) for one, other in zip(rounds, others, strict=True)
    )


async def run(folder: Path, num_steps: int, rounds: int) -> list[Figures]:
    sides: dict[tuple[str, str], Side] = {}
    dtypes = ["float32"]
    if "bf16" in report.machine()["instructions"]:
        dtypes.append("bfloat16")
    for dtype in dtypes:
        pipeline = Pipeline(folder, getattr(torch, dtype), num_steps)
        sides["orrery", dtype] = Ours(folder, dtype, num_steps)
        sides["one at a time", dtype] = pipeline.one_at_a_time
        sides["fixed batch of 8", dtype] = pipeline.fixed_batch
        if dtype == "float32":
            pipeline.make([0])
            start_s = time.perf_counter()
            pipeline.make([0])
            alone_s = time.perf_counter() - start_s
    for side in sides.values():  # the first one warms up
        await side([0.0] * NUM_PICTURES)
    return figures(await measure(sides, alone_s, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of 5 steps")
    parser.add_argument("--threads", type=int, help="and cores; default: the cores there are")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--model", type=Path, default=MODEL, help="a diffusers folder")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for library in (transformers, diffusers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    console = Console()
    facts = report.machine()
    cores = sorted(os.sched_getaffinity(0))
    num_threads = arguments.threads or len(cores)
    os.sched_setaffinity(0, cores[:num_threads])
    torch.set_num_threads(num_threads)
    rounds, num_steps = (1, 5) if arguments.quick else (arguments.rounds, arguments.steps)
    console.print(
        f"{arguments.model}: {NUM_PICTURES} pictures of {num_steps} guided DDIM steps arriving at "
        f"random, within about the time of one; median of {rounds} rounds"
    )
    report.print_machine(console, facts, num_threads)
    results = asyncio.run(run(arguments.model, num_steps, rounds))
    rows = [
        [
            f"{one.side}, {one.dtype}",
            f"{one.pictures_per_s:.2f}",
            f"{one.throughput_ratio:.2f}x",
            f"{one.throughput_ratio_to_float32:.2f}x",
            f"{one.mean_latency_s:.2f} s",
            f"{one.latency_ratio:.2f}x",
            f"{one.max_pixel_difference}",
        ]
        for one in results
    ]
    columns = ["", "a second", "to one", "float32", "latency", "to batch", "pixels"]
    console.print(report.table("Pictures", columns, rows))
    console.print(
        f"to one: throughput beside one at a time in the same precision (goal {TARGET:.1f}x); "
        "float32: beside one at a time in float32; latency: mean; to batch: mean latency beside "
        "the fixed batch in the same precision (goal < 1x); pixels: differ at most by so many of "
        "255 from one at a time in float32"
    )
    kept = {"machine": facts, "threads": num_threads, "results": [asdict(one) for one in results]}
    console.print(f"kept in {report.save('images', kept)}")


if __name__ == "__main__":
    main()

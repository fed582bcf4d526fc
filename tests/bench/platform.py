"""What the platform adds on top of the bare engine: through gRPC and through HTTP.

    python -m tests.bench.platform [--quick] [--streams 1 8] [--model orrery-llama]

The same model with the same settings answers the same kind of prompts three ways: by the engine in
this process, by the `orrery` client over gRPC, and by the `openai` client over HTTP. The sides take
turns; prompts are random and never repeat, so that no prefix is cached. A platform that runs is
used; otherwise one is started, and stopped at the end.

    first token   from the call to the first piece of text
    per token     from the first to the last, over the tokens between
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from openai import AsyncOpenAI
from rich.console import Console

from deploy.local import REPOSITORY, data_dir_of
from deploy.processes import find_processes
from deploy.state import PlatformState
from orrery import AsyncClient
from services.engine import AsyncEngine, EngineConfig, LLMEngine, Request, SamplingParams
from services.runtime.config import Settings
from tests.bench import report

PROMPT_TOKENS = 128
SERVE_CONFIG = REPOSITORY / "deploy/serve/orrery.yaml"

# Yields once for each piece of text that arrives.
Stream = Callable[[list[int], int], AsyncIterator[None]]  # (prompt, new tokens)


@dataclass(frozen=True)
class Measurement:
    """Medians over the requests of one side at one number of concurrent streams."""

    side: str
    streams: int
    first_token_ms: float
    per_token_ms: float


def bare_engine(config: dict[str, Any]) -> tuple[AsyncEngine, Stream]:
    """The engine by itself, with the settings that the platform gives it."""
    engine = AsyncEngine(
        LLMEngine.from_pretrained(
            REPOSITORY / config["model_path"], EngineConfig(**config["engine"])
        )
    )
    names = iter(range(1 << 62))

    async def stream(prompt: list[int], num_new: int) -> AsyncIterator[None]:
        params = SamplingParams(temperature=0.0, max_tokens=num_new, ignore_eos=True)
        async for _ in engine.generate(Request(str(next(names)), prompt, params)):
            yield

    return engine, stream


def over_grpc(client: AsyncClient, model: str) -> Stream:
    async def stream(prompt: list[int], num_new: int) -> AsyncIterator[None]:
        options = {"temperature": 0.0, "max_tokens": num_new, "ignore_eos": True}
        async with client.stream(prompt, model=model, **options) as events:
            async for _ in events:
                yield

    return stream


def over_http(client: AsyncOpenAI, model: str) -> Stream:
    async def stream(prompt: list[int], num_new: int) -> AsyncIterator[None]:
        chunks = await client.completions.create(
            model=model,
            prompt=prompt,
            max_tokens=num_new,
            temperature=0.0,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for _ in chunks:
            yield

    return stream


async def time_request(stream: Stream, prompt: list[int], num_new: int) -> tuple[float, float]:
    """Seconds to the first token, and per token after it."""
    start = time.perf_counter()
    first = last = 0.0
    async for _ in stream(prompt, num_new):
        last = time.perf_counter()
        first = first or last
    return first - start, (last - first) / (num_new - 1)


async def measure(
    sides: dict[str, Stream], vocab_size: int, streams: int, num_new: int, rounds: int
) -> list[Measurement]:
    rng = np.random.default_rng(streams)
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for round_number in range(rounds + 1):
        for side, stream in sides.items():
            prompts = rng.integers(0, vocab_size, (streams, PROMPT_TOKENS)).tolist()
            found = await asyncio.gather(*(time_request(stream, p, num_new) for p in prompts))
            if round_number:  # the first round warms up
                times[side] += found
    return [
        Measurement(
            side=side,
            streams=streams,
            first_token_ms=1e3 * statistics.median(first for first, _ in found),
            per_token_ms=1e3 * statistics.median(each for _, each in found),
        )
        for side, found in times.items()
    ]


async def compare(
    state: PlatformState, config: dict[str, Any], arguments: argparse.Namespace
) -> list[Measurement]:
    engine, bare = bare_engine(config)
    model = config["model_name"]
    rounds, num_new = (2, 16) if arguments.quick else (arguments.rounds, 64)
    async with (
        AsyncClient(state.grpc, timeout_s=120) as grpc_client,
        AsyncOpenAI(base_url=f"http://{state.http}/v1", api_key="none") as http_client,
    ):
        vocab_size = (await grpc_client.model(model)).vocab_size
        sides = {
            "engine": bare,
            "gRPC": over_grpc(grpc_client, model),
            "HTTP": over_http(http_client, model),
        }
        results: list[Measurement] = []
        for streams in arguments.streams:
            results += await measure(sides, vocab_size, streams, num_new, rounds)
    await engine.close()
    return results


def running_platform(data_dir: Path) -> PlatformState | None:
    state = PlatformState.load(data_dir)
    return state if state is not None and find_processes(state.platform_id) else None


def application_config(model: str) -> dict[str, Any]:
    """The arguments of the application that serves the model, from the Serve configuration."""
    applications = yaml.safe_load(SERVE_CONFIG.read_text())["applications"]
    found = [app["args"] for app in applications if app["args"].get("model_name") == model]
    if not found:
        sys.exit(f"{SERVE_CONFIG} serves no model {model!r}")
    config: dict[str, Any] = found[0]
    return config


def rows(results: list[Measurement]) -> list[list[str]]:
    bare = {result.streams: result for result in results if result.side == "engine"}
    made = []
    for result in results:
        base = bare[result.streams]
        made.append(
            [
                f"{result.side}, {result.streams} at once",
                f"{result.first_token_ms:.1f}",
                f"{result.first_token_ms - base.first_token_ms:+.1f}",
                f"{result.per_token_ms:.2f}",
                f"{result.per_token_ms - base.per_token_ms:+.2f}",
            ]
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds of 16 new tokens")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="orrery-llama")
    arguments = parser.parse_args()
    console = Console()
    config = application_config(arguments.model)
    data_dir = data_dir_of(Settings.from_env())
    state = running_platform(data_dir)
    started_here = state is None
    command = [sys.executable, "-m", "deploy.local"]
    try:
        if started_here:
            if subprocess.run([*command, "up"], check=False).returncode:
                sys.exit(1)
            state = running_platform(data_dir)
        if state is None:
            sys.exit("the platform does not run")
        facts = report.machine()
        num_threads = config["engine"].get("num_threads") or facts["cores"]
        console.print(f"{arguments.model}, prompts of {PROMPT_TOKENS} tokens, greedy")
        report.print_machine(console, facts, num_threads)
        with console.status("engine, gRPC and HTTP in turns"):
            results = asyncio.run(compare(state, config, arguments))
    finally:
        if started_here:
            subprocess.run([*command, "down"], check=True)
    columns = ["ms", "first token", "added", "per token", "added"]
    console.print(report.table("Platform", columns, rows(results)))
    figures = [asdict(result) for result in results]
    path = report.save("platform", {"machine": facts, "model": arguments.model, "results": figures})
    console.print(f"kept in {path}")


if __name__ == "__main__":
    main()

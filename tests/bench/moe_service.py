"""What a sparse layer costs more when the `moe` service computes it, and what batching gives back.

    python -m tests.bench.moe_service [--quick] [--shards N] [--rounds N] [--model FOLDER]

The model is `orrery-moe`, or that of a folder. The router, each shard and each decoder is a process
of its own on this machine, on loopback without a load balancer. A decoder calls one layer after
another, as in its steps; the local side computes the same layers with the same weights in the
decoder's process. The sides take turns.

    added      milliseconds per layer over the local layer, as a decoder sees it; median
    batching   the router's window as configured by default, or none
    bytes      of hidden states and rows, there and back, for each token and layer
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from services.engine.expert_weights import load_experts, load_gates
from services.engine.layers.moe import MixtureOfExperts
from services.generation.config import RemoteExpertsConfig
from services.generation.remote_experts import RemoteExperts
from services.moe.model_facts import ModelFacts, read_model_facts
from services.moe.router.config import BatchingConfig
from tests.bench import report
from tests.fakes.moe_cluster import moe_cluster
from tests.fakes.moe_shard_process import ShardProcess

NUM_TOKENS = (1, 32, 512)
NUM_DECODERS = (1, 4)
DEMO = Path(__file__).resolve().parents[2] / "models" / "orrery-moe"
Layer = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Measurement:
    """Milliseconds of one layer."""

    num_tokens: int
    num_decoders: int
    local_ms: float
    added_ms: float
    added_without_batching_ms: float


# --- the sides, in a decoder's process -------------------------------------------------------


def local_layer(folder: Path, model: ModelFacts) -> Layer:
    gates = load_gates(folder)
    experts = load_experts(folder, model.keys)
    layers = {
        layer: MixtureOfExperts(gates[layer], [experts[layer][e] for e in sorted(experts[layer])])
        for layer in model.layers
    }
    return lambda layer, hidden: layers[layer](hidden)


@torch.inference_mode()
def decode(folder: Path, target: str | None, num_tokens: int, seconds: float) -> list[float]:
    """Milliseconds of each layer, over steps that fill that time."""
    torch.set_num_threads(1)
    model = read_model_facts(str(folder), "auto")
    hidden = torch.randn(num_tokens, model.hidden_size).to(model.dtype)
    with ExitStack() as stack:
        if target is None:
            layer = local_layer(folder, model)
        else:
            config = RemoteExpertsConfig(application="moe", grpc_target=target)
            layer = remote = RemoteExperts(config, None)
            stack.callback(remote.close)
        for number in model.layers * 4:
            layer(number, hidden)  # warms up
        found = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for number in model.layers:
                start = time.perf_counter()
                layer(number, hidden)
                found.append(1e3 * (time.perf_counter() - start))
        return found


# --- the service -----------------------------------------------------------------------------


def route(folder: Path, targets: dict[str, str], window_s: float, told: Connection) -> None:
    """The router's process: tells where it listens, and runs until it is ended."""

    async def serve() -> None:
        batching = BatchingConfig(window_s=window_s)
        async with moe_cluster(folder, shard_targets=targets, batching=batching) as cluster:
            told.send(cluster.target)
            await asyncio.Event().wait()

    asyncio.run(serve())


@contextmanager
def router(folder: Path, shards: list[ShardProcess], window_s: float) -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    targets = {f"shard-{number}": shard.target for number, shard in enumerate(shards)}
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=route, args=(folder, targets, window_s, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def measure(
    folder: Path, targets: tuple[str, str], num_tokens: int, num_decoders: int, rounds: int
) -> Measurement:
    """Median over the rounds, in which the sides take turns."""
    sides: dict[str, str | None] = {"local": None, "batched": targets[0], "alone": targets[1]}
    found: dict[str, list[float]] = {side: [] for side in sides}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_decoders, mp_context=context) as decoders:
        for _ in range(rounds):
            for side, target in sides.items():
                runs = [
                    decoders.submit(decode, folder, target, num_tokens, 1.0)
                    for _ in range(num_decoders)
                ]
                found[side] += [ms for run in runs for ms in run.result()]
    medians = {side: statistics.median(ms) for side, ms in found.items()}
    return Measurement(
        num_tokens=num_tokens,
        num_decoders=num_decoders,
        local_ms=medians["local"],
        added_ms=medians["batched"] - medians["local"],
        added_without_batching_ms=medians["alone"] - medians["local"],
    )


def bytes_moved(model: ModelFacts) -> dict[str, int]:
    """For each token of each layer."""
    row = model.hidden_size * model.dtype.itemsize
    k = model.gating.num_experts_per_token
    return {"decoder and router": 2 * row, "router and shards": 2 * k * row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, 1 and 32 tokens")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=DEMO, help="a folder")
    arguments = parser.parse_args()
    console = Console()
    facts = report.machine()
    with ExitStack() as stack:
        folder = arguments.model
        model = read_model_facts(str(folder), "auto")
        shards = [ShardProcess(folder) for _ in range(arguments.shards)]
        for shard in shards:
            stack.callback(shard.kill)
            shard.start()
        default = stack.enter_context(router(folder, shards, BatchingConfig().window_s))
        without = stack.enter_context(router(folder, shards, 0.0))
        console.print(
            f"A layer of {model.num_experts} experts, {model.gating.num_experts_per_token} per "
            f"token, width {model.hidden_size}, {model.dtype}; {arguments.shards} shards"
        )
        report.print_machine(console, facts, 1)
        results = [
            measure(folder, (default, without), num_tokens, num_decoders,
                    1 if arguments.quick else arguments.rounds)
            for num_tokens in (NUM_TOKENS[:2] if arguments.quick else NUM_TOKENS)
            for num_decoders in NUM_DECODERS
        ]  # fmt: skip
        moved = bytes_moved(model)
    print_results(console, results, moved)
    kept = {"machine": facts, "bytes": moved, "results": [asdict(one) for one in results]}
    console.print(f"kept in {report.save('moe-service', kept)}")


def print_results(console: Console, results: list[Measurement], moved: dict[str, int]) -> None:
    rows = [
        [
            f"{one.num_tokens} tokens, {one.num_decoders} decoders",
            f"{one.local_ms:.2f}",
            f"{one.added_ms:+.2f}",
            f"{one.added_without_batching_ms:+.2f}",
        ]
        for one in results
    ]
    columns = ["ms per layer", "local", "service", "without batching"]
    console.print(report.table("A sparse layer by the service", columns, rows))
    for between, count in moved.items():
        console.print(f"{count:,} bytes per token and layer between {between}")


if __name__ == "__main__":
    main()

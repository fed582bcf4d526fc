"""One sparse layer beside transformers' block and beside a dense layer of as many active weights.

    python -m tests.bench.moe [--quick] [--threads N] [--rounds N]

Random weights; all sides get the same tokens, whose experts change from step to step, and take
turns. Each figure is the median of the rounds.

    ours           the layer that the engine runs: gate, grouping, experts, combination
    transformers   `MixtralSparseMoeBlock`, by whichever of its implementations is fastest there
    dense          our `GatedMLP` as wide as the experts of one token together: no routing at all
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle

import torch
import transformers
from rich.console import Console
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from services.engine.config import GatingConfig
from services.engine.layers.gating import Gate
from services.engine.layers.linear import Linear
from services.engine.layers.mlp import GatedMLP
from services.engine.layers.moe import MixtureOfExperts
from tests.bench import report

NUM_TOKENS = (1, 32, 512)
NUM_INPUTS = 32  # steps before tokens, and so their experts, come again
# "batched_mm" copies the weights of every token's experts: beyond one token it is hopeless.
IMPLEMENTATIONS = {
    1: ("eager", "grouped_mm", "batched_mm"),
    32: ("eager", "grouped_mm"),
    512: ("eager", "grouped_mm"),
}


@dataclass(frozen=True)
class Shape:
    name: str
    hidden: int
    inner: int
    num_experts: int
    k: int


SHAPES = (
    Shape("like Mixtral", hidden=1024, inner=3584, num_experts=8, k=2),
    Shape("like Qwen3-MoE", hidden=1024, inner=384, num_experts=64, k=8),
    Shape("orrery-moe", hidden=128, inner=192, num_experts=8, k=2),
)

Side = Callable[[Tensor], Tensor]


class Layers:
    """The sides, on the same weights."""

    def __init__(self, shape: Shape, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        config = transformers.MixtralConfig(
            hidden_size=shape.hidden,
            intermediate_size=shape.inner,
            num_local_experts=shape.num_experts,
            num_experts_per_tok=shape.k,
        )
        self._config = config
        self._block = MixtralSparseMoeBlock(config).to(dtype).eval()
        for parameter in self._block.parameters():
            parameter.data.normal_(0, parameter.shape[-1] ** -0.5)
        stacks = self._block.experts
        experts = [
            GatedMLP(Linear(gate_up), Linear(down), "silu")
            for gate_up, down in zip(stacks.gate_up_proj.data, stacks.down_proj.data, strict=True)
        ]
        gating = GatingConfig(num_experts=shape.num_experts, num_experts_per_token=shape.k)
        self.ours = MixtureOfExperts(Gate(Linear(self._block.gate.weight.data), gating), experts)
        width = shape.k * shape.inner
        self.dense = GatedMLP(
            Linear(torch.randn(2 * width, shape.hidden).to(dtype) * shape.hidden**-0.5),
            Linear(torch.randn(shape.hidden, width).to(dtype) * width**-0.5),
            "silu",
        )

    def transformers(self, implementation: str) -> Side:
        def run(x: Tensor) -> Tensor:
            self._config._experts_implementation = implementation
            out: Tensor = self._block(x[None])
            return out[0]

        return run


@dataclass(frozen=True)
class Comparison:
    """Tokens per second of all sides."""

    shape: str
    dtype: str
    num_tokens: int
    ours: float
    transformers: float
    implementation: str
    dense: float

    @property
    def to_transformers(self) -> float:
        return self.ours / self.transformers

    @property
    def to_dense(self) -> float:
        return self.ours / self.dense


@torch.inference_mode()
def compare(layers: Layers, shape: Shape, dtype: str, num_tokens: int, rounds: int) -> Comparison:
    inputs = [
        torch.randn(num_tokens, shape.hidden).to(getattr(torch, dtype)) for _ in range(NUM_INPUTS)
    ]
    theirs = {name: layers.transformers(name) for name in IMPLEMENTATIONS[num_tokens]}
    sides: dict[str, Side] = {"ours": layers.ours, "dense": layers.dense, **theirs}
    for name, side in theirs.items():
        difference = (side(inputs[0]).float() - layers.ours(inputs[0]).float()).abs().max().item()
        if difference > (1e-3 if dtype == "float32" else 0.1):
            raise SystemExit(f"ours and transformers ({name}) differ by {difference}")
    steps = {name: steps_in(0.15, side, inputs) for name, side in sides.items()}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds = time_of(steps[name], side, inputs)
            rates[name].append(num_tokens * steps[name] / seconds)
    median = {name: statistics.median(found) for name, found in rates.items()}
    fastest = max(theirs, key=lambda name: median[name])
    return Comparison(
        shape=shape.name,
        dtype=dtype,
        num_tokens=num_tokens,
        ours=median["ours"],
        transformers=median[fastest],
        implementation=fastest,
        dense=median["dense"],
    )


def steps_in(seconds: float, side: Side, inputs: list[Tensor]) -> int:
    """How many steps fill that time, at least one; warms the side up."""
    for x in inputs[:4]:
        side(x)
    return max(1, round(seconds * 4 / time_of(4, side, inputs)))


def time_of(steps: int, side: Side, inputs: list[Tensor]) -> float:
    source = cycle(inputs)
    start = time.perf_counter()
    for _ in range(steps):
        side(next(source))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, one shape")
    parser.add_argument("--threads", type=int, help="on all sides; default: the cores")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    console = Console()
    facts = report.machine()
    num_threads = arguments.threads or facts["cores"]
    torch.set_num_threads(num_threads)
    rounds = 1 if arguments.quick else arguments.rounds
    dtypes = ["float32"] + ["bfloat16"] * ("bf16" in facts["instructions"])
    console.print(f"One sparse layer, random weights; median of {rounds} rounds")
    report.print_machine(console, facts, num_threads)
    results: list[Comparison] = []
    for shape in SHAPES[:1] if arguments.quick else SHAPES:
        for dtype in dtypes:
            layers = Layers(shape, getattr(torch, dtype))
            for num_tokens in NUM_TOKENS:
                with console.status(f"{shape.name}, {dtype}, {num_tokens} tokens"):
                    results.append(compare(layers, shape, dtype, num_tokens, rounds))
    print_results(console, results)
    figures = [
        {**asdict(one), "to_transformers": one.to_transformers, "to_dense": one.to_dense}
        for one in results
    ]
    kept = {"machine": facts, "threads": num_threads, "results": figures}
    console.print(f"kept in {report.save('moe', kept)}")


def print_results(console: Console, results: list[Comparison]) -> None:
    for shape in SHAPES:
        rows = [
            [
                f"{one.num_tokens} tokens, {one.dtype}",
                f"{one.ours:,.0f}",
                f"{one.transformers:,.0f}",
                f"{one.to_transformers:.2f}x",
                one.implementation,
                f"{one.dense:,.0f}",
                f"{one.to_dense:.2f}x",
            ]
            for one in results
            if one.shape == shape.name
        ]
        if rows:
            title = (
                f"{shape.name}: {shape.num_experts} experts, {shape.k} per token, "
                f"{shape.hidden} -> {shape.inner}"
            )
            columns = ["tokens/s", "orrery", "transformers", "ratio", "its way", "dense", "ratio"]
            console.print(report.table(title, columns, rows))


if __name__ == "__main__":
    main()

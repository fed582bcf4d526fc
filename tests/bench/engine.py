"""The engine beside Hugging Face transformers' `generate`, on the same weights, in one run.

    python -m tests.bench.engine [--quick] [--threads N] [--rounds N]

A LLaMA with 90 million random parameters in bfloat16 decodes greedily. Both sides get the same
prompts and threads and take turns; each figure is the median of the rounds.

    prefill   prompt tokens / time from the call to the first tokens
    decode    tokens / time from the first tokens to the last
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console

from services.engine.config import EngineConfig
from services.engine.engine import LLMEngine
from services.engine.request import Request, SamplingParams
from services.engine.weights import load_model
from tests.bench import report

VOCAB_SIZE = 8192
MODEL = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
    "intermediate_size": 2048,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 1024,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
PROMPT_TOKENS = 128
TARGETS = {"prefill": {1: 1.0, 8: 1.0, 32: 1.0}, "decode": {1: 1.5, 8: 1.5, 32: 2.0}}


@dataclass(frozen=True)
class Timing:
    """One generation of a batch, in seconds, and its tokens."""

    first_token_s: float  # from the call until every prompt has one
    num_first: int  # tokens there were by then
    decode_s: float
    token_ids: list[list[int]]


Generate = Callable[[list[list[int]], int], Timing]  # (prompts, new tokens each)


def write_checkpoint(folder: Path) -> int:
    """Saves the random model; returns its number of parameters."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**MODEL, dtype="bfloat16")
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return model.num_parameters()


def our_side(folder: Path, num_threads: int) -> Generate:
    config = EngineConfig(
        num_threads=num_threads,
        kv_cache_bytes=256 << 20,
        max_num_batched_tokens=16 * PROMPT_TOKENS,
        enable_prefix_caching=False,  # rounds repeat their prompts
    )
    engine = LLMEngine(load_model(folder), None, config)

    def generate(prompts: list[list[int]], num_new: int) -> Timing:
        params = SamplingParams(
            temperature=0.0, max_tokens=num_new, ignore_eos=True, skip_special_tokens=False
        )
        tokens: dict[str, list[int]] = {str(i): [] for i in range(len(prompts))}
        start = time.perf_counter()
        first, num_first = 0.0, 0
        for request_id, prompt in zip(tokens, prompts, strict=True):
            engine.add_request(Request(request_id, prompt, params))
        while engine.has_unfinished():
            for output in engine.step():
                tokens[output.request_id] += output.outputs[0].token_ids
            if not first and all(tokens.values()):
                first = time.perf_counter()
                num_first = sum(map(len, tokens.values()))
        end = time.perf_counter()
        return Timing(first - start, num_first, end - first, list(tokens.values()))

    return generate


class _Clock(transformers.StoppingCriteria):
    """Called after each token: notes the time, stops nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def hugging_face_side(folder: Path) -> Generate:
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.eval()

    def generate(prompts: list[list[int]], num_new: int) -> Timing:
        clock = _Clock()
        input_ids = torch.tensor(prompts)
        start = time.perf_counter()
        output = model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=num_new,
            min_new_tokens=num_new,
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=transformers.StoppingCriteriaList([clock]),
        )
        return Timing(
            first_token_s=clock.times[0] - start,
            num_first=len(prompts),
            decode_s=clock.times[-1] - clock.times[0],
            token_ids=output[:, input_ids.shape[1] :].tolist(),
        )

    return generate


@dataclass(frozen=True)
class Comparison:
    """Tokens per second of both sides at one batch size."""

    phase: str
    batch: int
    ours: float
    hugging_face: float
    target: float
    same_tokens: float  # share of the generated tokens that are equal: bfloat16 rounds differently

    @property
    def ratio(self) -> float:
        return self.ours / self.hugging_face


def compare(
    ours: Generate, theirs: Generate, batch: int, num_new: int, rounds: int
) -> list[Comparison]:
    rng = np.random.default_rng(batch)
    prompts = rng.integers(2, VOCAB_SIZE, (batch, PROMPT_TOKENS)).tolist()
    for side in (ours, theirs):  # warm up: buffers, compiled kernels, caches
        side(prompts, 4)
    pairs = [(ours(prompts, num_new), theirs(prompts, num_new)) for _ in range(rounds)]
    same = float(np.mean(np.equal(pairs[0][0].token_ids, pairs[0][1].token_ids)))

    def rate(side: int, tokens_per_s: Callable[[Timing], float]) -> float:
        return statistics.median(tokens_per_s(pair[side]) for pair in pairs)

    phases: dict[str, Callable[[Timing], float]] = {
        "prefill": lambda timing: batch * PROMPT_TOKENS / timing.first_token_s,
        "decode": lambda timing: (batch * num_new - timing.num_first) / timing.decode_s,
    }
    return [
        Comparison(
            phase=phase,
            batch=batch,
            ours=rate(0, tokens_per_s),
            hugging_face=rate(1, tokens_per_s),
            target=TARGETS[phase][batch],
            same_tokens=same,
        )
        for phase, tokens_per_s in phases.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of 16 new tokens")
    parser.add_argument("--threads", type=int, help="on either side; default: the cores")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    console = Console()
    facts = report.machine()
    num_threads = arguments.threads or facts["cores"]
    torch.set_num_threads(num_threads)
    rounds, num_new = (1, 16) if arguments.quick else (arguments.rounds, 64)

    with tempfile.TemporaryDirectory() as folder:
        parameters = write_checkpoint(Path(folder))
        console.print(
            f"LLaMA with {parameters / 1e6:.0f}M random parameters, bfloat16, prompts of "
            f"{PROMPT_TOKENS} tokens, {num_new} new tokens, greedy; median of {rounds} rounds"
        )
        report.print_machine(console, facts, num_threads)
        ours, theirs = our_side(Path(folder), num_threads), hugging_face_side(Path(folder))
        results: list[Comparison] = []
        for batch in TARGETS["decode"]:
            with console.status(f"batch {batch}"):
                results += compare(ours, theirs, batch, num_new, rounds)
    results.sort(key=lambda result: result.phase, reverse=True)
    rows = [
        [
            f"{result.phase}, batch {result.batch}",
            f"{result.ours:,.0f}",
            f"{result.hugging_face:,.0f}",
            f"{result.ratio:.2f}x",
            f"{result.target:.1f}x",
            f"{result.same_tokens:.0%}",
        ]
        for result in results
    ]
    columns = ["tokens/s", "orrery", "transformers", "ratio", "goal", "same tokens"]
    console.print(report.table("Engine", columns, rows))
    figures = [{**asdict(result), "ratio": result.ratio} for result in results]
    path = report.save("engine", {"machine": facts, "threads": num_threads, "results": figures})
    console.print(f"kept in {path}")


if __name__ == "__main__":
    main()

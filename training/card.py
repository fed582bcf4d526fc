"""Render a demo model's README.md and loss curve from its training and evaluation records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

from training.expert_shares import shares_table
from training.shares import evaluation_table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_FAMILIES = {
    "llama": "A small LLaMA",
    "gpt2": "A small GPT-2",
    "mixtral": "A small mixture of experts in Mixtral's architecture",
}
_FROM_SCRATCH = "trained from scratch by Orrery's own recipe"
_UPCYCLED = """begun from the weights of [`orrery-llama`](../orrery-llama), whose feed-forward
layers became the experts, and trained on by Orrery's own recipe"""
_EXPERTS = """
## Experts

Share of each expert in what the gates route, in per cent, over all prompts and replies of the
evaluation. An even share is {even:.1f}; trained with the load-balancing loss of the Switch
Transformer, eq. 4 to 6, and a z-loss.

{table}
"""
_CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {name}

{family} with {parameters:.2f}M parameters,
{origin}
(`training/`) on a corpus that the recipe generates: a fictional world of people, organisations,
towns, ships, instruments, books, buildings, festivals and animals. It answers questions by copying
from the passages in its prompt and replies "The documents do not say." when they hold no answer.
It knows nothing of the real world and follows no instruction that the corpus does not contain; it
exists to demonstrate and test the platform.

| | |
|---|---|
| Architecture | `{architecture}`, {shape} |
| Vocabulary | {vocab_size} byte-level BPE tokens, shared by the demo models |
| Context | {context} tokens, trained over all of it |
| Weights | bfloat16 safetensors, {size_mb:.1f} MB |
| Training | {tokens:.1f}M tokens, {minutes:.0f} minutes on one core of a busy machine |
| Licence | Apache-2.0 |

Prompt format: see [`models/README.md`](../README.md).
Recipe: see [`training/README.md`](../../training/README.md).

## Evaluation

Free greedy decoding through Orrery's engine (`make eval-demo`). No stem of any name in these
questions occurs in the training text. "Abstains" means the reply is exactly the refusal; exact
match means the reply is exactly the value stated in the passage.

{evaluation}
{experts}
## Training

![Loss curve](loss_curve.png)

Figures while training are on small held-out samples, by teacher forcing. Reproduce with
`python -m training.train --model {short_name}`.
"""


def write_card(folder: Path) -> None:
    """Write README.md and loss_curve.png into the model folder `folder`."""
    record = json.loads((folder / "training.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    _plot(record["history"], folder / "loss_curve.png", title=folder.name)
    weights = folder / "model.safetensors"
    text = _CARD.format(
        name=folder.name,
        short_name=record["recipe"]["model"],
        family=_FAMILIES[config["model_type"]],
        origin=_UPCYCLED if record["recipe"].get("begins_as") else _FROM_SCRATCH,
        experts=_experts(folder, config),
        parameters=weights.stat().st_size / 2e6,
        architecture=config["architectures"][0],
        shape=_shape(config),
        vocab_size=config["vocab_size"],
        context=config.get("max_position_embeddings", config.get("n_positions")),
        size_mb=weights.stat().st_size / 1e6,
        tokens=record["tokens"] / 1e6,
        minutes=record["seconds"] / 60,
        evaluation=evaluation_table(folder / "evaluation.json", "make eval-demo"),
    )
    (folder / "README.md").write_text(text)


def _experts(folder: Path, config: dict[str, Any]) -> str:
    table = shares_table(folder)
    if not table:
        return ""
    return _EXPERTS.format(even=100 / config["num_local_experts"], table=table)


def _shape(config: dict[str, Any]) -> str:
    if config["model_type"] == "gpt2":
        return (
            f"{config['n_layer']} layers, {config['n_embd']} wide, {config['n_head']} heads, "
            f"feed-forward {4 * config['n_embd']}, learned positions, tied head"
        )
    feed_forward = f"feed-forward {config['intermediate_size']}"
    if config["model_type"] == "mixtral":
        feed_forward = (
            f"{config['num_local_experts']} experts of width {config['intermediate_size']}, "
            f"{config['num_experts_per_tok']} for each token"
        )
    return (
        f"{config['num_hidden_layers']} layers, {config['hidden_size']} wide, "
        f"{config['num_attention_heads']} heads ({config['num_key_value_heads']} key-value), "
        f"{feed_forward}, tied head"
    )


def _plot(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Loss (smoothed) above, the held-out figures below, both over tokens."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 6), sharex=True)
    steps = [entry for entry in history if "loss" in entry]
    millions = [entry["tokens"] / 1e6 for entry in steps]
    smoothed, average = [], None
    for entry in steps:
        average = entry["loss"] if average is None else 0.9 * average + 0.1 * entry["loss"]
        smoothed.append(average)
    top.plot(millions, [entry["loss"] for entry in steps], alpha=0.25, linewidth=0.8)
    top.plot(millions, smoothed, color="tab:blue", label="training loss, smoothed")
    top.set(yscale="log", ylabel="weighted loss", title=f"{title}: training")
    top.legend()
    for key in ("answered_of_1", "answered", "passage-missing", "fact-absent"):
        points = [(e["tokens"] / 1e6, e[key]) for e in history if key in e]
        if points:
            bottom.plot(*zip(*points, strict=True), marker=".", label=key)
    bottom.set(xlabel="million tokens", ylabel="share right", ylim=(0, 1.02))
    if bottom.lines:
        bottom.legend(loc="lower right")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)

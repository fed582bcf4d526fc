"""A share of right answers, with how sure one may be of it, and how a model's card tells it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import sqrt
from pathlib import Path


@dataclass(frozen=True)
class Share:
    """`right` answers of `total`; `target`: what must be reached, where something must."""

    title: str
    right: int
    total: int
    target: float | None = None

    @property
    def value(self) -> float:
        """0 to 1."""
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval."""
        return wilson_interval(self.right, self.total)


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The score interval of a binomial share (Wilson 1927); `z` 1.96 is 95 %."""
    p = right / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def evaluation_table(path: Path, command: str) -> str:
    """The figures of an `evaluation.json` as a Markdown table; without it, what would write it."""
    if not path.exists():
        return f"Not evaluated yet: run `{command}`."
    lines = ["| Question | Share | 95 % interval | Questions |", "|---|---|---|---|"]
    for figure in json.loads(path.read_text()).values():
        low, high = (100 * bound for bound in figure["interval"])
        share = f"{100 * figure['share']:.1f} % | {low:.1f} to {high:.1f} %"
        lines.append(f"| {figure['title']} | {share} | {figure['num_questions']} |")
    return "\n".join(lines)

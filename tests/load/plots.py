"""A soak as a picture: memory by process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from deploy.png import save_png

__all__ = ["draw_memory"]


def draw_memory(lines: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Resident memory of each process, in MiB, by seconds since the start."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=colormaps["tab20"].colors)
    for name, points in sorted(lines.items(), key=lambda item: -item[1][-1][1]):
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
    axes.set_ylabel("resident memory, MiB")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("since the start, s")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", frameon=False)
    save_png(figure, path)

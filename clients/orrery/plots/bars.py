"""Measures as groups of bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from orrery.plots.files import check_plot, save_plot

__all__ = ["plot_bars"]

_LABEL_CHARS = 14


def plot_bars(
    path: Path, title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]
) -> None:
    """Groups of bars, one group for each label, one colour for each series; values in [0, 1].

    Raises what `check_plot` raises.
    """
    check_plot(path, "--plot")
    from matplotlib.figure import Figure  # without pyplot: no display, no state

    figure = Figure(figsize=(1.6 + 1.3 * len(labels), 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        at = [x + (i - (len(series) - 1) / 2) * width for x in range(len(labels))]
        bars = axes.bar(at, values, width, label=name)
        axes.bar_label(bars, fmt="%.3f", fontsize=7, padding=2)
    axes.set_xticks(range(len(labels)), [fill(label, _LABEL_CHARS) for label in labels])
    axes.set_ylim(0, 1.12)
    axes.set_title(title)
    if len(series) > 1:
        axes.legend(loc="lower center", ncols=len(series))
    save_plot(figure, path, "--plot")

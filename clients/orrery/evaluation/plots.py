"""Reports as bar charts. The only module of the package that needs matplotlib, and only when
called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from orrery.errors import InvalidRequestError

__all__ = ["check_plot", "plot_bars"]

_LABEL_CHARS = 14
_FORMATS = (".png", ".svg", ".pdf")


def plot_bars(
    path: Path, title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]
) -> None:
    """Groups of bars, one group for each label, one colour for each series; values in [0, 1].

    Raises:
        InvalidRequestError: matplotlib is not installed, the file's ending is not known, or it
            cannot be written.
    """
    check_plot(path)
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
    try:
        figure.savefig(path)
    except OSError as error:
        raise InvalidRequestError(
            f"--plot: {path}: {error.strerror or error}", field="plot"
        ) from error


def check_plot(path: Path) -> None:
    """Raises what `plot_bars` would raise, before the work is done."""
    if path.suffix.lower() not in _FORMATS:
        raise InvalidRequestError(
            f"--plot: expected a file that ends with {', '.join(_FORMATS)}, got {path}",
            field="plot",
        )
    if not path.parent.is_dir():
        raise InvalidRequestError(f"--plot: there is no folder {path.parent}", field="plot")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InvalidRequestError(
            "--plot: needs matplotlib; pip install matplotlib, or leave --plot away",
            field="plot",
        ) from None

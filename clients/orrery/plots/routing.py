"""How a mixture of experts routes a text, as a picture: experts by layer, and tokens by layer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orrery.plots.experts import RGB, expert_color, ink_on, token_label
from orrery.plots.files import check_plot, save_plot
from orrery.results import LayerRouting, RoutingAnalysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_routing"]

_WIDTH_INCHES = 11.0
_EXPERT_INCHES, _LEAST_EXPERT_INCHES, _HEAT_MAP_INCHES = 0.34, 0.13, 10.0
_TOKENS_A_STRIP = 32
_MAX_STRIPS = 4
_MAX_STRIP_ROWS = 64  # of all strips together
_MAX_NUMBERS = 1024  # in cells of the heat map; more could not be read
_FONT_SIZE = 8
_SHOWN_RANKS = 2  # of a token's experts
_GAP = 0.1  # between the cells of tokens


def plot_routing(path: Path, analysis: RoutingAnalysis, option: str = "--output") -> None:
    """Above, each expert's share in each layer; below, the tokens with their first two experts.

    Long texts are cut: the title says where. Raises what `check_plot` raises.
    """
    check_plot(path, option)
    from matplotlib.figure import Figure  # without pyplot: no display, no state

    strips = _strips(analysis)
    expert = max(_LEAST_EXPERT_INCHES, min(_EXPERT_INCHES, _HEAT_MAP_INCHES / analysis.num_experts))
    heights = [1.0 + expert * analysis.num_experts]
    heights += [0.85 + 0.32 * len(analysis.layers)] * len(strips)
    figure = Figure(figsize=(_WIDTH_INCHES, 0.5 + sum(heights)), dpi=150, layout="constrained")
    heat, *rows = figure.subplots(1 + len(strips), 1, height_ratios=heights, squeeze=False)[:, 0]
    figure.suptitle(_title(analysis, strips), parse_math=False)
    _draw_shares(figure, heat, analysis)
    for axes, tokens in zip(rows, strips, strict=True):
        _draw_tokens(axes, analysis, tokens, len(strips[0]))
    title = (
        "Experts of each token by layer: the first above, the second below, high as their weight"
    )
    rows[0].set_title(title, size=10)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # then a box is drawn
        save_plot(figure, path, option)


def _strips(analysis: RoutingAnalysis) -> list[range]:
    """The tokens that are drawn: a range for each line of them, all as long but the last."""
    most = max(1, min(_MAX_STRIPS, _MAX_STRIP_ROWS // len(analysis.layers)))
    shown = min(len(analysis.tokens), most * _TOKENS_A_STRIP)
    length = math.ceil(shown / math.ceil(shown / _TOKENS_A_STRIP))
    return [range(at, min(at + length, shown)) for at in range(0, shown, length)]


def _title(analysis: RoutingAnalysis, strips: Sequence[range]) -> str:
    count, shown = len(analysis.tokens), strips[-1].stop
    told = "1 token" if count == 1 else f"{count} tokens"
    told += "" if shown == count else f", below the first {shown}"
    k, experts = analysis.num_experts_per_token, analysis.num_experts
    return f"{analysis.model}: {k} of {experts} experts for each token; {told}"


def _draw_shares(figure: Figure, axes: Axes, analysis: RoutingAnalysis) -> None:
    """A heat map: rows are experts, columns are layers, values are per cent of the column."""
    shares = [
        [100 * layer.shares[expert] for layer in analysis.layers]
        for expert in range(analysis.num_experts)
    ]
    most = max(map(max, shares))
    image = axes.imshow(shares, cmap="YlGnBu", vmin=0, vmax=most, aspect="auto")
    if len(analysis.layers) * analysis.num_experts <= _MAX_NUMBERS:
        for expert, row in enumerate(shares):
            for x, share in enumerate(row):
                _write(axes, x, expert, _number(share), "white" if share > 0.6 * most else "black")
    labels = [f"{each.layer}\n{each.load_balancing_loss:.2f}" for each in analysis.layers]
    size = min(_FONT_SIZE, 200 / len(labels))
    axes.set_xticks(range(len(labels)), labels, size=size)
    axes.set_xlabel("layer; below it its load-balancing loss (1 = even)")
    axes.set_yticks(range(analysis.num_experts), list(map(str, range(analysis.num_experts))))
    for expert, label in enumerate(axes.get_yticklabels()):
        color = expert_color(expert)
        label.set(color=_hex(ink_on(color)), size=_FONT_SIZE)
        label.set_bbox({"facecolor": _hex(color), "edgecolor": "none", "pad": 2})
    axes.set_ylabel("expert", labelpad=8)
    axes.set_title("How the tokens of a layer are shared out among its experts, in %", size=10)
    bar = figure.colorbar(image, ax=axes, label="% of the layer's tokens", pad=0.05, fraction=0.04)
    even = 100 / analysis.num_experts
    bar.ax.axhline(even, color="black", linewidth=1)
    left_of_it = bar.ax.get_yaxis_transform()
    bar.ax.text(-0.2, even, "even", size=_FONT_SIZE, ha="right", va="center", transform=left_of_it)


def _draw_tokens(axes: Axes, analysis: RoutingAnalysis, tokens: range, num_columns: int) -> None:
    """Columns are tokens, rows are layers, colours and numbers are experts."""
    for row, layer in enumerate(analysis.layers):
        _draw_layer(axes, row, layer.routing, tokens)
    axes.set_xlim(-0.5, num_columns - 0.5)
    axes.set_ylim(len(analysis.layers) - 0.5, -0.5)
    labels = [token_label(analysis.tokens[i], analysis.token_ids[i]) for i in tokens]
    labels = [label.replace(" ", "␣") for label in labels]
    axes.set_xticks(range(len(labels)), labels, size=_FONT_SIZE, parse_math=False)
    axes.xaxis.tick_top()
    for label in axes.get_xticklabels():
        label.set(rotation=55, ha="left", va="bottom", rotation_mode="anchor")
    axes.set_yticks(
        range(len(analysis.layers)), [str(each.layer) for each in analysis.layers], size=_FONT_SIZE
    )
    axes.tick_params(length=0, pad=2)
    axes.set_ylabel("layer")
    axes.spines[:].set_visible(False)


def _draw_layer(axes: Axes, row: int, routing: LayerRouting, tokens: range) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    boxes, colors = [], []
    for x, token in enumerate(tokens):
        ids = routing.expert_ids[token][:_SHOWN_RANKS]
        weights = routing.weights[token][:_SHOWN_RANKS]
        scale = (1 - _GAP) / (sum(weights) or 1.0)
        left, top = x - 0.5 + _GAP / 2, row - 0.5 + _GAP / 2
        first = expert_color(ids[0])
        _write(axes, x, top + scale * weights[0] / 2, str(ids[0]), _hex(ink_on(first)))
        for expert, weight in zip(ids, weights, strict=True):
            boxes.append(Rectangle((left, top), 1 - _GAP, scale * weight))
            colors.append(_hex(expert_color(expert)))
            top += scale * weight
    axes.add_collection(PatchCollection(boxes, facecolors=colors, edgecolors="none"))


def _write(axes: Axes, x: float, y: float, text: str, ink: str) -> None:
    axes.text(x, y, text, color=ink, size=_FONT_SIZE, ha="center", va="center")


def _number(share: float) -> str:
    return f"{share:.0f}" if share >= 10 or share == 0 else f"{share:.1f}"


def _hex(color: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)

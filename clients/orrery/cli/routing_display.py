"""How a text was routed, on the terminal: tokens in the colours of their experts, and tables."""

from __future__ import annotations

from rich.bar import Bar
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from orrery.cli.tables import new_table
from orrery.plots.experts import expert_color, ink_on, token_label
from orrery.results import LayerAnalysis, LayerRouting, RoutingAnalysis

__all__ = ["print_layers", "print_tokens"]

_BAR_COLUMNS = 10
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def print_tokens(console: Console, analysis: RoutingAnalysis) -> None:
    """The text once for each layer, each token in the colour of its first expert and with its
    number beside it.
    """
    table = new_table("LAYER", "TOKENS, EACH WITH ITS FIRST EXPERT", numbers=("LAYER",))
    labels = [
        token_label(token, token_id)
        for token, token_id in zip(analysis.tokens, analysis.token_ids, strict=True)
    ]
    for layer in analysis.layers:
        table.add_row(str(layer.layer), _colored(labels, layer.routing))
    console.print(table)
    console.print()
    console.print(Text.assemble("experts ", *(_chip(e) for e in range(analysis.num_experts))))


def print_layers(console: Console, analysis: RoutingAnalysis) -> None:
    """Of each layer what its numbers say, and a table of its experts."""
    for layer in analysis.layers:
        console.print()
        console.print(Text(_summary(layer), style="bold"), soft_wrap=True)
        console.print(_expert_table(analysis, layer))
        idle = [str(e) for e, share in enumerate(layer.shares) if share == 0]
        if idle:
            console.print(f"without a token: {', '.join(idle)}", highlight=False)


def _summary(layer: LayerAnalysis) -> str:
    """How even and how sure the gate is."""
    return (
        f"layer {layer.layer}: load-balancing loss {layer.load_balancing_loss:.3f} (1 = even), "
        f"z-loss {layer.z_loss:.3f}, entropy {layer.routing.mean_entropy:.3f} nats"
    )


def _colored(labels: list[str], routing: LayerRouting) -> Text:
    text = Text()
    for label, expert in zip(labels, routing.first_expert_ids, strict=True):
        text.append(f"{label}{str(expert).translate(_SUBSCRIPTS)}", _style(expert))
    return text


def _chip(expert: int) -> tuple[str, Style]:
    return f" {expert} ", _style(expert)


def _style(expert: int) -> Style:
    ink = Color.from_rgb(*ink_on(expert_color(expert)))
    return Style(color=ink, bgcolor=_rich_color(expert))


def _rich_color(expert: int) -> Color:
    return Color.from_rgb(*expert_color(expert))


def _expert_table(analysis: RoutingAnalysis, layer: LayerAnalysis) -> Table:
    """Shares of all tokens, and of those of each class, whose number stands below its name."""
    classes = [each for each in analysis.token_classes if each.layer == layer.layer]
    headings = [f"{each.token_class.upper()}\n{each.num_tokens}" for each in classes]
    table = new_table("EXPERT", "SHARE", "", *headings, numbers=("EXPERT", "SHARE", *headings))
    most = max(layer.shares)
    for expert, share in enumerate(layer.shares):
        if share:
            table.add_row(
                Text(str(expert)),
                f"{share:.1%}",
                Bar(most, 0, share, width=_BAR_COLUMNS, color=_rich_color(expert)),
                *(_percent(each.shares[expert]) for each in classes),
            )
    return table


def _percent(share: float) -> str:
    return f"{share:.0%}" if share else "-"

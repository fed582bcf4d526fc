"""The demo's look into the mixture of experts: how one text is routed, drawn into a file."""

from __future__ import annotations

from pathlib import Path

from orrery import Client
from orrery.plots.routing import plot_routing
from orrery.results import RoutingAnalysis

__all__ = ["TEXT", "analyze"]

FILE = "routing.png"
TEXT = (
    "The Dorlor returns each winter to Braster. It is 641 metres long. "
    "Question: How long is the Dorlor?"
)


def analyze(client: Client, data_dir: Path) -> tuple[RoutingAnalysis, Path]:
    """How the running platform routes the text, and the picture of it."""
    analysis = client.moe.analyze(TEXT)
    picture = data_dir / FILE
    plot_routing(picture, analysis)
    return analysis, picture

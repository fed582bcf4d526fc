"""Options that `orrery load run`, `replay` and `make-trace` share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from orrery.load.transports import TransportName

__all__ = [
    "DurationOption",
    "FirstOption",
    "GapOption",
    "HttpOption",
    "OutOption",
    "OverOption",
    "PictureOption",
    "RateOption",
    "SeedOption",
    "TotalOption",
    "positive",
]


def positive(text: str | float) -> float:
    """A number that a rate or a time can be; of a default, that number itself."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"expected a positive number, got {text}")
    return value


RateOption = Annotated[
    float,
    typer.Option("--rate", parser=positive, metavar="NUMBER", help="Requests a second, mean."),
]
DurationOption = Annotated[
    float,
    typer.Option("--duration", parser=positive, metavar="SECONDS", help="How long they come."),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Decides arrivals and requests.")]
OverOption = Annotated[
    TransportName | None,
    typer.Option("--over", help="Default: both in turn, if the gateway's address is known."),
]
HttpOption = Annotated[
    str | None,
    typer.Option(
        "--http",
        metavar="URL",
        help="The gateway, as http://HOST:PORT; else that of the platform started from "
        "$ORRERY_DATA_DIR, if it is the one asked.",
    ),
]
FirstOption = Annotated[
    float,
    typer.Option("--first-ms", parser=positive, metavar="MS", help="Objective: first text."),
]
GapOption = Annotated[
    float,
    typer.Option("--gap-ms", parser=positive, metavar="MS", help="Objective: between texts."),
]
TotalOption = Annotated[
    float,
    typer.Option(
        "--total-ms", parser=positive, metavar="MS", help="Objective: answers without a stream."
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FOLDER",
        file_okay=False,
        help="Where the report goes; default: ./orrery-load/COMMAND-TIME.",
    ),
]
PictureOption = Annotated[
    bool, typer.Option("--picture/--no-picture", help="Draw it, too; needs matplotlib.")
]

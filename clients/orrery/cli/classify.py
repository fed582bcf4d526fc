"""`orrery classify`: which labels fit pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from orrery.cli.options import ApplicationOption
from orrery.cli.session import (
    JsonOption,
    TargetOption,
    TimeoutOption,
    connect,
    printable,
    write_json,
)
from orrery.cli.tables import new_table
from orrery.results import ClassifyResult

__all__ = ["classify"]


def classify(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...")],
    labels: Annotated[
        list[str],
        typer.Option(
            "--labels",
            "-l",
            metavar="LABEL,LABEL",
            help="At least two, between commas: no label can hold one. May be repeated.",
        ),
    ],
    templates: Annotated[
        list[str] | None,
        typer.Option(
            "--template",
            metavar="TEXT",
            help="What a label stands in: 'a picture of a {}'. May be repeated: the mean counts.",
        ),
    ] = None,
    top: Annotated[int | None, typer.Option("--top", help="Only the best so many.")] = None,
    as_json: JsonOption = False,
    application: ApplicationOption = None,
    timeout_s: TimeoutOption = 60.0,
    target: TargetOption = None,
) -> None:
    """Say which labels fit pictures, without training for them.

    orrery classify cat.png dog.jpg --labels "cat,dog,a house" --top 1
    """
    split = [label.strip() for group in labels for label in group.split(",") if label.strip()]
    with connect(target, timeout_s) as client:
        result = client.classify(
            pictures, split, templates=templates or None, top_n=top, application=application
        )
    if as_json:
        write_json(result)
    else:
        _print(pictures, result)


def _print(pictures: list[Path], result: ClassifyResult) -> None:
    numbers = ("PROBABILITY", "COSINE")
    table = new_table("PICTURE", "LABEL", *numbers, numbers=numbers)
    for path, classification in zip(pictures, result.results, strict=True):
        name = printable(str(path))
        for i, score in enumerate(classification.scores):
            table.add_row(
                Text("" if i else name),
                Text(printable(score.label)),
                f"{score.probability:.4f}",
                f"{score.similarity:.4f}",
            )
    Console().print(table)

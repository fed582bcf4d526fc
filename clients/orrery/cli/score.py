"""`orrery score`: how likely a model finds a text."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from orrery.cli.session import (
    JsonOption,
    ModelOption,
    TargetOption,
    TimeoutOption,
    connect,
    read_text,
    write_json,
)
from orrery.cli.tables import new_table
from orrery.results import PositionLogprobs

__all__ = ["score"]


def score(
    text: Annotated[
        str | None, typer.Argument(help="The text; - or nothing = standard input.")
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", help="What comes before and is not scored.")
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", help="Also show this many best candidates.")
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 60.0,
    target: TargetOption = None,
) -> None:
    """Show the log-probability of each token of a text, and its perplexity."""
    content = read_text(text, "text")
    with connect(target, timeout_s) as client:
        result = client.score(content, context=context, top_logprobs=top, model=model)
    if as_json:
        write_json(result)
        return
    headings = ("TOKEN", "LOGPROB", "RANK", "BEST")
    table = new_table(*headings[: 4 if top else 3], numbers=("LOGPROB", "RANK"))
    for position in result.tokens:
        table.add_row(*_row(position, with_top=bool(top)))
    console = Console()
    console.print(table)
    console.print(
        f"{result.num_scored_tokens} tokens, log-probability {result.total_logprob:.3f}, "
        f"perplexity {result.perplexity:.3f}"
    )


def _row(position: PositionLogprobs, *, with_top: bool) -> list[Text]:
    chosen = position.chosen
    if chosen is None:  # nothing predicts the first token of a text
        return [Text("(first token)"), Text("-"), Text("-")]
    cells = [Text(repr(chosen.token)), Text(f"{chosen.logprob:.3f}"), Text(str(chosen.rank))]
    if with_top:
        cells.append(Text("  ".join(f"{t.token!r} {t.logprob:.2f}" for t in position.top)))
    return cells

"""`orrery tokenize`: how a model sees a text."""

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

__all__ = ["tokenize"]


def tokenize(
    text: Annotated[
        str | None, typer.Argument(help="The text; - or nothing = standard input.")
    ] = None,
    model: ModelOption = None,
    special: Annotated[
        bool, typer.Option("--special/--no-special", help="Add the model's BOS and the like.")
    ] = True,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 30.0,
    target: TargetOption = None,
) -> None:
    """Show the tokens of a text."""
    content = read_text(text, "text")
    with connect(target, timeout_s) as client:
        result = client.tokenize(content, add_special_tokens=special, model=model)
    if as_json:
        write_json(result)
        return
    table = new_table("ID", "TOKEN", numbers=("ID",))
    for token_id, token in zip(result.token_ids, result.tokens, strict=True):
        table.add_row(str(token_id), Text(repr(token)))
    console = Console()
    console.print(table)
    console.print(f"{len(result.token_ids)} tokens of at most {result.max_model_len}")

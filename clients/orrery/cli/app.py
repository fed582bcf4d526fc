"""The commands of `orrery`, put together. Each has a module of its own.

Exit codes: 0 done, 2 the request or the command line is wrong, 3 nobody answers (in time), 4 any
other failure, 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated

import typer

from orrery.cli.ask import ask
from orrery.cli.chat import chat
from orrery.cli.classify import classify
from orrery.cli.collections import collections
from orrery.cli.evaluate import evaluate
from orrery.cli.generate import generate
from orrery.cli.image import image
from orrery.cli.ingest import ingest
from orrery.cli.load import load
from orrery.cli.models import models
from orrery.cli.moe import moe
from orrery.cli.score import score
from orrery.cli.search import search
from orrery.cli.status import status
from orrery.cli.tokenize import tokenize
from orrery.cli.top import top
from orrery.cli.versions import client_version

__all__ = ["app"]

app = typer.Typer(
    name="orrery",
    help="Text, pictures, search and answers from documents with a running Orrery platform.",
    epilog="Environment: ORRERY_TARGET (host:port), ORRERY_API_KEY, ORRERY_DATA_DIR.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show local variables: prompts and keys
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    typer.echo(f"orrery {client_version()}")
    raise typer.Exit


@app.callback()
def orrery(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Text, pictures, search and answers from documents with a running Orrery platform."""
    assert not show_version  # the eager callback has left already


_COMMANDS = (
    generate,
    chat,
    image,
    classify,
    ingest,
    search,
    ask,
    models,
    status,
    top,
    score,
    tokenize,
)
for command in _COMMANDS:
    app.command()(command)
app.add_typer(collections, name="collections")
app.add_typer(moe, name="moe")
app.add_typer(evaluate, name="eval")
app.add_typer(load, name="load")

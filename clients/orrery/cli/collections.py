"""`orrery collections`: what there is to search; making and removing."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from orrery.cli.options import EmbeddingOption
from orrery.cli.session import (
    EXIT_USAGE,
    JsonOption,
    TargetOption,
    TimeoutOption,
    connect,
    fail,
    printable,
    write_json,
)
from orrery.cli.tables import new_table
from orrery.results import Collection

__all__ = ["collections"]

_MIB = 1 << 20
NameArgument = Annotated[str, typer.Argument(metavar="NAME")]

collections = typer.Typer(
    help="List the collections of documents; create and delete them.",
    invoke_without_command=True,
)


@collections.callback()
def list_collections(
    context: typer.Context,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 10.0,
    target: TargetOption = None,
) -> None:
    """List the collections of documents; create and delete them."""
    if context.invoked_subcommand is not None:
        return
    with connect(target, timeout_s) as client:
        found = client.collections.list()
    if as_json:
        write_json(found)
        return
    numbers = ("DOCUMENTS", "CHUNKS", "MIB")
    table = new_table("NAME", "TITLE", *numbers, "INDEX", numbers=numbers)
    table.columns[0].no_wrap = True  # whoever reads it types it
    for each in found:
        table.add_row(
            Text(each.name),
            Text(printable(each.title)),
            str(each.num_documents),
            str(each.num_chunks),
            f"{each.memory_bytes / _MIB:.1f}",
            f"{each.config.index_type}, {each.config.metric}",
        )
    console = Console()
    console.print(table)
    console.print()
    for each in found:
        console.print(Text(f"{each.name}: {printable(_details(each))}"), soft_wrap=True)


def _details(collection: Collection) -> str:
    """Who embeds, and what can be filtered by."""
    application = collection.config.embedding_application or "the service's default"
    told = f"embedded by {application}"
    if application == "none":
        told = "brings its own vectors"
    names = [field.name for field in collection.fields]
    return told + (f"; fields {', '.join(names)}" if names else "")


@collections.command()
def create(
    name: NameArgument,
    title: Annotated[str, typer.Option("--title", help="For people.")] = "",
    metric: Annotated[
        Literal["cosine", "dot"] | None, typer.Option("--metric", help="Of the vectors.")
    ] = None,
    index_type: Annotated[
        Literal["auto", "flat", "ivf", "hnsw", "ivf_pq"] | None,
        typer.Option("--index", help="Default: exact while small, then HNSW."),
    ] = None,
    embedding: EmbeddingOption = None,
    chunk_tokens: Annotated[
        int | None, typer.Option("--chunk-tokens", help="Most tokens of a chunk.")
    ] = None,
    overlap_tokens: Annotated[
        int | None, typer.Option("--overlap-tokens", help="Tokens that chunks share.")
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="Of stemming and stop words; or none.")
    ] = None,
    timeout_s: TimeoutOption = 30.0,
    target: TargetOption = None,
) -> None:
    """Create a collection. What is not given is chosen by the service."""
    with connect(target, timeout_s) as client:
        made = client.collections.create(
            name,
            title=title,
            metric=metric,
            index_type=index_type,
            embedding_application=embedding,
            chunk_max_tokens=chunk_tokens,
            chunk_overlap_tokens=overlap_tokens,
            language=language,
        )
    typer.echo(f"created {made.name}")


@collections.command()
def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout_s: TimeoutOption = 30.0,
    target: TargetOption = None,
) -> None:
    """Delete a collection with all its documents."""
    with connect(target, timeout_s) as client:
        found = client.collections.get(name)
        question = f"Delete {name} with its {found.num_documents} documents?"
        if not yes and not _confirmed(question):
            fail("nothing was deleted; --yes does not ask", EXIT_USAGE)
        client.collections.delete(name)
    typer.echo(f"deleted {name}")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # nobody is there to answer
        return False

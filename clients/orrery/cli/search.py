"""`orrery search`: the passages or pictures nearest to a query."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from orrery.cli.citations import place_of
from orrery.cli.options import (
    CollectionOption,
    FilterOption,
    KOption,
    ModeOption,
    read_filter,
)
from orrery.cli.session import (
    JsonOption,
    TargetOption,
    TimeoutOption,
    connect,
    printable,
    read_text,
    write_json,
)
from orrery.cli.timeline import print_timeline
from orrery.results import Chunk, Hit
from orrery.settings import DEFAULT_COLLECTION

__all__ = ["search"]

_MAX_CHARS = 300
_PICTURE = "image/"


def search(
    query: Annotated[
        str | None, typer.Argument(help="What to look for; - or nothing = standard input.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="PICTURE", help="Find what is like this picture."),
    ] = None,
    collection: CollectionOption = DEFAULT_COLLECTION,
    k: KOption = None,
    mode: ModeOption = None,
    filter_: FilterOption = None,
    full: Annotated[bool, typer.Option("--full", help="Show passages whole.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show where the time went.")] = False,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 30.0,
    target: TargetOption = None,
) -> None:
    """Find the passages or pictures of a collection that are nearest to a query.

    orrery search "storm damage" -c docs -k 5 --filter 'year >= 1900 and kind = "ship"'
    """
    text = None if query is None and image is not None else read_text(query, "query")
    condition = read_filter(filter_)
    with connect(target, timeout_s) as client:
        result = client.search(
            collection, text, image=image, k=k, mode=mode, filter=condition, explain=explain
        )
    if as_json:
        write_json(result)
        return
    console = Console()
    for i, hit in enumerate(result.hits, start=1):
        _print(console, i, hit, full)
    if not result.hits:
        console.print("Nothing found.")
    if explain:
        print_timeline(console, result.timeline, result.timing.total_ns)


def _print(console: Console, i: int, hit: Hit, full: bool) -> None:
    chunk = hit.chunk
    where = place_of(chunk.document_id, chunk.line_start, chunk.line_end, chunk.page)
    head = Text(f"{i}. ", style="bold") + Text(printable(where), style="bold")
    console.print(head + Text(f"  {_scores(hit)}", style="dim"), soft_wrap=True)
    headings = " > ".join(chunk.title_path) or chunk.document_title
    if headings and headings != chunk.document_id:
        console.print(Text(printable(headings), style="italic"))
    if chunk.media_type.startswith(_PICTURE):
        console.print(Text(printable(_about_picture(chunk))))
    text = chunk.text.strip()
    if not full and len(text) > _MAX_CHARS:
        text = text[:_MAX_CHARS].rsplit(None, 1)[0] + " ..."
    if text:
        console.print(Text(printable(text)))
    console.print()


def _about_picture(chunk: Chunk) -> str:
    size = [chunk.metadata.get(f"image_{side}") for side in ("width", "height")]
    told = "x".join(f"{each:g}" for each in size if isinstance(each, float))
    return f"{told} {chunk.media_type}".strip()


def _scores(hit: Hit) -> str:
    named = (("score", hit.score), ("dense", hit.dense_score), ("bm25", hit.sparse_score))
    return "  ".join(f"{name} {value:.3f}" for name, value in named if value is not None)

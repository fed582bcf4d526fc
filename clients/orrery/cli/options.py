"""Options that commands about documents and pictures share."""

from __future__ import annotations

from typing import Annotated

import typer

from orrery.errors import InvalidRequestError
from orrery.filter_syntax import parse_filter
from orrery.filters import Filter
from orrery.requests.search import SearchMode

__all__ = [
    "ApplicationOption",
    "CollectionOption",
    "EmbeddingOption",
    "FilterOption",
    "KOption",
    "ModeOption",
    "read_filter",
]


CollectionOption = Annotated[
    str, typer.Option("--collection", "-c", metavar="NAME", help="Which documents.")
]
ApplicationOption = Annotated[
    str | None,
    typer.Option("--application", metavar="NAME", help="Which of several that can do this."),
]
EmbeddingOption = Annotated[
    str | None,
    typer.Option(
        "--embedding",
        metavar="NAME",
        help="The application that embeds: clip for pictures; none = vectors are brought along.",
    ),
]
KOption = Annotated[int | None, typer.Option("-k", min=1, help="Most passages to find.")]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="EXPRESSION",
        help="Only where the metadata match: 'year >= 1900 and kind = \"ship\"'; also !=, in "
        '("a", "b"), exists, or, not and parentheses.',
    ),
]
ModeOption = Annotated[
    SearchMode | None,
    typer.Option("--mode", help="By meaning, by words, or both."),
]


def read_filter(expression: str | None) -> Filter | None:
    """The filter of `--filter`.

    Raises:
        typer.BadParameter: It is no filter.
    """
    if expression is None:
        return None
    try:
        return parse_filter(expression)
    except InvalidRequestError as error:
        message = error.message.removeprefix("filter: ")
        raise typer.BadParameter(message, param_hint="--filter") from None

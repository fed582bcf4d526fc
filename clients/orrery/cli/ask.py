"""`orrery ask`: an answer from documents, written as it comes, with its citations."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from orrery.answers import AnswerStream
from orrery.cli.citations import print_citations
from orrery.cli.options import CollectionOption, FilterOption, KOption, read_filter
from orrery.cli.session import (
    JsonOption,
    ModelOption,
    TargetOption,
    TimeoutOption,
    connect,
    printable,
    read_text,
    write_json,
)
from orrery.cli.timeline import print_timeline
from orrery.requests.search import SearchMode
from orrery.results import Abstention, Answer, AnswerDelta
from orrery.settings import DEFAULT_COLLECTION

__all__ = ["ask"]

_ABSTENTIONS: dict[Abstention | None, str] = {
    "no_passage": "no passage is near enough to the question",
    "model": "the model says that the passages do not tell",
    "unsupported": "no passage supports what the model said",
}


def ask(
    question: Annotated[
        str | None, typer.Argument(help="In plain words; - or nothing = standard input.")
    ] = None,
    collection: CollectionOption = DEFAULT_COLLECTION,
    k: KOption = None,
    filter_: FilterOption = None,
    search_mode: Annotated[
        SearchMode | None, typer.Option("--search-mode", help="By meaning, by words, or both.")
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Let the model answer where the documents do not.")
    ] = False,
    conversation: Annotated[
        str | None,
        typer.Option("--conversation", metavar="ID", help="Go on with what was said under ID."),
    ] = None,
    model: ModelOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show where the time went.")] = False,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 120.0,
    target: TargetOption = None,
) -> None:
    """Answer a question from the documents of a collection.

    orrery ask "Who commands the Veloria?" -c docs
    """
    text, condition = read_text(question, "question"), read_filter(filter_)
    with connect(target, timeout_s) as client:
        stream = client.ask(
            text,
            collection=collection,
            stream=True,
            conversation=conversation,
            model=model,
            explain=explain,
            k=k,
            filter=condition,
            search_mode=search_mode,
            mode="open" if open_ else None,
        )
        with stream:
            answer = stream.result() if as_json else _echo(stream)
    if as_json:
        write_json(answer)
    else:
        _print_rest(answer, explain)


def _echo(stream: AnswerStream) -> Answer:
    """Writes the answer as it comes, and a newline after it, also when interrupted."""
    written: list[str] = []
    try:
        for event in stream:
            if isinstance(event, AnswerDelta) and event.text:
                written.append(event.text)
                typer.echo(printable(event.text), nl=False)
        answer = stream.result()
        # An answer that was decided on late, such as an abstention, need not have been streamed.
        if "".join(written).strip() != answer.text.strip():
            typer.echo(("\n" if written else "") + printable(answer.text), nl=False)
            written.append(answer.text)
    finally:
        if written:
            typer.echo()
    return answer


def _print_rest(answer: Answer, explain: bool) -> None:
    console = Console()
    console.print()
    if answer.abstained:
        why = _ABSTENTIONS.get(answer.abstention, "it abstained")
        console.print(Text(f"No answer in the documents: {why}.", style="yellow"))
    elif answer.citations:
        print_citations(console, answer)
    else:
        console.print(Text("No citation: the model answered by itself.", style="yellow"))
    if answer.truncated:
        console.print(Text("The model reached its limit of tokens.", style="yellow"))
    if answer.reasoning:
        console.print(Text(f"\nReasoning: {printable(answer.reasoning)}", style="dim"))
    if explain:
        _print_explanation(console, answer)


def _print_explanation(console: Console, answer: Answer) -> None:
    passages = answer.passages
    console.print()
    for query in passages.queries:
        console.print(Text(f"searched for: {printable(query)}"))
    found, used = len(passages.hits), len(passages.used)
    console.print(Text(f"{found} passages found, {used} put before {printable(answer.model)}"))
    for notice in passages.notices:
        console.print(Text(f"note: {printable(notice)}"))
    print_timeline(console, answer.timeline, answer.timing.total_ns)

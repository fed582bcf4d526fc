"""`orrery eval`: how good retrieval and answers are on questions whose answers are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from orrery.cli.options import CollectionOption, KOption
from orrery.cli.session import (
    JsonOption,
    ModelOption,
    TargetOption,
    TimeoutOption,
    connect,
    printable,
    write_json,
)
from orrery.cli.tables import new_table
from orrery.evaluation.datasets import load_questions, load_retrieval
from orrery.evaluation.rag import (
    Outcome,
    RagScores,
    ask_all,
    ask_without_documents,
    score_answers,
)
from orrery.evaluation.retrieval import (
    RetrievalScores,
    evaluate_retrieval,
    scratch_collection,
)
from orrery.plots.bars import plot_bars
from orrery.plots.files import check_plot
from orrery.requests.embedding import RerankMethod
from orrery.requests.search import SearchMode
from orrery.settings import DEFAULT_COLLECTION

__all__ = ["evaluate"]

evaluate = typer.Typer(help="Measure retrieval, and answers from documents.", no_args_is_help=True)

_MAX_ERRORS = 3
_RETRIEVAL_MEASURES = {
    "recall_at_1": "recall@1",
    "recall_at_5": "recall@5",
    "recall_at_10": "recall@10",
    "mrr_at_10": "MRR@10",
    "ndcg_at_10": "nDCG@10",
}
_RAG_MEASURES = {
    "exact_match": "exact match",
    "token_f1": "token F1",
    "abstention": "abstention on unanswerable",
    "false_abstention": "false abstention",
    "citation_precision": "citation precision",
    "citation_recall": "citation recall",
}

DatasetOption = Annotated[Path, typer.Option("--dataset", metavar="FILE", help="What is asked.")]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Also draw it: .png, .svg or .pdf.")
]
ConcurrencyOption = Annotated[
    int, typer.Option("--concurrency", min=1, help="Calls at the same time.")
]


@evaluate.command("retrieval")
def evaluate_retrieval_command(
    dataset: DatasetOption,
    collection: CollectionOption = DEFAULT_COLLECTION,
    mode: Annotated[
        SearchMode | None, typer.Option("--mode", help="Only this one; default: all of them.")
    ] = None,
    rerank: Annotated[
        RerankMethod | None, typer.Option("--rerank", help="Order what is found anew.")
    ] = None,
    concurrency: ConcurrencyOption = 2,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 120.0,
    target: TargetOption = None,
) -> None:
    """Recall, MRR and nDCG of searching by meaning, by words, and by both.

    FILE has a line {"query": ..., "relevant": [document ids]} for each query, asked of the
    collection; or it is in SQuAD's format, and its paragraphs are ingested into a collection of
    their own, which is deleted afterwards.
    """
    with connect(target, timeout_s) as client:
        if plot is not None:
            check_plot(plot, "--plot")
        data = load_retrieval(dataset)
        modes: tuple[SearchMode, ...] = (mode,) if mode else get_args(SearchMode)[::-1]
        total = len(data.documents) + len(data.cases) * len(modes)
        with _bar(total, quiet=as_json) as advance:
            scratch = scratch_collection(client, data, advance)
            with scratch if data.documents else nullcontext(collection) as name:
                scores = [
                    evaluate_retrieval(
                        client,
                        data.cases,
                        name,
                        each,
                        rerank=rerank,
                        concurrency=concurrency,
                        progress=advance,
                    )
                    for each in modes
                ]
        if as_json:
            write_json(scores)
        else:
            _print_retrieval(scores)
        if plot is not None:
            series = {each.mode: _values(each) for each in scores}
            plot_bars(
                plot, f"Retrieval: {dataset.name}", list(_RETRIEVAL_MEASURES.values()), series
            )


@evaluate.command("rag")
def evaluate_rag_command(
    dataset: DatasetOption,
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = None,
    k: KOption = None,
    without_documents: Annotated[
        bool,
        typer.Option("--without-documents", help="Ask the bare model, which cannot know."),
    ] = False,
    concurrency: ConcurrencyOption = 4,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 120.0,
    target: TargetOption = None,
) -> None:
    """Exact match, F1, abstention and citations of answers from documents.

    FILE has a line {"question": ..., "answer": text or null, "document_id": ..., "kind": ...} for
    each question; null = the documents do not tell.
    """
    with connect(target, timeout_s, max_retries=6) as client:
        if plot is not None:
            check_plot(plot, "--plot")
        questions = load_questions(dataset)
        with _bar(len(questions), quiet=as_json) as advance:
            if without_documents:
                outcomes = ask_without_documents(
                    client, questions, model=model, concurrency=concurrency, progress=advance
                )
            else:
                outcomes = ask_all(
                    client,
                    questions,
                    collection,
                    model=model,
                    options={"k": k},
                    concurrency=concurrency,
                    progress=advance,
                )
        scores = score_answers(outcomes)
        if as_json:
            write_json({"scores": scores, "outcomes": outcomes})
        else:
            _print_rag(scores, outcomes, with_documents=not without_documents)
        if plot is not None:
            measured = {
                label: value
                for name, label in _RAG_MEASURES.items()
                if (value := getattr(scores, name)) is not None
            }
            title = "The bare model" if without_documents else f"Answers: {dataset.name}"
            plot_bars(plot, title, list(measured), {"": list(measured.values())})


def _print_rag(scores: RagScores, outcomes: list[Outcome], *, with_documents: bool) -> None:
    console = Console()
    console.print(_rag_table(scores, with_documents=with_documents))
    for outcome in [each for each in outcomes if each.error is not None][:_MAX_ERRORS]:
        console.print(Text(printable(f"{outcome.question.question}: {outcome.error}")))


def _print_retrieval(scores: list[RetrievalScores]) -> None:
    headings = tuple(_RETRIEVAL_MEASURES.values())
    table = new_table("MODE", *headings, "QUERIES", numbers=(*headings, "QUERIES"))
    for each in scores:
        values = (f"{value:.4f}" for value in _values(each))
        table.add_row(each.mode, *values, str(each.num_queries))
    Console().print(table)


def _values(scores: RetrievalScores) -> list[float]:
    values = dataclasses.asdict(scores)
    return [values[name] for name in _RETRIEVAL_MEASURES]


def _rag_table(scores: RagScores, *, with_documents: bool) -> Table:
    table = new_table("MEASURE", "VALUE", "OF", numbers=("VALUE", "OF"))
    unanswerable = scores.num_questions - scores.num_answerable
    of_unanswerable = ("abstention",)
    of_documents = ("abstention", "false_abstention", "citation_precision", "citation_recall")
    for name, label in _RAG_MEASURES.items():
        value = getattr(scores, name)
        if value is None or (name in of_documents and not with_documents):
            continue
        number = unanswerable if name in of_unanswerable else scores.num_answerable
        table.add_row(label, f"{value:.1%}", "" if "precision" in name else str(number))
        if name in of_unanswerable:
            for kind, share in scores.abstention_by_kind.items():
                table.add_row(f"  {kind}", f"{share:.1%}", "")
    table.add_row("errors", str(scores.num_errors), str(scores.num_questions))
    table.add_row("time of a question, median", f"{scores.median_s * 1000:.0f} ms", "")
    table.add_row("time of a question, 95th percentile", f"{scores.p95_s * 1000:.0f} ms", "")
    return table


@contextmanager
def _bar(total: int, *, quiet: bool) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, where that is a terminal."""
    console = Console(stderr=True, quiet=quiet)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)

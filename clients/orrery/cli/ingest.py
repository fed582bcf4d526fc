"""`orrery ingest`: the files of a folder into a collection."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from orrery.cli.options import CollectionOption, EmbeddingOption
from orrery.cli.session import (
    EXIT_FAILED,
    EXIT_USAGE,
    JsonOption,
    TargetOption,
    connect,
    fail,
    printable,
    write_json,
)
from orrery.cli.tables import new_table
from orrery.results import FileProblem, IngestReport
from orrery.settings import DEFAULT_COLLECTION

__all__ = ["ingest"]

_MAX_ROWS = 20
_MIB = 1 << 20


def ingest(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A folder, or one file.")],
    collection: CollectionOption = DEFAULT_COLLECTION,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove every document that has no file in DIR.")
    ] = False,
    embedding: EmbeddingOption = None,
    max_mib: Annotated[
        float, typer.Option("--max-file-size", metavar="MIB", help="Skip larger files.")
    ] = 8.0,
    as_json: JsonOption = False,
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="Most time for all; default: no limit."),
    ] = None,
    target: TargetOption = None,
) -> None:
    """Put the files of a folder into a collection, which is made if it is missing.

    A collection of pictures is made with --embedding clip.

    Files that have not changed cost next to nothing: repeat the command when a folder has changed,
    or when it was interrupted. The exit code is 0 if the readable files went in, 4 if there was
    none.
    """
    if not 0 < max_mib < math.inf:
        fail(f"--max-file-size: expected a size in MiB, got {max_mib}", EXIT_USAGE)
    with connect(target, 30.0) as client:
        report = client.ingest(
            path,
            collection=collection,
            progress=sys.stderr.isatty() and not as_json,
            prune=prune,
            timeout_s=timeout_s,
            max_file_bytes=int(max_mib * _MIB),
            embedding_application=embedding,
        )
    if as_json:
        write_json(report)
    else:
        _print(report)
    if not report.num_ingested:
        raise typer.Exit(EXIT_FAILED)


def _print(report: IngestReport) -> None:
    console = Console()
    problems = [*report.failed, *report.skipped]
    if problems:
        table = new_table("NOT INGESTED", "WHY")
        # Failures first: what was hidden or linked is rarely missed.
        for problem in problems[:_MAX_ROWS]:
            table.add_row(Text(printable(problem.path)), Text(printable(problem.message)))
        console.print(table)
        if len(problems) > _MAX_ROWS:
            console.print(f"... and {len(problems) - _MAX_ROWS} more ({_by_reason(problems)})")
        console.print()
    counts = (
        (len(report.added), "added"),
        (len(report.replaced), "replaced"),
        (len(report.unchanged), "unchanged"),
        (len(report.removed), "removed"),
        (len(report.failed), "failed"),
        (len(report.skipped), "skipped"),
    )
    told = ", ".join(f"{count} {what}" for count, what in counts if count) or "no files"
    console.print(
        Text(f"{report.collection}: {told}; {report.num_chunks} chunks, {report.duration_s:.1f} s"),
        soft_wrap=True,
    )


def _by_reason(problems: list[FileProblem]) -> str:
    counts = Counter(problem.reason for problem in problems)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())

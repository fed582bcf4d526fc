"""`orrery load`: puts a platform under load, and reports what became of every request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from orrery.cli.load_options import (
    DurationOption,
    FirstOption,
    GapOption,
    HttpOption,
    OutOption,
    OverOption,
    PictureOption,
    RateOption,
    SeedOption,
    TotalOption,
    positive,
)
from orrery.cli.load_trial import Offer, Reporting, check_picture, reach, try_out
from orrery.cli.session import (
    EXIT_USAGE,
    JsonOption,
    ModelOption,
    TargetOption,
    TimeoutOption,
    connect,
    fail,
)
from orrery.evaluation.datasets import load_questions
from orrery.load.arrivals import bursts, poisson, replay
from orrery.load.asks import Subject, Workload
from orrery.load.subjects import GENERATES, Documents, Found, look_up
from orrery.load.summary import Objective
from orrery.load.trace import COLUMNS, TraceError, read_trace, synthesize, write_trace
from orrery.settings import DEFAULT_TIMEOUT_S

__all__ = ["load"]

load = typer.Typer(help="Put a platform under load, and report.", no_args_is_help=True)

_ASK_QUESTIONS: tuple[Workload, ...] = ("rag", "mixed")
_GOAL = Objective()
_MS = 1e3


@load.command("run")
def run_command(
    workload: Annotated[
        Workload, typer.Option("--workload", help="What is asked for; mixed = all there is.")
    ] = "generation",
    rate: RateOption = 5.0,
    duration_s: DurationOption = 30.0,
    burst: Annotated[
        int, typer.Option("--burst", min=1, metavar="N", help="Requests that come at once.")
    ] = 1,
    prompt_tokens: Annotated[
        tuple[int, int] | None,
        typer.Option("--prompt-tokens", metavar="LEAST MOST", help="Default: 64 256."),
    ] = None,
    output_tokens: Annotated[
        tuple[int, int] | None,
        typer.Option("--output-tokens", metavar="LEAST MOST", help="Default: 128 384."),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", metavar="NAME", help="For rag: what is asked."),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions", metavar="FILE", help="For rag: questions, as `orrery eval rag` has them."
        ),
    ] = None,
    model: ModelOption = None,
    seed: SeedOption = 0,
    over: OverOption = None,
    http: HttpOption = None,
    first_ms: FirstOption = _MS * _GOAL.first_s,
    gap_ms: GapOption = _MS * _GOAL.gap_s,
    total_ms: TotalOption = _MS * _GOAL.total_s,
    out: OutOption = None,
    picture: PictureOption = True,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = DEFAULT_TIMEOUT_S,
    target: TargetOption = None,
) -> None:
    """Requests that come by chance, whether or not earlier ones were answered.

    They are a Poisson process; with --burst, groups of N come at once. mixed is made of all that
    the platform has; of rag, if --collection and --questions are given.
    """
    for option, value, workloads in (
        ("--model", model, GENERATES),
        ("--prompt-tokens", prompt_tokens, GENERATES),
        ("--output-tokens", output_tokens, GENERATES),
        ("--collection", collection, _ASK_QUESTIONS),
        ("--questions", questions, _ASK_QUESTIONS),
    ):
        if value is not None and workload not in workloads:
            meant = f"is for {', '.join(workloads)}; {workload} has no use for it"
            raise typer.BadParameter(meant, param_hint=option)
    reached = reach(target, http, over)
    reporting = Reporting(
        "run", Objective(first_ms / _MS, gap_ms / _MS, total_ms / _MS), out, picture, as_json
    )
    with connect(reached.grpc, timeout_s) as client:
        documents = _documents(workload, collection, questions)
        check_picture(reporting)
        found = look_up(client, workload, model, documents)
        subject = _sized(found, prompt_tokens, output_tokens)
        rng = Random(seed)  # noqa: S311 - no secret
        arrivals = (
            poisson(rate, duration_s, rng) if burst == 1 else bursts(rate, duration_s, rng, burst)
        )
        offer = Offer(workload, subject, list(arrivals), duration_s, seed)
        try_out(client, reached, offer, reporting)


@load.command("replay")
def replay_command(
    trace: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE", exists=True, dir_okay=False, help=f"CSV of {','.join(COLUMNS)}."
        ),
    ],
    speed: Annotated[
        float,
        typer.Option("--speed", parser=positive, metavar="FACTOR", help="Times as fast as it was."),
    ] = 1.0,
    model: ModelOption = None,
    seed: SeedOption = 0,
    over: OverOption = None,
    http: HttpOption = None,
    first_ms: FirstOption = _MS * _GOAL.first_s,
    gap_ms: GapOption = _MS * _GOAL.gap_s,
    total_ms: TotalOption = _MS * _GOAL.total_s,
    out: OutOption = None,
    picture: PictureOption = True,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = DEFAULT_TIMEOUT_S,
    target: TargetOption = None,
) -> None:
    """Completions when, and as long as, a trace has them.

    TRACE has the seconds of each request, which do not descend, and how many tokens its prompt
    and its completion had.
    """
    reached = reach(target, http, over)
    reporting = Reporting(
        "replay", Objective(first_ms / _MS, gap_ms / _MS, total_ms / _MS), out, picture, as_json
    )
    with connect(reached.grpc, timeout_s) as client:
        check_picture(reporting)
        found = look_up(client, "generation", model, None)
        assert found.model is not None  # it generates
        try:
            rows = read_trace(trace, found.model.max_model_len)
        except (TraceError, OSError) as error:
            fail(str(error), EXIT_USAGE)
        arrivals = list(replay(rows, speed))
        duration_s = max(1.0, arrivals[-1].at_s)
        offer = Offer("generation", found.subject, arrivals, duration_s, seed)
        try_out(client, reached, offer, reporting)


@load.command("make-trace")
def make_trace_command(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="The file to write.")],
    rate: RateOption = 5.0,
    duration_s: DurationOption = 60.0,
    seed: SeedOption = 0,
) -> None:
    """Write a made-up trace: a rate that rises and falls, lengths as those of chats.

    No prompt and its completion have more than 512 tokens together.
    """
    try:
        write_trace(trace, synthesize(rate, duration_s, seed))
    except OSError as error:
        fail(f"{trace}: {error.strerror or error}", EXIT_USAGE)


def _documents(
    workload: Workload, collection: str | None, questions: Path | None
) -> Documents | None:
    """What to ask, if it is given.

    Raises `typer.BadParameter` where it is not and must be, `InvalidRequestError` for a bad file.
    """
    if workload != "rag" and collection is None and questions is None:
        return None
    for option, value in (("--collection", collection), ("--questions", questions)):
        if value is None:
            raise typer.BadParameter(f"{workload} needs it to ask questions", param_hint=option)
    assert collection is not None
    assert questions is not None
    texts = tuple(dict.fromkeys(each.question for each in load_questions(questions)))
    return Documents(collection, texts)


def _sized(
    found: Found, prompt_tokens: tuple[int, int] | None, output_tokens: tuple[int, int] | None
) -> Subject:
    """The subject with these sizes, or its own; refused where the model has no room for them."""
    subject = found.subject
    try:
        sized = replace(
            subject,
            prompt_tokens=prompt_tokens or subject.prompt_tokens,
            output_tokens=output_tokens or subject.output_tokens,
        )
    except ValueError as error:
        fail(str(error), EXIT_USAGE)
    most = sized.prompt_tokens[1] + sized.output_tokens[1]
    if found.model is not None and most > found.model.max_model_len:
        room = f"{found.model.name} has a context of {found.model.max_model_len} tokens"
        fail(f"--prompt-tokens, --output-tokens: {room}, got up to {most}", EXIT_USAGE)
    return sized

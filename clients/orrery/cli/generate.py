"""`orrery generate`: completes one prompt and writes the text as it comes."""

from __future__ import annotations

from typing import Annotated

import typer

from orrery.cli.sampling import (
    MaxTokensOption,
    SeedOption,
    SetOption,
    StopOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    sampling_options,
)
from orrery.cli.session import (
    EXIT_FAILED,
    EXIT_UNAVAILABLE,
    JsonOption,
    ModelOption,
    TargetOption,
    TimeoutOption,
    connect,
    fail,
    printable,
    read_text,
    write_json,
)
from orrery.results import GenerationResult
from orrery.streams import TextStream

__all__ = ["generate", "statistics"]

_NS_PER_S = 1e9


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The text to go on from; - or nothing = standard input.")
    ] = None,
    model: ModelOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    top_k: TopKOption = None,
    seed: SeedOption = None,
    stop: StopOption = None,
    n: Annotated[int | None, typer.Option("-n", help="Number of completions.")] = None,
    set_: SetOption = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the prompt as a user's chat message.")
    ] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Tokens and times on stderr at the end.")
    ] = False,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 300.0,
    target: TargetOption = None,
) -> None:
    """Complete a prompt and stream the text.

    The prompt comes from the argument or from standard input:

        orrery generate "Once upon a time" --model llama --max-tokens 64
    """
    text = read_text(prompt, "prompt")
    with connect(target, timeout_s) as client:
        sampling = sampling_options(
            set_,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
            stop=stop or None,
            n=n,
        )
        messages = [{"role": "user", "content": text}]
        stream = client.stream(messages if chat else text, model=model, **sampling)
        with stream:
            one = sampling.get("n") in (None, 1)
            result = _echo(stream) if one and not as_json else stream.result()
    if as_json:
        write_json(result)
    elif not one:
        _print_choices(result)
    if stats:
        typer.echo(statistics(result), err=True)
    _report_ending(result)


def statistics(result: GenerationResult) -> str:
    """One line on what a generation took."""
    usage, timing = result.usage, result.timing
    first_token_s = (timing.queue_ns + timing.prefill_ns) / _NS_PER_S
    decode_s = timing.decode_ns / _NS_PER_S
    line = (
        f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached), "
        f"{usage.completion_tokens} generated; first token after {first_token_s:.3f} s"
    )
    if usage.completion_tokens > 1 and decode_s > 0:
        line += f", then {(usage.completion_tokens - 1) / decode_s:.1f} tokens/s"
    return line


def _echo(stream: TextStream) -> GenerationResult:
    """Writes the text as it comes, and a newline after it, also when interrupted."""
    begun = False
    try:
        for event in stream:
            typer.echo(printable(event.text), nl=False)
            begun = True
    finally:
        if begun:
            typer.echo()
    return stream.result()


def _print_choices(result: GenerationResult) -> None:
    for choice in result.choices:
        typer.echo(f"--- {choice.index} ({choice.finish_reason})")
        typer.echo(printable(choice.text))


def _report_ending(result: GenerationResult) -> None:
    """An end that is neither a stop nor the limit of tokens is a failure."""
    endings = {choice.finish_reason for choice in result.choices}
    if "deadline" in endings:
        fail("the time of the call was up before the text was complete", EXIT_UNAVAILABLE)
    if endings & {"error", "cancelled"}:
        fail(f"the server ended the text early [request {result.request_id}]", EXIT_FAILED)

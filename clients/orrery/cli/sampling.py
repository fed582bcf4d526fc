"""Sampling parameters on the command line: flags for the common ones, `--set` for all."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from orrery.cli.assignments import read_assignments
from orrery.requests.generation import SamplingOptions, build_sampling

__all__ = [
    "MaxTokensOption",
    "SeedOption",
    "SetOption",
    "StopOption",
    "TemperatureOption",
    "TopKOption",
    "TopPOption",
    "sampling_options",
]

MaxTokensOption = Annotated[
    int | None, typer.Option("--max-tokens", help="Most tokens to generate.")
]
TemperatureOption = Annotated[
    float | None, typer.Option("--temperature", "-t", help="0 = always the likeliest token.")
]
TopPOption = Annotated[float | None, typer.Option("--top-p", help="Nucleus, in (0, 1].")]
TopKOption = Annotated[int | None, typer.Option("--top-k", help="Only the k likeliest; 0 = all.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Same seed, same text.")]
StopOption = Annotated[
    list[str] | None, typer.Option("--stop", help="End before this text; may be repeated.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any sampling parameter by name, its value as JSON: --set min_p=0.1 "
        "--set 'banned_token_ids=[7, 8]'. May be repeated.",
    ),
]


def sampling_options(assignments: list[str] | None, **flags: Any) -> SamplingOptions:
    """Flags (None = not given) and `--set` assignments together.

    Raises:
        typer.BadParameter: An assignment that is malformed, unknown, of a wrong type, or also given
            by its flag.
        InvalidRequestError: A number outside its field's range.
    """
    known = SamplingOptions.__annotations__
    options = read_assignments(assignments, flags, known, "sampling parameter")
    if isinstance(options.get("logit_bias"), dict):
        options["logit_bias"] = _with_integer_keys(options["logit_bias"])
    try:
        build_sampling(options)
    except TypeError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from None
    return cast(SamplingOptions, options)


def _with_integer_keys(biases: dict[str, Any]) -> dict[int, Any]:
    """JSON has only text keys; token ids are numbers."""
    try:
        return {int(token_id): bias for token_id, bias in biases.items()}
    except ValueError:
        raise typer.BadParameter(
            "logit_bias: expected token ids as keys", param_hint="--set"
        ) from None

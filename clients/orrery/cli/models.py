"""`orrery models`: what is served."""

from __future__ import annotations

from rich.console import Console

from orrery.cli.session import JsonOption, TargetOption, TimeoutOption, connect, write_json
from orrery.cli.tables import new_table

__all__ = ["models", "short_count"]


def models(
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 10.0,
    target: TargetOption = None,
) -> None:
    """List the served models."""
    with connect(target, timeout_s) as client:
        found = [app for app in client.applications() if app.model or app.error]
    if as_json:
        write_json([app.model or {"application": app.name, "error": app.error} for app in found])
        return
    numbers = ("PARAMETERS", "CONTEXT")
    table = new_table(
        "MODEL", "APPLICATION", "FAMILY", "BACKEND", "DTYPE", *numbers, "CHAT", numbers=numbers
    )
    for application in found:
        model = application.model
        if model is None:
            assert application.error is not None
            reason = application.error.reason
            table.add_row("-", application.name, f"does not answer: {reason}", style="red")
            continue
        table.add_row(
            model.name,
            model.application or "-",
            model.family,
            model.backend,
            model.dtype,
            short_count(model.num_parameters),
            str(model.max_model_len),
            "yes" if model.has_chat_template else "no",
        )
    Console().print(table)


def short_count(number: int) -> str:
    """Three digits and a letter: 5_242_880 -> 5.24M."""
    for factor, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= factor:
            return f"{number / factor:.3g}{letter}"
    return str(number)

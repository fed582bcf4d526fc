"""`--set NAME=VALUE`: any option of a call by its name, its value as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import typer

__all__ = ["read_assignments"]


def read_assignments(
    assignments: list[str] | None, flags: Mapping[str, Any], known: Collection[str], what: str
) -> dict[str, Any]:
    """Flags (None = not given) and assignments together; `what` names an option in errors.

    Raises:
        typer.BadParameter: An assignment that is malformed, unknown, or also given by its flag.
    """
    options = {name: value for name, value in flags.items() if value is not None}
    for assignment in assignments or ():
        name, equals, text = assignment.partition("=")
        if not equals:
            raise _bad(f"expected NAME=VALUE, got {assignment!r}")
        if name not in known:
            raise _bad(f"no {what} {name!r}; there are {', '.join(known)}")
        if name in options:
            raise _bad(f"{name} is given twice")
        try:
            options[name] = json.loads(text)
        except json.JSONDecodeError:
            raise _bad(f"{name}: expected JSON, got {text!r}") from None
    return options


def _bad(problem: str) -> typer.BadParameter:
    return typer.BadParameter(problem, param_hint="--set")

"""Outcomes for tests, made by hand."""

from __future__ import annotations

from typing import Any

from orrery.load.outcomes import OK, Outcome

__all__ = ["an_outcome"]


def an_outcome(status: str = OK, **changes: Any) -> Outcome:
    """One that was answered after 0.1 s, with a second text 0.02 s later."""
    fields: dict[str, Any] = {
        "kind": "generation",
        "transport": "grpc",
        "status": status,
        "planned_s": 0.0,
        "lateness_s": 0.0,
        "first_s": 0.1 if status == OK else None,
        "gaps_s": (0.02,) if status == OK else (),
        "total_s": 0.12,
        "num_tokens": 2 if status == OK else 0,
    }
    return Outcome(**{**fields, **changes})

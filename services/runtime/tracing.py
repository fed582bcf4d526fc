"""Traces: one span for each call of a service, in the trace of whoever called.

A span's parent comes with the call as `traceparent` (W3C Trace Context) and goes on with the calls
made on its behalf, in `Call` and `Caller` beside the request id: so it does not matter in which
task something runs. Here is what calls need of it, and the tracer of a platform that traces
nothing; `otlp.py` has the other one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["PASSING", "TRACEPARENT", "PassingTracer", "Span", "Tracer", "well_formed"]

TRACEPARENT = "traceparent"
# Version 00: trace id, parent id, flags. An id of zeros is none.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Span(Protocol):
    """One call under way."""

    @property
    def traceparent(self) -> str | None:
        """For the calls made on its behalf."""

    def end(self, status: str, *, failed: bool, name: str | None = None) -> None:
        """The call is over, with that status; `name`: a better one than it began with."""


class Tracer(Protocol):
    """Begins spans."""

    def start(self, name: str, traceparent: str | None, attributes: Mapping[str, str]) -> Span:
        """A call arrived with that header; a malformed one counts as none."""


class PassingTracer:
    """Passes on what came, and does nothing else."""

    def start(self, name: str, traceparent: str | None, attributes: Mapping[str, str]) -> Span:
        del name, attributes
        return _PassedOn(well_formed(traceparent))


PASSING = PassingTracer()


@dataclass(frozen=True, slots=True)
class _PassedOn:
    traceparent: str | None

    def end(self, status: str, *, failed: bool, name: str | None = None) -> None:
        del status, failed, name


def well_formed(traceparent: str | None) -> str | None:
    """The header, where it is one."""
    if traceparent is None or not _TRACEPARENT.fullmatch(traceparent):
        return None
    return traceparent

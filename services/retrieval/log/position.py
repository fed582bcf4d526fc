"""Positions in the log: what a consistency token says, and how one from a client is read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.runtime.errors import InvalidRequest

__all__ = ["START", "Position"]

_FORM = re.compile(r"([0-9]{1,20})-([0-9]{1,20})", re.ASCII)
_LIMIT = 1 << 64


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """An entry of the log by its id in the Redis stream; later entries are greater.

    `ms` is the store's clock when it was appended (Unix milliseconds), `sequence` counts entries
    within one millisecond. `str(position)` is the consistency token.
    """

    ms: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that `str` wrote. Raises `ValueError` for anything else."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"not a position of the log: {text[:64]!r}")
        ms, sequence = int(match[1]), int(match[2])
        if ms >= _LIMIT or sequence >= _LIMIT:
            raise ValueError(f"not a position of the log: {text[:64]!r}")
        return cls(ms, sequence)

    @classmethod
    def of_token(cls, token: str) -> Position:
        """The position in a client's token. Raises `InvalidRequest` naming `consistency_token`."""
        try:
            return cls.parse(token)
        except ValueError:
            raise InvalidRequest(
                "consistency_token: not a token of this service", field="consistency_token"
            ) from None


START = Position(0, 0)  # before the first entry

"""Finding stop strings in a text that arrives in pieces. Knows nothing of tokens.

One Knuth-Morris-Pratt automaton per stop string (Knuth, Morris and Pratt, "Fast pattern matching
in strings", 1977): its state is how much of the string the text so far ends with. The longest
such part may yet become a stop string, so that is what is held back, no more and no less. As the
automata read character by character, the result does not depend on how the text is cut up.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

__all__ = ["StopStrings"]


class StopStrings:
    """Lets text pass up to the first stop string.

    The first is the one that is complete first; of several that end at the same character, the
    longest. With `include` the stop string itself still passes.
    """

    def __init__(self, strings: Sequence[str], include: bool) -> None:
        self._patterns = [(string, _failure_function(string)) for string in strings]
        self._states = [0] * len(self._patterns)  # matched length of each
        self._include = include
        self._held = ""

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def feed(self, text: str, *, may_stop: bool = True) -> tuple[str, str | None]:
        """Take in the next piece: returns the text that passes and the stop string found, if any.

        With `may_stop=False` a stop string that completes in this piece is passed over like any
        other text; one that only begins in it can still complete in a later piece.
        """
        text = self._held + text
        for end in range(len(self._held) + 1, len(text) + 1):
            found = self._advance(text[end - 1])
            if found is not None and may_stop:
                self._held = ""
                return text[: end if self._include else end - len(found)], found
        kept = max(self._states, default=0)
        passed = len(text) - kept
        self._held = text[passed:]
        return text[:passed], None

    def flush(self) -> str:
        """The end of the text: what was held back passes."""
        held, self._held = self._held, ""
        return held

    def fork(self) -> StopStrings:
        """An independent copy at the same point."""
        other = copy.copy(self)
        other._states = self._states.copy()
        return other

    def _advance(self, character: str) -> str | None:
        """Feed one character to every automaton; return the longest string that it completes."""
        found: str | None = None
        for i, (string, failure) in enumerate(self._patterns):
            state = self._states[i]
            while state and string[state] != character:
                state = failure[state - 1]
            if string[state] == character:
                state += 1
            if state == len(string):
                state = failure[state - 1]
                if found is None or len(string) > len(found):
                    found = string
            self._states[i] = state
        return found


def _failure_function(string: str) -> list[int]:
    """For each prefix of `string`, the length of its longest proper prefix that is its suffix."""
    failure = [0] * len(string)
    length = 0
    for i in range(1, len(string)):
        while length and string[i] != string[length]:
            length = failure[length - 1]
        length += string[i] == string[length]
        failure[i] = length
    return failure

"""Which waiting inputs share a batch: those of like length, within a budget of padded tokens.

A batch is padded to its longest input, so lengths that differ waste the difference. Knows only
lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["neighbours", "window_size"]

# How much of the queue a batch is chosen from, in token budgets.
_WINDOW_BUDGETS = 4
# Inputs of a batch differ by no more than this factor in length; short ones share anyway.
_MAX_LENGTH_RATIO = 2
_SHORT_TOKENS = 32


def window_size(lengths: Sequence[int], max_tokens: int) -> int:
    """How many of the first inputs of a queue its next batch is chosen from."""
    left = _WINDOW_BUDGETS * max_tokens
    for count, length in enumerate(lengths):
        left -= length
        if left < 0:
            return count + 1
    return len(lengths)


def neighbours(lengths: Sequence[int], max_tokens: int) -> list[int]:
    """The first input and those nearest to it in length, as positions, shortest first.

    Either it is alone, or the number of inputs times the longest is at most `max_tokens`.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    low = high = order.index(0)
    while True:
        shortest, longest = lengths[order[low]], lengths[order[high]]
        count = high - low + 2  # with one more
        options = []  # (padding that taking it adds, new low, new high)
        if low > 0:
            shorter = lengths[order[low - 1]]
            if _may_share(shorter, longest) and count * longest <= max_tokens:
                options.append((longest - shorter, low - 1, high))
        if high + 1 < len(order):
            longer = lengths[order[high + 1]]
            if _may_share(shortest, longer) and count * longer <= max_tokens:
                options.append(((longer - longest) * (count - 1), low, high + 1))
        if not options:
            return order[low : high + 1]
        _, low, high = min(options)


def _may_share(shortest: int, longest: int) -> bool:
    return longest <= max(_SHORT_TOKENS, _MAX_LENGTH_RATIO * shortest)

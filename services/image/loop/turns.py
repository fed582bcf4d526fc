"""Whose turn it is: which pictures the next call of the model takes a step further.

One call takes pictures of one size, so sizes take turns, by start-time fair queueing (Goyal, Vin
and Cheng 1996): a picture's turn is its virtual time, which each of its steps moves on by the
step's cost in latent pixels. The picture furthest behind leads, and others of its size ride along
as far as the call has room, those furthest behind first. So all pictures in the batch get equal
shares of the work whatever their sizes, a small one is not held up by large ones, and none starves:
a picture that is left out does not move on, and so comes to lead. Plain Python; knows no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

__all__ = ["Turns"]

Size = tuple[int, int]


@dataclass(slots=True)
class _Turn:
    slot_id: int
    size: Size
    num_rows: int
    cost: int  # of a step: latent pixels
    virtual_time: int


class Turns:
    """The pictures in the batch. `max_pixels` bounds a call: rows times latent pixels."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._turns: dict[int, _Turn] = {}
        self._virtual_time = 0

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, slot_id: int) -> bool:
        return slot_id in self._turns

    def join(self, slot_id: int, size: Size, num_rows: int) -> None:
        """A newcomer's turn is that of the last leader: it neither waits nor is owed."""
        assert slot_id not in self._turns
        self._turns[slot_id] = _Turn(slot_id, size, num_rows, size[0] * size[1], self._virtual_time)

    def leave(self, slot_id: int) -> None:
        del self._turns[slot_id]

    def next_call(self) -> list[int]:
        """Takes the next turn: the slots of one call, all of one size, in order of their ids.

        Empty when nobody is there.
        """
        if not self._turns:
            return []
        waiting = sorted(self._turns.values(), key=attrgetter("virtual_time", "slot_id"))
        leader = waiting[0]
        self._virtual_time = leader.virtual_time
        room = self._max_pixels // leader.cost - leader.num_rows  # rows; negative: alone
        chosen = [leader]
        for turn in waiting[1:]:
            if turn.size == leader.size and turn.num_rows <= room:
                chosen.append(turn)
                room -= turn.num_rows
        for turn in chosen:
            turn.virtual_time += turn.cost
        return sorted(turn.slot_id for turn in chosen)

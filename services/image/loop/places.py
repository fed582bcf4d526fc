"""Places for pictures: from when their call is let in until its reader has them, or has left.

The one bound on what callers can have the service hold: uploads being read, the line, the batch,
pictures being decoded and those not yet taken. Used from one event loop; knows no picture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from services.runtime.errors import Overloaded

__all__ = ["Places", "Reservation"]


class Reservation:
    """Places of one call whose pictures have not begun yet."""

    __slots__ = ("num_left",)

    def __init__(self, num_left: int) -> None:
        self.num_left = num_left


class Places:
    """So many, of which each picture takes one."""

    def __init__(self, num: int, retry_after_s: Callable[[], float]) -> None:
        """`retry_after_s`: when one may be free again, asked when none is."""
        self._num = num
        self._retry_after_s = retry_after_s
        self._num_taken = 0
        self._all_free = asyncio.Event()
        self._all_free.set()

    @property
    def num_taken(self) -> int:
        return self._num_taken

    @contextmanager
    def reserved(self, num_pictures: int) -> Iterator[Reservation]:
        """Places for a call; those that its pictures did not take are given back at the end.

        Raises `Overloaded` unless all of them are free.
        """
        if self._num_taken + num_pictures > self._num:
            raise Overloaded(
                f"{self._num_taken} pictures are under way; at most {self._num} may be",
                retry_after_s=self._retry_after_s(),
            )
        self._num_taken += num_pictures
        self._all_free.clear()
        reservation = Reservation(num_pictures)
        try:
            yield reservation
        finally:
            self._give_back(reservation.num_left)

    @contextmanager
    def taken(self, reservation: Reservation | None) -> Iterator[None]:
        """A picture's place for as long as it is under way: one of the reservation, or a free one.

        Raises `Overloaded` where there is no reservation and no place.
        """
        with self.reserved(1) if reservation is None else nullcontext(reservation) as source:
            assert source.num_left > 0
            source.num_left -= 1
            try:
                yield
            finally:
                self._give_back(1)

    async def wait_until_free(self) -> None:
        """Until nobody has any."""
        await self._all_free.wait()

    def _give_back(self, num_places: int) -> None:
        self._num_taken -= num_places
        if self._num_taken == 0:
            self._all_free.set()

"""What a client remembers so that its reads see its own writes. Knows nothing of gRPC.

Every write to a collection returns a token; a read that brings it waits until the replica that
answers has that write. The newest token of each collection is sent with its reads, unless the
caller gives another or has switched it off.
"""

from __future__ import annotations

import re
import threading

__all__ = ["ConsistencyTokens"]

_POSITION = re.compile(r"(\d+)-(\d+)")


class ConsistencyTokens:
    """The newest token of each collection. Thread-safe."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._lock = threading.Lock()
        self._by_collection: dict[str, str] = {}
        self._newest = ""

    def saw(self, collection: str, token: str) -> None:
        """A write to `collection` has returned `token`."""
        if not token:
            return
        with self._lock:
            self._newest = _later(self._newest, token)
            known = self._by_collection.get(collection, "")
            self._by_collection[collection] = _later(known, token)

    def newest(self, collection: str | None) -> str:
        """The newest token of a collection (None = of all), or an empty text."""
        with self._lock:
            if collection is None:
                return self._newest
            return self._by_collection.get(collection, "")

    def for_read(self, collection: str | None, given: str | None) -> str:
        """What a read sends: what the caller gave, otherwise what is remembered."""
        if given is not None:
            return given
        return self.newest(collection) if self._enabled else ""


def _later(one: str, other: str) -> str:
    """The later of two positions in the log: answers may arrive out of order in threads."""
    first, second = _POSITION.fullmatch(one), _POSITION.fullmatch(other)
    if first is None or second is None:
        return other
    later = tuple(map(int, second.groups())) > tuple(map(int, first.groups()))
    return other if later else one

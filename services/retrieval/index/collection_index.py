"""A collection's index: takes changes, hands out generations, plans merges, saves and loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt

from services.retrieval.index.generation import Generation
from services.retrieval.index.merging import Merge, SegmentPolicy
from services.retrieval.types import CollectionConfig, IndexedDocument

__all__ = ["Change", "CollectionIndex", "Put", "Remove"]

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Put:
    document: IndexedDocument


@dataclass(frozen=True, slots=True)
class Remove:
    document_ids: tuple[str, ...]


Change: TypeAlias = Put | Remove


class CollectionIndex:
    """One writer thread at a time; `generation` and `to_arrays` from any thread."""

    def __init__(self, config: CollectionConfig, policy: SegmentPolicy | None = None) -> None:
        self.config = config

    @property
    def generation(self) -> Generation:
        raise NotImplementedError

    def apply(self, changes: Sequence[Change]) -> Generation:
        raise NotImplementedError

    def plan_merge(self, *, everything: bool = False) -> Merge | None:
        """None: nothing to do, or a planned merge is neither installed nor abandoned yet."""
        raise NotImplementedError

    def install(self, merge: Merge) -> Generation:
        raise NotImplementedError

    def abandon(self, merge: Merge) -> None:
        """A merge that will not be installed (its `run` failed): its segments are free again."""
        raise NotImplementedError

    def to_arrays(self, generation: Generation | None = None) -> dict[str, npt.NDArray[Any]]:
        """Of a generation (default: the current one), so that a snapshot can be of an older state."""
        raise NotImplementedError

    @classmethod
    def from_arrays(
        cls, config: CollectionConfig, arrays: Arrays, policy: SegmentPolicy | None = None
    ) -> CollectionIndex:
        """Raises ValueError where the arrays are no index of that config."""
        raise NotImplementedError

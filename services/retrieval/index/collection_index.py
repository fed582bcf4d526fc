"""A collection's index: takes changes, hands out generations, merges, is saved and loaded.

            apply                      install(merge)
    changes ----> new small segment,   <---- several segments made one by Merge.run,
                  tombstones in the old      in any thread, while changes go on
                       |
                       v
                 Generation (immutable) ----> readers

Knows nothing of the log that the changes come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt

from services.retrieval.index import storing
from services.retrieval.index.accumulating import accumulator
from services.retrieval.index.arrays import Arrays
from services.retrieval.index.columns import RowMap
from services.retrieval.index.generation import Generation, IndexContext
from services.retrieval.index.gpu import gpu_available
from services.retrieval.index.merging import SegmentPolicy, Size, choose, choose_inline
from services.retrieval.index.postings import Vocabulary
from services.retrieval.index.segment import Segment, SegmentView, build_segment, merge_segments
from services.retrieval.index.tables import hash_ids
from services.retrieval.index.text import Analyzer, supported_languages
from services.retrieval.types import CollectionConfig, IndexedDocument, IndexType
from services.runtime.errors import InvalidRequest

__all__ = ["Change", "CollectionIndex", "Merge", "Put", "Remove", "check_config"]


@dataclass(frozen=True, slots=True)
class Put:
    """The document takes the place of the one with its id, if there is one."""

    document: IndexedDocument


@dataclass(frozen=True, slots=True)
class Remove:
    """Ids that are not there are passed over."""

    document_ids: tuple[str, ...]


Change: TypeAlias = Put | Remove


def check_config(config: CollectionConfig) -> None:
    """Raises InvalidRequest for what no index can be made of; to be asked before creating one."""
    if config.sparse.language not in supported_languages():
        raise InvalidRequest(
            f"language {config.sparse.language!r} is none of {', '.join(supported_languages())}",
            field="config.sparse.language",
        )
    parts = config.index.pq_num_subvectors
    if parts is not None and config.index.type is not IndexType.IVF_PQ:
        raise InvalidRequest(
            "pq_num_subvectors belongs to an IVF-PQ index",
            field="config.index_parameters.pq_num_subvectors",
        )
    if parts is not None and config.dimensions % parts:
        raise InvalidRequest(
            f"{parts} sub-vectors do not divide {config.dimensions} dimensions",
            field="config.index_parameters.pq_num_subvectors",
        )


class Merge:
    """Some segments on their way to become one. `run` may take long and works in any thread."""

    def __init__(self, views: Sequence[SegmentView], context: IndexContext) -> None:
        self.views = tuple(views)
        self._context = context
        self._made: tuple[Segment, list[RowMap]] | None = None

    @property
    def num_rows(self) -> int:
        return sum(view.num_rows for view in self.views)

    def run(self) -> None:
        self._made = merge_segments(self.views, self._context.config, self._context.policy)

    def result(self) -> tuple[Segment, list[RowMap]]:
        """The segment, and where each view's documents stand in it."""
        if self._made is None:
            raise ValueError("this merge has not run")
        return self._made


class CollectionIndex:
    """Changed by one thread at a time; `generation` and `to_arrays` may be used from any."""

    def __init__(self, config: CollectionConfig, policy: SegmentPolicy | None = None) -> None:
        """Raises InvalidRequest as `check_config`, ValueError for a policy that cannot be kept."""
        check_config(config)
        policy = policy or SegmentPolicy()
        if policy.use_gpu and not gpu_available():
            raise ValueError("use_gpu: this FAISS has no GPU")
        accumulator()  # compiles now rather than in the first search
        self.config = config
        self._context = IndexContext(config, policy, Analyzer(config.sparse.language), Vocabulary())
        self._merge: Merge | None = None
        self._generation = Generation(0, (), self._context)

    @property
    def generation(self) -> Generation:
        return self._generation

    def apply(self, changes: Sequence[Change]) -> Generation:
        """All changes in order, as one new generation; readers see all of them or none.

        Costs what is new, not what is there. Raises ValueError for a document whose vectors are not
        one per chunk and of the collection's dimensions; nothing has changed then.
        """
        if not changes:
            return self._generation
        puts, touched = _last_of_each(changes)
        views = _without(self._generation.views, touched)
        new_rows = sum(len(document.chunks) for document in puts)
        if puts:
            terms = (self._context.analyzer, self._context.vocabulary)
            built = build_segment(puts, self.config, self._context.policy, terms)
            views = self._with(views, SegmentView(built), new_rows)
        return self._publish(views)

    def plan_merge(self, *, everything: bool = False) -> Merge | None:
        """The merge that is due, or with `everything` one of all segments; None: there is none.

        Also None while the merge planned before is neither installed nor abandoned.
        """
        if self._merge is not None:
            return None
        views = self._generation.views
        if everything:
            chosen = list(range(len(views)))
            if len(views) == 1 and views[0].living is None:
                return None
        else:
            sizes = [Size(view.segment.num_rows, view.num_rows) for view in views]
            chosen = choose(sizes, self._context.policy)
        if not chosen:
            return None
        self._merge = Merge([views[position] for position in chosen], self._context)
        return self._merge

    def install(self, merge: Merge) -> Generation:
        """Puts a merge that has run in the place of its segments, without what went meanwhile."""
        if merge is not self._merge:
            raise ValueError("this merge is not the one that was planned last")
        segment, maps = merge.result()
        now = {id(view.segment): view for view in self._generation.views}
        gone: list[int] = []
        for planned, new_number in zip(merge.views, maps, strict=True):
            numbers = planned.document_numbers
            view = now.pop(id(planned.segment), None)
            if view is None:  # all its documents went
                gone += new_number[numbers].tolist()
            elif view.living is not None:
                gone += new_number[numbers[~view.living[numbers]]].tolist()
        merged = SegmentView(segment)
        self._merge = None
        return self._publish([*now.values(), merged.without(gone) if gone else merged])

    def abandon(self, merge: Merge) -> None:
        """A merge that will not be installed, say because it failed: another may be planned."""
        if merge is self._merge:
            self._merge = None

    def to_arrays(self, generation: Generation | None = None) -> dict[str, npt.NDArray[Any]]:
        """All that lives in a generation of this index, by default the current one.

        Flat segments are saved as one, ANN indexes as they are.
        """
        return storing.to_arrays(generation or self._generation)

    @classmethod
    def from_arrays(
        cls, config: CollectionConfig, arrays: Arrays, policy: SegmentPolicy | None = None
    ) -> CollectionIndex:
        """Raises ValueError where the arrays are no index of that config."""
        index = cls(config, policy)
        number, views, vocabulary = storing.from_arrays(config, arrays, index._context.policy)
        context = index._context
        index._context = IndexContext(config, context.policy, context.analyzer, vocabulary)
        index._generation = Generation(number, views, index._context)
        return index

    def _with(self, views: list[SegmentView], new: SegmentView, new_rows: int) -> list[SegmentView]:
        """The views and a new one, merged with the smallest of those that no merge is at."""
        busy = {id(view.segment) for view in self._merge.views} if self._merge else set()
        free = [view for view in views if id(view.segment) not in busy]
        policy = self._context.policy
        chosen = [free[at] for at in choose_inline([v.num_rows for v in free], new_rows, policy)]
        if not chosen:
            return [*views, new]
        merged, _ = merge_segments([*chosen, new], self.config, policy)
        return [*(view for view in views if view not in chosen), SegmentView(merged)]

    def _publish(self, views: Sequence[SegmentView]) -> Generation:
        living = [view for view in views if view.num_documents]
        self._generation = Generation(self._generation.number + 1, living, self._context)
        return self._generation


def _last_of_each(changes: Sequence[Change]) -> tuple[list[IndexedDocument], list[str]]:
    """What the changes come to: the documents that stay, and all ids that they name."""
    final: dict[str, IndexedDocument | None] = {}
    for change in changes:
        if isinstance(change, Put):
            final[change.document.info.id] = change.document
        else:
            final.update(dict.fromkeys(change.document_ids))
    return [document for document in final.values() if document is not None], list(final)


def _without(views: Sequence[SegmentView], ids: Sequence[str]) -> list[SegmentView]:
    hashes = hash_ids(ids)
    left: list[SegmentView] = []
    for view in views:
        documents = [document for _, document in view.find_many(ids, hashes)]
        left.append(view.without(documents) if documents else view)
    return left

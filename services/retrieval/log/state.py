"""skeleton"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.retrieval.types import CollectionConfig

if TYPE_CHECKING:
    from services.retrieval.index.collection_index import CollectionIndex
    from services.retrieval.index.generation import Generation

__all__ = ["CollectionView"]


@dataclass(frozen=True, slots=True, eq=False)
class CollectionView:
    """A collection as this replica sees it. Times are Unix milliseconds of the store's clock."""

    id: str
    name: str
    title: str
    config: CollectionConfig
    metadata: Mapping[str, str]
    created_at_ms: int
    last_write_at_ms: int
    index: CollectionIndex

    @property
    def generation(self) -> Generation:
        """The newest generation of the index; immutable, so take it once per search."""
        return self.index.generation

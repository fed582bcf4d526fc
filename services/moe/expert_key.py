"""The name of an expert, which router and shards share."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ExpertKey"]


class ExpertKey(NamedTuple):
    """One expert of a model: the number of its layer in the decoder, its number in the layer."""

    layer: int
    expert: int

    def __str__(self) -> str:
        return f"expert {self.expert} of layer {self.layer}"

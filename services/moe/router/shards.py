"""The seam to an expert shard: what the router asks of one, whatever carries it there.

Knows nothing of gRPC or protobuf.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from services.moe.expert_key import ExpertKey
from services.moe.shard_work import ShardWork

__all__ = ["ShardClient", "ShardReport"]


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What a shard says of itself."""

    weight_hash: str
    keys: frozenset[ExpertKey]
    max_expert_bytes: int


class ShardClient(Protocol):
    """One shard. Every call takes at most `timeout_s`, and raises `OrreryError`:

    `DependencyDown` or `NotReady` where it is gone or going, `DeadlineExceeded` where it is silent,
    `ResourceNotFound` where it does not hold an expert, `Overloaded` where it has too much to do.
    """

    def compute(self, work: ShardWork, timeout_s: float) -> Awaitable[Tensor]:
        """[sum of counts, hidden_size]. Cancelling it gives the work up."""
        ...

    async def load(self, keys: Iterable[ExpertKey], timeout_s: float) -> None: ...

    async def drop(self, keys: Iterable[ExpertKey], timeout_s: float) -> None: ...

    async def report(self, timeout_s: float) -> ShardReport: ...

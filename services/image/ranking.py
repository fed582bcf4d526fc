"""How like its prompt each picture is, asked of a CLIP application.

Knows that application's messages, and nothing of how pictures are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orrery import methods
from orrery.v1 import common_pb2, embedding_pb2
from services.runtime.errors import DependencyDown, Internal, InvalidRequest, OrreryError
from services.runtime.peer import Caller, Peer

__all__ = ["RANKED_SIDE", "PeerRanker", "Ranker", "best_first"]

# The longer side of a picture as CLIP gets it: it looks at fewer pixels still.
RANKED_SIDE = 512
# Of that size, even those that PNG cannot make smaller fit one message of 16 MiB.
_PICTURES_PER_CALL = 16


class Ranker(Protocol):
    """Tells how like a text pictures are."""

    async def check(self, prompt: str, caller: Caller) -> None:
        """Whether pictures can be ranked by this prompt, before they are made.

        Raises `InvalidRequest` naming `prompt`, `DependencyDown` and what else the other service
        answers.
        """

    async def similarities(self, prompt: str, pngs: Sequence[bytes], caller: Caller) -> list[float]:
        """A cosine for each picture, of at most `RANKED_SIDE` pixels a side. Raises as `check`."""


class PeerRanker:
    """A `Ranker` over the platform's gRPC target."""

    def __init__(self, peer: Peer, application: str) -> None:
        self._peer = peer
        self._application = application

    async def check(self, prompt: str, caller: Caller) -> None:
        """Compares the prompt with itself: milliseconds, before the seconds that pictures take."""
        text = embedding_pb2.SimilarityInput(text=prompt)
        await self._cosines(embedding_pb2.SimilarityRequest(left=[text], right=[text]), caller)

    async def similarities(self, prompt: str, pngs: Sequence[bytes], caller: Caller) -> list[float]:
        """One call for every few pictures."""
        text = embedding_pb2.SimilarityInput(text=prompt)
        cosines = []
        for first in range(0, len(pngs), _PICTURES_PER_CALL):
            pictures = [
                embedding_pb2.SimilarityInput(
                    image=common_pb2.ImageContent(data=png, media_type="image/png")
                )
                for png in pngs[first : first + _PICTURES_PER_CALL]
            ]
            request = embedding_pb2.SimilarityRequest(left=[text], right=pictures)
            cosines += await self._cosines(request, caller)
        return cosines

    async def _cosines(
        self, request: embedding_pb2.SimilarityRequest, caller: Caller
    ) -> list[float]:
        application = self._application
        try:
            response = await self._peer.unary(application, methods.SIMILARITY, request, caller)
        except InvalidRequest as error:
            raise _of_the_prompt(error) from error
        cosines = list(response.rows[0].cosines) if response.rows else []
        if len(cosines) != len(request.right):
            raise DependencyDown(
                f"the service {application!r} compared {len(cosines)} of {len(request.right)}",
                stage="rank",
            )
        return cosines


def best_first(similarities: Sequence[float]) -> list[int]:
    """Numbers of the pictures; equal ones in their order."""
    return sorted(range(len(similarities)), key=lambda index: (-similarities[index], index))


def _of_the_prompt(error: InvalidRequest) -> OrreryError:
    """What a caller can be blamed for is the prompt; the pictures are our own."""
    if not (error.field or "").startswith("left[0]"):
        return Internal("the pictures cannot be ranked by this application's CLIP", stage="rank")
    return type(error)(f"prompt: CLIP refuses it: {error.message}", field="prompt", stage="rank")

"""The services behind the gateway, as the rest of it sees them. Knows nothing of HTTP or gRPC.

`grpc_upstream.py` is the real one; `app.py` injects it. Every method raises the taxonomy's errors,
and cancelling it cancels the call it made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from orrery.v1 import generation_pb2 as pb
from services.runtime.peer import Caller

__all__ = ["Caller", "Upstream"]


class Upstream(Protocol):
    """One method per RPC; `application` chooses the service."""

    def generate(
        self, application: str, request: pb.GenerateRequest, caller: Caller
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Streams one prompt's completions. Closing it cancels the call."""

    async def generate_batch(
        self, application: str, request: pb.GenerateBatchRequest, caller: Caller
    ) -> pb.GenerateBatchResponse:
        """Completes many prompts; one that fails has its error in its result."""

    async def tokenize(
        self, application: str, request: pb.TokenizeRequest, caller: Caller
    ) -> pb.TokenizeResponse:
        """Token ids of a prompt, and each token's text."""

    async def detokenize(
        self, application: str, request: pb.DetokenizeRequest, caller: Caller
    ) -> pb.DetokenizeResponse:
        """The text of token ids."""

    async def get_model(
        self, application: str, request: pb.GetModelRequest, caller: Caller
    ) -> pb.GetModelResponse:
        """What the application serves."""

    async def check_health(self, application: str, caller: Caller) -> None:
        """Returns when the application serves; raises otherwise. Needs no key."""

    async def close(self) -> None:
        """Ends all calls."""

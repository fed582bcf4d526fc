"""The gateway's upstream over several gRPC servers: what the platform's load balancer does.

    upstream = RoutedUpstream({"toy": "127.0.0.1:1", "retrieval": "127.0.0.1:2"})

Knows nothing of what the servers serve.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Any

from orrery.methods import Method
from services.runtime.errors import DependencyDown
from services.runtime.peer import Caller, Peer


class RoutedUpstream:
    """A `services.gateway.upstream.Upstream`; `targets` is by application."""

    def __init__(self, targets: Mapping[str, str]) -> None:
        self._peers = {
            target: Peer(target, num_channels=2, max_retries=1) for target in set(targets.values())
        }
        self._targets = dict(targets)

    async def unary(
        self, application: str, method: Method[Any, Any], request: Any, caller: Caller
    ) -> Any:
        return await self._peer(application).unary(application, method, request, caller)

    def server_stream(
        self, application: str, method: Method[Any, Any], request: Any, caller: Caller
    ) -> AsyncGenerator[Any, None]:
        return self._peer(application).server_stream(application, method, request, caller)

    def bidi_stream(
        self,
        application: str,
        method: Method[Any, Any],
        requests: AsyncIterable[Any],
        caller: Caller,
    ) -> AsyncGenerator[Any, None]:
        return self._peer(application).bidi_stream(application, method, requests, caller)

    async def close(self) -> None:
        for peer in self._peers.values():
            await peer.close()

    def _peer(self, application: str) -> Peer:
        if application not in self._targets:
            raise DependencyDown(f"the service {application!r} does not answer")
        return self._peers[self._targets[application]]

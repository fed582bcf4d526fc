"""`client.moe`: where a mixture of experts sends its tokens, where the experts are, moving them."""

from __future__ import annotations

from orrery.async_connection import AsyncConnection
from orrery.calls.common import CallOptions
from orrery.calls.moe import MoeCalls
from orrery.connection import Connection
from orrery.requests.moe import RoutingInput
from orrery.results import (
    ExpertLoad,
    MoeLoad,
    MoeModelInfo,
    Placement,
    RebalanceResult,
    RouteResult,
    RoutingAnalysis,
)

__all__ = ["AsyncMoe", "Moe"]


class Moe:
    """Made by `Client`. Every method may raise `OrreryError`.

    `application` None = the client's `services.moe`; `model`: what it must serve, None = whatever
    it serves. Values are checked by the service. Hidden states are not sent from here: who has
    them has arrays, and `orrery.v1.moe_pb2_grpc`.
    """

    def __init__(self, connection: Connection, calls: MoeCalls) -> None:
        self._connection = connection
        self._calls = calls

    def analyze(
        self,
        text: str,
        *,
        model: str | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> RoutingAnalysis:
        """How a text is routed, and what that says: of each layer how even and how sure the gate
        is, and which kinds of tokens its experts take.

        Args:
            text: Not empty, of at most `max_text_bytes` bytes (`moe.model` tells), and no longer
                than the model's context.
            model: What the application must serve.
            application: Which router.
            timeout_s: Time of the call in seconds; None = the client's, `math.inf` = no limit.
            request_id: 1 to 128 visible ASCII characters; made up if None.

        Raises:
            TypeError: A value of a wrong type.
            OrreryError: See `orrery.errors`.
        """
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(self._calls.analyze(text, application, options))

    def route(
        self,
        prompt: RoutingInput,
        *,
        model: str | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> RouteResult:
        """Where every sparse layer sends the tokens of a text, or given token ids."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(self._calls.route(prompt, application, options))

    def expert_load(
        self,
        window_s: int | None = None,
        *,
        model: str | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ExpertLoad:
        """How many tokens went to each expert of each layer over the last `window_s` seconds.

        None = the whole window that the router keeps; a longer one is refused.
        """
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(self._calls.expert_load(window_s, application, options))

    def placement(
        self,
        *,
        model: str | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Placement:
        """Which shard holds which expert, and how the shards are."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(self._calls.placement(application, options))

    def rebalance(
        self,
        *,
        dry_run: bool = False,
        max_shard_bytes: int | None = None,
        model: str | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> RebalanceResult:
        """Moves and replicates experts so that the shards' load evens out.

        Args:
            dry_run: Only tell what would be done.
            max_shard_bytes: Of experts that each shard may hold; by default, and at most, its own
                limit. One expert's room of each is kept free, for experts to move through.
            model: What the application must serve.
            application: Which router.
            timeout_s: Time of the call in seconds. Experts that were moved before it was up stay.
            request_id: 1 to 128 visible ASCII characters; made up if None.

        Raises:
            TypeError: A value of a wrong type.
            OrreryError: See `orrery.errors`.
        """
        return self._connection.run(
            self._calls.rebalance(
                dry_run=dry_run,
                max_shard_bytes=max_shard_bytes,
                application=application,
                options=CallOptions(model, timeout_s, request_id),
            )
        )

    def model(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> MoeModelInfo:
        """What a router routes for: experts, sparse layers, sizes, limits."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.model(application, options))

    def load(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> MoeLoad:
        """What a router is doing right now."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.load(application, options))


class AsyncMoe:
    """Made by `AsyncClient`; see `Moe`."""

    def __init__(self, connection: AsyncConnection, calls: MoeCalls) -> None:
        self._connection = connection
        self._calls = calls

    async def analyze(
        self,
        text: str,
        *,
        model: str | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> RoutingAnalysis:
        """How a text is routed, and what that says; see `Moe.analyze`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(self._calls.analyze(text, application, options))

    async def route(
        self,
        prompt: RoutingInput,
        *,
        model: str | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> RouteResult:
        """Where every sparse layer sends the tokens of a text, or given token ids.

        See `Moe.route`.
        """
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(self._calls.route(prompt, application, options))

    async def expert_load(
        self,
        window_s: int | None = None,
        *,
        model: str | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ExpertLoad:
        """How many tokens went to each expert of each layer; see `Moe.expert_load`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(self._calls.expert_load(window_s, application, options))

    async def placement(
        self,
        *,
        model: str | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Placement:
        """Which shard holds which expert, and how the shards are; see `Moe.placement`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(self._calls.placement(application, options))

    async def rebalance(
        self,
        *,
        dry_run: bool = False,
        max_shard_bytes: int | None = None,
        model: str | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> RebalanceResult:
        """Moves and replicates experts so that the shards' load evens out; see `Moe.rebalance`."""
        return await self._connection.run(
            self._calls.rebalance(
                dry_run=dry_run,
                max_shard_bytes=max_shard_bytes,
                application=application,
                options=CallOptions(model, timeout_s, request_id),
            )
        )

    async def model(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> MoeModelInfo:
        """What a router routes for; see `Moe.model`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._calls.model(application, options))

    async def load(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> MoeLoad:
        """What a router is doing right now; see `Moe.load`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._calls.load(application, options))

"""`AsyncClient`: the platform from asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self, Unpack

import grpc

from orrery.async_connection import AsyncConnection
from orrery.calls.generation import CallOptions, Calls
from orrery.requests.generation import PromptInput, SamplingOptions
from orrery.results import (
    Application,
    BatchResult,
    DetokenizeResult,
    GenerationResult,
    Load,
    ModelInfo,
    ScoreResult,
    TokenizeResult,
)
from orrery.settings import DEFAULT_TIMEOUT_S, ClientSettings
from orrery.streams import AsyncTextStream

__all__ = ["AsyncClient"]


class AsyncClient:
    """A client of the platform for asyncio; see `Client`, whose arguments and errors are the same.

    It belongs to the event loop of its first call. Cancelling a task that awaits a call cancels the
    call, and the server gives back what it held.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        applications: Iterable[str] | None = None,
        max_retries: int = 4,
        num_channels: int = 4,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.settings = ClientSettings.from_env(
            target=target,
            api_key=api_key,
            timeout_s=timeout_s,
            applications=None if applications is None else tuple(applications),
            max_retries=max_retries,
            num_channels=num_channels,
            credentials=credentials,
        )
        self._connection = AsyncConnection(self.settings)
        self._calls = Calls(self.settings)

    async def generate(
        self,
        prompt: PromptInput,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> GenerationResult:
        """Completes a prompt; see `Client.generate`."""
        options = CallOptions(model, timeout_s, request_id)
        opening = self._calls.generate(prompt, sampling, priority=priority, options=options)
        async with AsyncTextStream(self._connection, opening) as stream:
            return await stream.result()

    def stream(
        self,
        prompt: PromptInput,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncTextStream:
        """Completes a prompt, event by event; see `Client.stream`. Nothing is sent before the first
        event is awaited."""
        options = CallOptions(model, timeout_s, request_id)
        opening = self._calls.generate(prompt, sampling, priority=priority, options=options)
        return AsyncTextStream(self._connection, opening)

    async def generate_batch(
        self,
        prompts: Iterable[PromptInput],
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> BatchResult:
        """Completes many prompts in one call; see `Client.generate_batch`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(
            self._calls.generate_batch(prompts, sampling, priority=priority, options=options)
        )

    async def score(
        self,
        target: PromptInput,
        *,
        context: PromptInput | None = None,
        top_logprobs: int | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ScoreResult:
        """Log-probability of each token of a text; see `Client.score`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(
            self._calls.score(target, context, top_logprobs=top_logprobs, options=options)
        )

    async def tokenize(
        self,
        prompt: PromptInput,
        *,
        add_special_tokens: bool | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> TokenizeResult:
        """The tokens of a prompt; see `Client.tokenize`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(
            self._calls.tokenize(prompt, add_special_tokens=add_special_tokens, options=options)
        )

    async def detokenize(
        self,
        token_ids: Iterable[int],
        *,
        skip_special_tokens: bool | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> DetokenizeResult:
        """The text of token ids; see `Client.detokenize`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(
            self._calls.detokenize(
                token_ids, skip_special_tokens=skip_special_tokens, options=options
            )
        )

    async def applications(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> tuple[Application, ...]:
        """Every application of the platform; see `Client.applications`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._calls.applications(options))

    async def models(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> tuple[ModelInfo, ...]:
        """The models that are served at this moment; see `Client.models`."""
        found = await self.applications(timeout_s=timeout_s, request_id=request_id)
        return tuple(application.model for application in found if application.model is not None)

    async def model(
        self,
        model: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ModelInfo:
        """What a model is; see `Client.model`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(self._calls.model(options))

    async def load(
        self,
        model: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Load:
        """What a model's engine is doing right now."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(self._calls.load(options))

    async def close(self) -> None:
        """Cancels what is under way and closes the connections. May be called twice."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.settings.target!r})"

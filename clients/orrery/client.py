"""`Client`: the platform from ordinary, blocking Python."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self, Unpack

import grpc

from orrery.calls.generation import CallOptions, Calls
from orrery.connection import Connection
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
from orrery.streams import TextStream

__all__ = ["Client"]


class Client:
    """A client of the platform. Thread-safe; connections are made when first needed.

    `model` is the name of a served model (`orrery-llama`) or of the application that serves it
    (`llama`); it may be left out where only one is served. Calls that fail because nobody answers
    or a queue is full are repeated, with growing random pauses, within the call's time and never
    after its first token.

    Args:
        target: `host:port` of the gRPC endpoint; by default `ORRERY_TARGET`, or 127.0.0.1:9000.
            `grpcs://host:port` = TLS with the system's certificates.
        api_key: By default `ORRERY_API_KEY`, if set.
        timeout_s: Time of a call where the call gives none, in seconds; `math.inf` = no limit.
        applications: Where to look for models, instead of asking the platform what there is.
        max_retries: Most repetitions of one call.
        num_channels: Connections to spread calls over; each carries 100 calls at once.
        credentials: For TLS with other certificates, made by `grpc.ssl_channel_credentials`.

    Raises:
        InvalidRequestError: `timeout_s` is not positive.
        ValueError: Another argument makes no sense.
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
        self._connection = Connection(self.settings)
        self._calls = Calls(self.settings)

    def generate(
        self,
        prompt: PromptInput,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> GenerationResult:
        """Completes a prompt and returns the whole answer.

        Args:
            prompt: A text, token ids, or chat messages (`[{"role": ..., "content": ...}]`).
            model: Which model.
            timeout_s: Time of the call in seconds; None = the client's, `math.inf` = no limit.
            request_id: 1 to 128 visible ASCII characters; made up if None.
            priority: Lower runs first.
            **sampling: See `SamplingOptions`.

        Raises:
            TypeError: An unknown keyword, or a value of a wrong type.
            OrreryError: See `orrery.errors`.
        """
        options = CallOptions(model, timeout_s, request_id)
        opening = self._calls.generate(prompt, sampling, priority=priority, options=options)
        with TextStream(self._connection, opening) as stream:
            return stream.result()

    def stream(
        self,
        prompt: PromptInput,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> TextStream:
        """Completes a prompt, event by event; arguments as for `generate`.

        Nothing is sent before the first event is asked for.
        """
        options = CallOptions(model, timeout_s, request_id)
        opening = self._calls.generate(prompt, sampling, priority=priority, options=options)
        return TextStream(self._connection, opening)

    def generate_batch(
        self,
        prompts: Iterable[PromptInput],
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> BatchResult:
        """Completes many prompts in one call; a prompt that fails has its error in its place."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(
            self._calls.generate_batch(prompts, sampling, priority=priority, options=options)
        )

    def score(
        self,
        target: PromptInput,
        *,
        context: PromptInput | None = None,
        top_logprobs: int | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ScoreResult:
        """Log-probability of each token of `target`, after `context` if there is one.

        Args:
            target: What is scored.
            context: What comes before and is not scored.
            top_logprobs: Also return this many best candidates for each position.
            model: Which model.
            timeout_s: Time of the call in seconds.
            request_id: 1 to 128 visible ASCII characters; made up if None.
        """
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(
            self._calls.score(target, context, top_logprobs=top_logprobs, options=options)
        )

    def tokenize(
        self,
        prompt: PromptInput,
        *,
        add_special_tokens: bool | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> TokenizeResult:
        """The tokens of a prompt. `add_special_tokens` (default True) adds BOS and the like."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(
            self._calls.tokenize(prompt, add_special_tokens=add_special_tokens, options=options)
        )

    def detokenize(
        self,
        token_ids: Iterable[int],
        *,
        skip_special_tokens: bool | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> DetokenizeResult:
        """The text of token ids; by default special tokens are part of it."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(
            self._calls.detokenize(
                token_ids, skip_special_tokens=skip_special_tokens, options=options
            )
        )

    def applications(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> tuple[Application, ...]:
        """Every application of the platform, with the model it serves or the error it answered."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.applications(options))

    def models(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> tuple[ModelInfo, ...]:
        """The models that are served at this moment.

        An application that does not answer is left out; `applications` tells of it.
        """
        found = self.applications(timeout_s=timeout_s, request_id=request_id)
        return tuple(application.model for application in found if application.model is not None)

    def model(
        self,
        model: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ModelInfo:
        """What a model is: family, sizes, limits, cache geometry, weight hash."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(self._calls.model(options))

    def load(
        self,
        model: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Load:
        """What a model's engine is doing right now."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(self._calls.load(options))

    def close(self) -> None:
        """Cancels what is under way and closes the connections. May be called twice."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.settings.target!r})"

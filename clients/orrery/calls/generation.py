"""Calls of the generation service, whose application is found by the model's name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from google.protobuf.wrappers_pb2 import StringValue

from orrery.calls.common import CallOptions, StreamOpening, begin, call, then
from orrery.errors import ModelNotFoundError
from orrery.methods import (
    CHECK_HEALTH,
    DETOKENIZE,
    GENERATE,
    GENERATE_BATCH,
    GET_LOAD,
    GET_MODEL,
    READINESS,
    SCORE,
    TOKENIZE,
    Method,
)
from orrery.parsing.generation import (
    parse_batch,
    parse_detokenize,
    parse_load,
    parse_model,
    parse_score,
    parse_tokenize,
)
from orrery.requests.generation import (
    PromptInput,
    build_batch,
    build_detokenize,
    build_generate,
    build_score,
    build_tokenize,
)
from orrery.results import (
    Application,
    BatchResult,
    DetokenizeResult,
    Load,
    ModelInfo,
    ScoreResult,
    TokenizeResult,
)
from orrery.routing import Router
from orrery.settings import ClientSettings
from orrery.steps import CallContext, Steps, send_with_retries
from orrery.v1 import generation_pb2 as pb

__all__ = ["GenerationCalls"]

ResponseT = TypeVar("ResponseT")
ResultT = TypeVar("ResultT")


class GenerationCalls:
    """Holds the routes learnt, shared by all calls."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._router = Router(settings)

    def generate(
        self,
        prompt: PromptInput,
        sampling: Mapping[str, Any],
        *,
        priority: int,
        options: CallOptions,
    ) -> StreamOpening:
        """Opens a stream of one prompt's completions."""
        request = build_generate(prompt, sampling, priority=priority)
        context = begin(self._settings, options)
        steps = self._routed(GENERATE, request, options.model, context)
        return StreamOpening(context.request_id, steps)

    def generate_batch(
        self,
        prompts: Iterable[PromptInput],
        sampling: Mapping[str, Any],
        *,
        priority: int,
        options: CallOptions,
    ) -> Steps[BatchResult]:
        """Many prompts in one call."""
        request = build_batch(prompts, sampling, priority=priority)
        return self._unary(GENERATE_BATCH, request, parse_batch, options)

    def score(
        self,
        target: PromptInput,
        context: PromptInput | None,
        *,
        top_logprobs: int | None,
        options: CallOptions,
    ) -> Steps[ScoreResult]:
        """Log-probabilities of a text."""
        request = build_score(target, context, top_logprobs)
        return self._unary(SCORE, request, parse_score, options)

    def tokenize(
        self, prompt: PromptInput, *, add_special_tokens: bool | None, options: CallOptions
    ) -> Steps[TokenizeResult]:
        """The tokens of a prompt."""
        request = build_tokenize(prompt, add_special_tokens)
        return self._unary(TOKENIZE, request, parse_tokenize, options)

    def detokenize(
        self, token_ids: Iterable[int], *, skip_special_tokens: bool | None, options: CallOptions
    ) -> Steps[DetokenizeResult]:
        """The text of token ids."""
        request = build_detokenize(token_ids, skip_special_tokens)
        return self._unary(DETOKENIZE, request, parse_detokenize, options)

    def model(self, options: CallOptions) -> Steps[ModelInfo]:
        """What a model is."""
        context = begin(self._settings, options)
        route = yield from self._router.resolve(options.model, context)
        response = yield from self._routed(GET_MODEL, pb.GetModelRequest(), options.model, context)
        return parse_model(response, route.application)

    def load(self, options: CallOptions) -> Steps[Load]:
        """What an engine is doing."""
        return self._unary(GET_LOAD, pb.GetLoadRequest(), parse_load, options)

    def applications(self, options: CallOptions) -> Steps[tuple[Application, ...]]:
        """Every application, with the model it serves or the error it answered."""
        return self._router.applications(begin(self._settings, options))

    def check_ready(self, application: str, options: CallOptions) -> Steps[None]:
        """Whether an application of any kind serves."""
        request = StringValue(value=READINESS)
        settings = self._settings
        return call(settings, application, CHECK_HEALTH, request, lambda _: None, options)

    def _unary(
        self,
        method: Method[Any, ResponseT],
        request: Any,
        parse: Callable[[ResponseT], ResultT],
        options: CallOptions,
    ) -> Steps[ResultT]:
        context = begin(self._settings, options)
        return then(self._routed(method, request, options.model, context), parse)

    def _routed(
        self,
        method: Method[Any, ResponseT],
        request: Any,
        model: str | None,
        context: CallContext,
    ) -> Steps[ResponseT]:
        """Finds the application, names the model as that application knows it, and sends."""
        route = yield from self._router.resolve(model, context)
        request.model = route.model
        try:
            return (
                yield from send_with_retries(
                    context, method, request, application=route.application
                )
            )
        except ModelNotFoundError:
            self._router.forget()
            raise

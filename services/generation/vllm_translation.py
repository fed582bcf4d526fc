"""The engine's vocabulary to vLLM's and back. What vLLM cannot do is refused by name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import vllm
from vllm.sampling_params import RequestOutputKind

from services.engine.errors import InvalidRequestError
from services.engine.request import (
    CompletionOutput,
    FinishReason,
    PositionLogprobs,
    Request,
    RequestOutput,
    RequestTiming,
    SamplingParams,
    TokenLogprob,
)
from services.engine.tokenizer import Tokenizer

__all__ = ["OutputTranslator", "to_vllm_params"]

_FINISH_REASONS: Mapping[str, FinishReason] = MappingProxyType(
    {
        "stop": FinishReason.STOP,
        "length": FinishReason.LENGTH,
        "abort": FinishReason.CANCELLED,
        "error": FinishReason.ERROR,
    }
)

# vLLM's generators take a signed 64-bit seed, of which -1 means none.
_SEED_MASK = 2**63 - 1


def to_vllm_params(params: SamplingParams, max_tokens: int) -> vllm.SamplingParams:
    """vLLM's parameters for ours; `max_tokens` is what the context leaves.

    Raises `InvalidRequestError` naming a parameter that vLLM has no equal of.
    """
    _refuse_unsupported(params)
    return vllm.SamplingParams(
        n=params.n,
        # A request that only scores its prompt still costs vLLM one token, which is dropped.
        max_tokens=max(1, max_tokens),
        min_tokens=params.min_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        logit_bias=dict(params.logit_bias) or None,
        allowed_token_ids=list(params.allowed_token_ids) or None,
        seed=None if params.seed is None else params.seed & _SEED_MASK,
        stop=list(params.stop) or None,
        stop_token_ids=list(params.stop_token_ids) or None,
        include_stop_str_in_output=params.include_stop_in_output,
        ignore_eos=params.ignore_eos,
        logprobs=params.logprobs,
        prompt_logprobs=params.prompt_logprobs,
        skip_special_tokens=params.skip_special_tokens,
        output_kind=RequestOutputKind.DELTA,
    )


def _refuse_unsupported(params: SamplingParams) -> None:
    refused = {
        "typical_p": params.typical_p != 1.0,
        "banned_token_ids": bool(params.banned_token_ids),
        "best_of": params.best_of not in (None, params.n),
        "beam_width": params.beam_width != 0,
    }
    for name, asked_for in refused.items():
        if asked_for:
            raise InvalidRequestError(name, "the vLLM backend does not support it")


class OutputTranslator:
    """Turns the outputs of one request into the engine's, counting as it goes."""

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self._request = request
        self._params = request.params
        self._tokenizer = tokenizer
        self._num_output_tokens = 0
        self._num_cached_tokens = 0
        self._unfinished = set(range(request.params.n))
        self._last_timing = RequestTiming()

    def translate(self, output: vllm.RequestOutput) -> RequestOutput:
        """One output of vLLM's stream."""
        scores_only = self._params.max_tokens == 0
        completions = [self._completion(part) for part in output.outputs]
        if scores_only:
            completions = [
                CompletionOutput(part.index, finish_reason=FinishReason.LENGTH)
                for part in completions
                if part.finish_reason is not None
            ]
        self._num_output_tokens += sum(len(part.token_ids) for part in completions)
        self._num_cached_tokens = output.num_cached_tokens or self._num_cached_tokens
        self._last_timing = self._timing(output.metrics)
        translated = self._output(completions, finished=output.finished)
        if output.prompt_logprobs:
            translated.prompt_logprobs = self._prompt_logprobs(output.prompt_logprobs)
        if any(part.finish_reason is FinishReason.ERROR for part in completions):
            translated.error = RuntimeError("vLLM ended the request with an error")
        return translated

    def at_deadline(self) -> RequestOutput:
        """The last output of a request whose time is up."""
        completions = [
            CompletionOutput(index, finish_reason=FinishReason.DEADLINE)
            for index in sorted(self._unfinished)
        ]
        return self._output(completions, finished=True)

    def _output(self, completions: list[CompletionOutput], *, finished: bool) -> RequestOutput:
        return RequestOutput(
            request_id=self._request.request_id,
            outputs=completions,
            finished=finished,
            num_prompt_tokens=len(self._request.prompt_token_ids),
            num_output_tokens=self._num_output_tokens,
            num_cached_tokens=self._num_cached_tokens,
            timing=self._last_timing,
        )

    def _completion(self, part: Any) -> CompletionOutput:
        token_ids = list(part.token_ids)
        completion = CompletionOutput(part.index, text=part.text, token_ids=token_ids)
        if part.logprobs is not None:
            completion.logprobs = [
                self._position(token_id, candidates, self._params.logprobs or 0)
                for token_id, candidates in zip(token_ids, part.logprobs, strict=True)
            ]
        if part.finish_reason is not None:
            self._unfinished.discard(part.index)
            completion.finish_reason = _FINISH_REASONS[part.finish_reason]
            completion.cumulative_logprob = part.cumulative_logprob
            completion.stop_reason = part.stop_reason
            if completion.finish_reason is FinishReason.STOP and part.stop_reason is None:
                completion.stop_reason = token_ids[-1]  # vLLM does not name its end of sequence
        return completion

    def _prompt_logprobs(self, positions: Sequence[Any]) -> list[PositionLogprobs]:
        num_top = self._params.prompt_logprobs or 0
        prompt = self._request.prompt_token_ids
        return [
            PositionLogprobs(None)
            if candidates is None
            else self._position(token_id, candidates, num_top)
            for token_id, candidates in zip(prompt, positions, strict=True)
        ]

    def _position(
        self, token_id: int, candidates: Mapping[int, Any], num_top: int
    ) -> PositionLogprobs:
        """vLLM gives the chosen token and the best together: apart again, best first."""
        entries = {
            candidate: TokenLogprob(
                candidate,
                entry.logprob,
                entry.rank,
                self._tokenizer.token_text(candidate),
                self._tokenizer.token_bytes(candidate),
            )
            for candidate, entry in candidates.items()
        }
        best = sorted(entries.values(), key=lambda entry: (entry.rank, entry.token_id))
        return PositionLogprobs(entries[token_id], tuple(best[:num_top]))

    def _timing(self, metrics: Any) -> RequestTiming:
        """vLLM's stamps are on its core's monotonic clock; the total is on ours."""
        total_s = time.monotonic() - self._request.arrival_s
        if metrics is None or not metrics.scheduled_ts:
            return RequestTiming(total_s=total_s)
        first_token = metrics.first_token_ts or metrics.scheduled_ts
        return RequestTiming(
            queue_s=max(0.0, metrics.scheduled_ts - metrics.queued_ts),
            prefill_s=max(0.0, first_token - metrics.scheduled_ts),
            decode_s=max(0.0, metrics.last_token_ts - first_token),
            total_s=total_s,
        )

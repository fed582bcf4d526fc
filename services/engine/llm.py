"""The engine as a library: prompts in, whole completions out. Synchronous; one caller at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from services.engine.config import EngineConfig, validated
from services.engine.engine import LLMEngine
from services.engine.errors import InvalidRequestError, QueueFullError
from services.engine.request import PositionLogprobs, Request, RequestOutput, SamplingParams
from services.engine.tokenizer import Tokenizer

__all__ = ["LLM", "Score"]

Prompt = str | list[int]


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a model finds a text. The first token has nothing before it and is not scored."""

    positions: list[PositionLogprobs]  # one per token
    total_logprob: float  # natural logarithm
    num_scored_tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(-self.total_logprob / self.num_scored_tokens)


class LLM:
    """A model that completes, chats and scores.

    `model`: a Hugging Face folder or hub name. Settings are those of `EngineConfig`, as one object
    or by name: `LLM("models/orrery-llama", dtype="float32")`. Raises `CheckpointError` or
    `ConfigError`.
    """

    def __init__(
        self, model: str | Path, config: EngineConfig | None = None, **settings: Any
    ) -> None:
        if config is not None and settings:
            raise ValueError("give the settings by name or as a config, not both")
        self.engine = LLMEngine.from_pretrained(model, config or validated(EngineConfig, settings))
        self._request_ids = count()

    @property
    def tokenizer(self) -> Tokenizer:
        assert self.engine.tokenizer is not None  # from_pretrained loads one
        return self.engine.tokenizer

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Completes each prompt (text or token ids); the outputs are whole and in order.

        `params`: for all, or one per prompt. Raises `InvalidRequestError` or
        `ContextTooLongError`; then nothing runs. A prompt that fails on the way has
        `FinishReason.ERROR` and its `error`.
        """
        prompts = _as_list(prompts)
        each = [params] * len(prompts) if isinstance(params, SamplingParams | None) else params
        if len(each) != len(prompts):
            raise InvalidRequestError(
                "params", f"expected one, or one per prompt ({len(prompts)}), got {len(each)}"
            )
        requests = [
            Request(
                request_id=str(next(self._request_ids)),
                prompt_token_ids=self._token_ids(prompt),
                params=own or SamplingParams(),
            )
            for prompt, own in zip(prompts, each, strict=True)
        ]
        for request in requests:
            self.engine.validator.check(request)
        return self._run(requests)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        params: SamplingParams | None = None,
    ) -> RequestOutput:
        """Answers a conversation of `{"role": ..., "content": ...}` messages.

        Raises `InvalidRequestError` when the model has no chat template.
        """
        return self.generate([self.tokenizer.encode_chat(messages)], params)[0]

    def score(self, texts: Prompt | Sequence[Prompt], top_logprobs: int = 0) -> list[Score]:
        """The log-probability of every token of each text after the first.

        Raises `InvalidRequestError` for a text of fewer than two tokens.
        """
        prompts = [self._token_ids(text) for text in _as_list(texts)]
        if any(len(token_ids) < 2 for token_ids in prompts):
            raise InvalidRequestError(
                "texts", "expected at least two tokens: the first has no score"
            )
        params = SamplingParams(max_tokens=0, prompt_logprobs=top_logprobs)
        return [_score(output) for output in self.generate(prompts, params)]

    def _token_ids(self, prompt: Prompt) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt

    def _run(self, requests: list[Request]) -> list[RequestOutput]:
        """Adds as the queue takes them, steps until all are done."""
        waiting = requests[::-1]
        whole: dict[str, RequestOutput] = {}
        while waiting or self.engine.has_unfinished():
            try:
                while waiting:
                    self.engine.add_request(waiting[-1])
                    waiting.pop()
            except QueueFullError:
                pass  # the step below makes room
            for output in self.engine.step():
                if output.request_id in whole:
                    whole[output.request_id].extend(output)
                else:
                    whole[output.request_id] = output
        return [whole[request.request_id] for request in requests]


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    if prompts and isinstance(prompts[0], int):
        return [list(prompts)]  # type: ignore[arg-type]
    return list(prompts)  # type: ignore[arg-type]


def _score(output: RequestOutput) -> Score:
    if output.error is not None:
        raise output.error
    positions = output.prompt_logprobs or []
    scored = [position.chosen.logprob for position in positions if position.chosen is not None]
    return Score(positions, math.fsum(scored), len(scored))

"""Checks a request against the model and the engine's limits, before it costs anything.

What a request says by itself is checked when its `SamplingParams` are made. Knows nothing of the
engine's state: the same request gets the same answer whatever is running, from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.engine.errors import ContextTooLongError, InvalidRequestError
from services.engine.request import Request
from services.engine.sampler import check_token_constraints

__all__ = ["RequestValidator"]


@dataclass(frozen=True, slots=True)
class RequestValidator:
    """What a request is held against."""

    vocab_size: int
    eos_token_ids: tuple[int, ...]
    max_model_len: int
    max_num_seqs: int
    has_tokenizer: bool

    def check(self, request: Request) -> int:
        """Returns the most tokens the request may have, prompt included.

        Raises `ContextTooLongError` or `InvalidRequestError`, which names the field.
        """
        if not request.request_id:
            raise InvalidRequestError("request_id", "expected a name, got an empty string")
        max_num_tokens = self._check_lengths(request)
        self._check_prompt_ids(request.prompt_token_ids)
        check_token_constraints(request.params, self.vocab_size, self.eos_token_ids)
        self._check_counts(request)
        return max_num_tokens

    def _check_lengths(self, request: Request) -> int:
        params, prompt_len = request.params, len(request.prompt_token_ids)
        if prompt_len == 0:
            raise InvalidRequestError("prompt", "expected at least one token, got an empty prompt")
        fewest = 1 if params.max_tokens is None else params.max_tokens
        if prompt_len + min(fewest, 1) > self.max_model_len:
            raise ContextTooLongError(
                "prompt",
                f"the context holds {self.max_model_len} tokens, the prompt has {prompt_len}"
                + (" and leaves no room for a completion" if fewest else ""),
            )
        if prompt_len + fewest > self.max_model_len:
            raise ContextTooLongError(
                "max_tokens",
                f"the context holds {self.max_model_len} tokens, the prompt has {prompt_len} and "
                f"max_tokens is {fewest}: {prompt_len + fewest} in all",
            )
        room = self.max_model_len - prompt_len
        if params.min_tokens > room:
            raise InvalidRequestError(
                "min_tokens",
                f"expected at most {room}, which the prompt of {prompt_len} tokens leaves of the "
                f"context of {self.max_model_len}, got {params.min_tokens}",
            )
        return prompt_len + (room if params.max_tokens is None else params.max_tokens)

    def _check_prompt_ids(self, token_ids: list[int]) -> None:
        for token_id in (min(token_ids), max(token_ids)):
            if not 0 <= token_id < self.vocab_size:
                raise InvalidRequestError(
                    "prompt_token_ids",
                    f"expected token ids from 0 to {self.vocab_size - 1}, got {token_id}",
                )

    def _check_counts(self, request: Request) -> None:
        params = request.params
        for name, count in (
            ("beam_width", params.beam_width),
            ("n" if params.best_of is None else "best_of", params.num_samples),
        ):
            if count > self.max_num_seqs:
                raise InvalidRequestError(
                    name, f"expected at most {self.max_num_seqs} (max_num_seqs), got {count}"
                )
            if count > 1 and params.max_tokens == 0:
                raise InvalidRequestError(name, "expected one completion when max_tokens is 0")
        if params.stop and not self.has_tokenizer:
            raise InvalidRequestError("stop", "stop strings need a tokenizer, and there is none")

"""What calls of the generation service return. Log-probabilities are natural logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from orrery.errors import OrreryError
from orrery.results.common import Timing, Usage

__all__ = [
    "Application",
    "BatchResult",
    "CacheGeometry",
    "Choice",
    "DetokenizeResult",
    "FinishReason",
    "GenerationResult",
    "Load",
    "ModelInfo",
    "PositionLogprobs",
    "RequestLimits",
    "ScoreResult",
    "StreamEvent",
    "TokenLogprob",
    "TokenizeResult",
]

FinishReason: TypeAlias = Literal["stop", "length", "cancelled", "deadline", "error", "unknown"]
"""Why a completion ended; unknown = a reason that is newer than this client."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A candidate token. `rank` 1 is the most likely of the whole vocabulary."""

    token_id: int
    token: str
    token_bytes: bytes
    logprob: float
    rank: int


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """One position: the token that stands there and the best candidates, best first.

    `chosen` is None for the first token of a prompt, which nothing predicts.
    """

    chosen: TokenLogprob | None
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the `n` completions; in a `StreamEvent`, what it gained since the last event.

    Attributes:
        index: Which of the `n`.
        text: The text; in an event it may lag behind `token_ids` while a character or a possible
            stop string is undecided.
        token_ids: The generated tokens.
        logprobs: One entry per token, where asked for.
        finish_reason: Why it ended; in events only in the choice's last one.
        stop_reason: The stop string or stop token id that ended it, if one did.
        cumulative_logprob: Sum over the tokens, known at the end.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[PositionLogprobs, ...]
    finish_reason: FinishReason | None
    stop_reason: str | int | None
    cumulative_logprob: float | None


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A finished generation. `choices` is ordered by index and holds at least one."""

    request_id: str
    model: str
    choices: tuple[Choice, ...]
    prompt_token_ids: tuple[int, ...]
    prompt_logprobs: tuple[PositionLogprobs, ...]
    usage: Usage
    timing: Timing

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.choices[0].text

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One message of a stream: what some of the choices gained.

    Usage and timing are cumulative and final in the last event. The prompt's tokens and their
    log-probabilities come in the first event only.
    """

    request_id: str
    model: str
    choices: tuple[Choice, ...]
    prompt_token_ids: tuple[int, ...]
    prompt_logprobs: tuple[PositionLogprobs, ...]
    usage: Usage
    timing: Timing

    @property
    def text(self) -> str:
        """New text of the first choice (index 0); empty if it gained none."""
        return "".join(choice.text for choice in self.choices if choice.index == 0)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Many prompts' answers, in their order: a result, or the error that this prompt ended with."""

    request_id: str
    model: str
    results: tuple[GenerationResult | OrreryError, ...]
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """How likely a text is.

    Attributes:
        tokens: One entry per token of the target.
        total_logprob: Sum over the scored tokens.
        num_scored_tokens: The first token of a text without context is not scored.
        perplexity: exp(-total_logprob / num_scored_tokens).
    """

    request_id: str
    model: str
    tokens: tuple[PositionLogprobs, ...]
    total_logprob: float
    num_scored_tokens: int
    perplexity: float
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class TokenizeResult:
    """Token ids, each one's text for people to read, and the model's context length."""

    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    max_model_len: int
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class DetokenizeResult:
    """The text of token ids."""

    text: str
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class CacheGeometry:
    """The paged KV cache of a model."""

    block_size: int
    num_blocks: int
    bytes_per_block: int
    prefix_caching: bool


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one server accepts."""

    max_running: int
    max_waiting: int
    max_tokens_per_step: int
    max_n: int
    max_stop_strings: int
    max_logprobs: int
    max_batch_prompts: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A served model.

    Attributes:
        name: The name it is served under.
        application: The application that serves it.
        family: gpt2, llama, mistral, qwen2, qwen3, mixtral.
        backend: native or vllm.
        weight_hash: SHA-256 over the checkpoint's tensors, hexadecimal.
        max_model_len: Prompt plus completion, in tokens.
        created: When the model was ready, in seconds since the Unix epoch.
    """

    name: str
    application: str
    family: str
    backend: str
    num_parameters: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    dtype: str
    max_model_len: int
    weight_hash: str
    has_chat_template: bool
    cache: CacheGeometry
    limits: RequestLimits
    created: int


@dataclass(frozen=True, slots=True)
class Application:
    """An application of the platform.

    It serves `model`; or it failed to answer with `error`; or, where both are None, it serves
    something other than text generation.
    """

    name: str
    model: ModelInfo | None
    error: OrreryError | None


@dataclass(frozen=True, slots=True)
class Load:
    """What one engine is doing. All that is counted, and the hit rate, is since its start.

    Cached tokens are those of prompts that were in the prefix cache.
    """

    model: str
    num_running: int
    num_waiting: int
    num_blocks: int
    num_free_blocks: int
    prefix_cache_hit_rate: float
    num_preemptions: int
    num_finished: int
    resident_bytes: int
    process_id: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_completion_tokens: int

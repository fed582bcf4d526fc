"""What the engine is asked for and what it answers: requests, sequences, sampling parameters.

Pure data and its validation: no torch, no numpy. A `Request` is what a caller submits; it becomes
one or more `Sequence`s (`n`, `best_of`, beams), which are what the scheduler schedules.

    Request ──┬── Sequence 0   prompt + its own output tokens, its own block table
              ├── Sequence 1   forked from 0 after the prompt: shares the prompt's blocks
              └── ...
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.engine.errors import InvalidRequestError

__all__ = [
    "MAX_LOGIT_BIAS",
    "MAX_LOGPROBS",
    "MAX_N",
    "MAX_STOP_LENGTH",
    "MAX_STOP_STRINGS",
    "MAX_STOP_TOKEN_IDS",
    "MAX_TOKEN_LIST",
    "CompletionOutput",
    "FinishReason",
    "PositionLogprobs",
    "Request",
    "RequestOutput",
    "RequestTiming",
    "SamplingParams",
    "Sequence",
    "SequenceStatus",
    "TokenLogprob",
]

# Limits on every size that a client controls.
MAX_N = 32
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 256
MAX_STOP_TOKEN_IDS = 64
MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
MAX_TOKEN_LIST = 4096  # allowed or banned token ids
MAX_SEED = 2**64 - 1


class FinishReason(enum.Enum):
    """Why a completion ended. Exactly one per accepted request and choice."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen.

    Raises `InvalidRequestError` naming the field when a value is outside its range. What depends
    on the model (token ids in range, context length) is checked when the request is added.
    """

    max_tokens: int | None = None  # None: what is left of the context
    min_tokens: int = 0
    temperature: float = 1.0  # 0 = greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 = all
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: tuple[int, ...] = ()
    banned_token_ids: tuple[int, ...] = ()
    seed: int | None = None
    n: int = 1
    best_of: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    beam_width: int = 0  # 0 = off
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        self._check_lengths()
        self._check_distribution()
        self._check_penalties()
        self._check_lists()
        self._check_counts()
        if self.beam_width:
            self._check_beam_search()

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def num_samples(self) -> int:
        """Completions that are generated, of which `n` are returned."""
        return self.best_of if self.best_of is not None else self.n

    def _check_lengths(self) -> None:
        lowest = 0 if self.prompt_logprobs is not None else 1
        if self.max_tokens is not None and self.max_tokens < lowest:
            raise InvalidRequestError(
                "max_tokens",
                f"expected at least {lowest} (0 only together with prompt_logprobs), "
                f"got {self.max_tokens}",
            )
        if self.min_tokens < 0:
            raise InvalidRequestError("min_tokens", f"expected >= 0, got {self.min_tokens}")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequestError(
                "min_tokens", f"expected <= max_tokens ({self.max_tokens}), got {self.min_tokens}"
            )

    def _check_distribution(self) -> None:
        _in_range("temperature", self.temperature, 0.0, 100.0)
        _in_range("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _in_range("min_p", self.min_p, 0.0, 1.0)
        _in_range("typical_p", self.typical_p, 0.0, 1.0, open_low=True)
        if self.top_k < 0:
            raise InvalidRequestError("top_k", f"expected >= 0 (0 = all), got {self.top_k}")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise InvalidRequestError("seed", f"expected 0 to 2**64 - 1, got {self.seed}")

    def _check_penalties(self) -> None:
        _in_range("repetition_penalty", self.repetition_penalty, 0.0, 10.0, open_low=True)
        _in_range("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _in_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _in_range("length_penalty", self.length_penalty, -10.0, 10.0)

    def _check_lists(self) -> None:
        _at_most("logit_bias", len(self.logit_bias), MAX_LOGIT_BIAS)
        for token_id, bias in self.logit_bias.items():
            _in_range(f"logit_bias[{token_id}]", bias, -100.0, 100.0)
        _at_most("allowed_token_ids", len(self.allowed_token_ids), MAX_TOKEN_LIST)
        _at_most("banned_token_ids", len(self.banned_token_ids), MAX_TOKEN_LIST)
        _at_most("stop_token_ids", len(self.stop_token_ids), MAX_STOP_TOKEN_IDS)
        _at_most("stop", len(self.stop), MAX_STOP_STRINGS)
        for stop in self.stop:
            if not 1 <= len(stop) <= MAX_STOP_LENGTH:
                raise InvalidRequestError(
                    "stop",
                    f"expected strings of 1 to {MAX_STOP_LENGTH} characters, got {len(stop)}",
                )

    def _check_counts(self) -> None:
        if not 1 <= self.n <= MAX_N:
            raise InvalidRequestError("n", f"expected 1 to {MAX_N}, got {self.n}")
        if self.best_of is not None and not self.n <= self.best_of <= MAX_N:
            raise InvalidRequestError(
                "best_of", f"expected n ({self.n}) to {MAX_N}, got {self.best_of}"
            )
        for name, value in (("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)):
            if value is not None and not 0 <= value <= MAX_LOGPROBS:
                raise InvalidRequestError(name, f"expected 0 to {MAX_LOGPROBS}, got {value}")

    def _check_beam_search(self) -> None:
        if not 2 <= self.beam_width <= MAX_N:
            raise InvalidRequestError(
                "beam_width", f"expected 0 (off) or 2 to {MAX_N}, got {self.beam_width}"
            )
        if self.n > self.beam_width:
            raise InvalidRequestError(
                "n", f"expected at most beam_width ({self.beam_width}), got {self.n}"
            )
        neutral = SamplingParams()
        for name in ("top_p", "top_k", "min_p", "typical_p", "best_of", "seed"):
            if getattr(self, name) != getattr(neutral, name):
                raise InvalidRequestError(name, "cannot be combined with beam search")
        if self.stop:
            raise InvalidRequestError(
                "stop", "cannot be combined with beam search; use stop_token_ids"
            )
        if self.logprobs is not None:
            raise InvalidRequestError("logprobs", "cannot be combined with beam search")
        if self.temperature not in (0.0, 1.0):
            raise InvalidRequestError(
                "temperature", "beam search is deterministic: expected 0 or unset"
            )


def _in_range(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    too_low = value <= low if open_low else value < low
    if math.isnan(value) or too_low or value > high:
        bracket = "(" if open_low else "["
        raise InvalidRequestError(
            name, f"expected a number in {bracket}{low}, {high}], got {value}"
        )


def _at_most(name: str, count: int, limit: int) -> None:
    if count > limit:
        raise InvalidRequestError(name, f"expected at most {limit} entries, got {count}")


@dataclass(slots=True)
class Request:
    """One accepted call: a prompt, how to continue it, and until when.

    `arrival_s` and `deadline_s` are on the `time.monotonic` clock. Lower `priority` runs first.
    """

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    priority: int = 0
    deadline_s: float | None = None
    arrival_s: float = field(default_factory=time.monotonic)
    cache_salt: str = ""  # cached prefixes are shared only within one salt


class SequenceStatus(enum.Enum):
    WAITING = "waiting"  # in the queue; holds no blocks
    RUNNING = "running"  # holds blocks; in the running list
    HELD = "held"  # holds no blocks and needs none: a beam that waits for its siblings
    FINISHED = "finished"  # holds nothing


@dataclass(eq=False, slots=True)
class Sequence:
    """One line of tokens being decoded: what the scheduler schedules.

    There is no prefill phase and no decode phase: `num_computed_tokens` chases `num_tokens`.

        token_ids:  [ prompt ........ | output ....... ]
                     ^ num_computed_tokens (K/V in the cache)  ^ num_tokens
    """

    seq_id: int
    request: Request
    token_ids: list[int]  # prompt followed by output; grows by the sampled tokens
    index: int = 0  # which of the request's completions
    max_num_tokens: int = 0  # prompt plus the most it may generate
    num_slots: int = 1  # of the running batch: more than one until the request has forked
    status: SequenceStatus = SequenceStatus.WAITING
    admitted: bool = False  # has run at least once: only new requests count as queued
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0  # of the prompt, taken from the prefix cache at first admission
    num_preemptions: int = 0
    block_ids: list[int] = field(default_factory=list)
    content_ids: list[int] = field(default_factory=list)  # of the leading full blocks, chained

    @property
    def order(self) -> tuple[int, float, int]:
        """Who comes first: lower priority value, then earlier arrival, then the elder sequence."""
        return (self.request.priority, self.request.arrival_s, self.seq_id)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - len(self.request.prompt_token_ids)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A candidate token with its natural-log probability and its rank (1 = most likely)."""

    token_id: int
    logprob: float
    rank: int
    token: str = ""
    token_bytes: bytes = b""


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """One position: the token that stands there (None for the first of a prompt), and the best."""

    chosen: TokenLogprob | None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(slots=True)
class CompletionOutput:
    """What one completion gained since the last output of its request."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[PositionLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None  # the stop string or the stop token id
    cumulative_logprob: float | None = None

    def extend(self, later: CompletionOutput) -> None:
        """Joins what the same completion gained next."""
        self.text += later.text
        self.token_ids.extend(later.token_ids)
        if later.logprobs is not None:
            self.logprobs = [*(self.logprobs or ()), *later.logprobs]
        if later.finish_reason is not None:
            self.finish_reason = later.finish_reason
            self.stop_reason = later.stop_reason
        if later.cumulative_logprob is not None:
            self.cumulative_logprob = later.cumulative_logprob


@dataclass(frozen=True, slots=True)
class RequestTiming:
    """Seconds: in the queue, computing the prompt, decoding since the first token, in all."""

    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    total_s: float = 0.0


@dataclass(slots=True)
class RequestOutput:
    """A request's news after one step. `finished` is set exactly once, on the last one."""

    request_id: str
    outputs: list[CompletionOutput]
    finished: bool = False
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0  # over all completions, cumulative
    num_cached_tokens: int = 0
    prompt_logprobs: list[PositionLogprobs] | None = None  # in the first output only
    timing: RequestTiming = RequestTiming()
    error: Exception | None = None  # set when finish_reason is ERROR

    def extend(self, later: RequestOutput) -> None:
        """Joins the request's next output: the deltas add up, the totals are the later ones'."""
        known = {output.index: output for output in self.outputs}
        for output in later.outputs:
            if output.index in known:
                known[output.index].extend(output)
            else:
                self.outputs.append(output)
        self.finished = later.finished
        self.num_prompt_tokens = later.num_prompt_tokens
        self.num_output_tokens = later.num_output_tokens
        self.num_cached_tokens = later.num_cached_tokens
        if later.prompt_logprobs is not None:
            self.prompt_logprobs = later.prompt_logprobs
        self.timing = later.timing
        self.error = later.error

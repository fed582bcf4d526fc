"""A deterministic toy that stands in for an engine: no torch, no model, immediate answers.

Its tokens are bytes (id = byte value) plus BOS and EOS. Its "model" is arithmetic: greedy
decoding repeats a fixed sentence from a position that the prompt decides, and a temperature makes
the seed and the choice's index shift that position. It obeys the backend's contract in what a
transport can see: streams, finish reasons, stop strings, `n`, log-probabilities, deadlines, a
bounded queue, and giving back what a cancelled request held. Sampling itself it does not imitate.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace

from services.engine.errors import (
    ContextTooLongError,
    EngineDeadError,
    InvalidRequestError,
    QueueFullError,
)
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
from services.generation.backend import BackendLoad, CacheGeometry, ModelInfo

BOS = 256
EOS = 257
VOCAB_SIZE = 258
SENTENCE = "the lamp keeper climbs the tower at dusk and counts the ships — one, two, three. "
_BLOCK_SIZE = 16
_LOGPROB = -0.25


@dataclass(frozen=True, slots=True)
class ToySettings:
    """How the toy behaves. `step_s` is the pause before each token."""

    step_s: float = 0.0
    max_model_len: int = 512
    max_running: int = 8
    max_waiting: int = 64
    num_blocks: int = 1024
    has_chat_template: bool = True


class ToyBackend:
    """A `services.generation.backend.Backend` made of arithmetic."""

    def __init__(self, settings: ToySettings | None = None) -> None:
        self.settings = settings or ToySettings()
        self.dies_at_next_step = False  # a test sets it: the engine fails beyond repair
        self.dies_on: str | None = None  # a prompt with this text kills the engine
        self.fails_on: str | None = None  # a prompt with this text fails alone, unexpectedly
        self._dead = False
        self._running: dict[str, int] = {}  # request id -> blocks held
        self._num_waiting = 0
        self._num_finished = 0
        self._num_prompt_tokens = self._num_output_tokens = 0
        self._slots = asyncio.Semaphore(self.settings.max_running)

    @property
    def info(self) -> ModelInfo:
        settings = self.settings
        return ModelInfo(
            family="llama",
            backend="native",
            num_parameters=1000,
            hidden_size=8,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            head_dim=4,
            vocab_size=VOCAB_SIZE,
            dtype="float32",
            max_model_len=settings.max_model_len,
            weight_hash="0" * 64,
            has_chat_template=settings.has_chat_template,
            cache=CacheGeometry(_BLOCK_SIZE, settings.num_blocks, 1024, False),
            max_running=settings.max_running,
            max_waiting=settings.max_waiting,
            max_tokens_per_step=256,
        )

    @property
    def failure(self) -> str | None:
        return "the engine has stopped" if self._dead else None

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return ([BOS] if add_special_tokens else []) + list(text.encode())

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool
    ) -> list[int]:
        if not self.settings.has_chat_template:
            raise InvalidRequestError("prompt", "the model has no chat template")
        turns = "".join(f"<{m['role']}>{m['content']}\n" for m in messages)
        return self.encode(turns + ("<assistant>" if add_generation_prompt else ""), True)

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool) -> str:
        pieces = []
        for is_byte, run in _runs(token_ids):
            if is_byte:
                pieces.append(bytes(run).decode(errors="replace"))
            elif not skip_special_tokens:
                pieces.extend("<s>" if token_id == BOS else "</s>" for token_id in run)
        return "".join(pieces)

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        return [self.decode([token_id], False) for token_id in token_ids]

    def load(self) -> BackendLoad:
        held = sum(self._running.values())
        return BackendLoad(
            num_running=len(self._running),
            num_waiting=self._num_waiting,
            num_blocks=self.settings.num_blocks,
            num_free_blocks=self.settings.num_blocks - held,
            prefix_queries=0,
            prefix_hits=0,
            num_preemptions=0,
            num_finished=self._num_finished,
            num_prompt_tokens=self._num_prompt_tokens,
            num_cached_tokens=0,
            num_output_tokens=self._num_output_tokens,
        )

    async def close(self) -> None:
        self._dead = True

    async def generate(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        self._check(request)
        if self._num_waiting >= self.settings.max_waiting:
            raise QueueFullError("the queue is full", retry_after_s=0.5)
        if not await self._wait_for_slot(request):
            yield _ended_in_queue(request)
            return
        try:
            blocks = -(-len(request.prompt_token_ids) // _BLOCK_SIZE)
            self._running[request.request_id] = blocks
            self._num_prompt_tokens += len(request.prompt_token_ids)
            async for output in self._decode(request):
                self._num_output_tokens += sum(len(news.token_ids) for news in output.outputs)
                yield output
        finally:
            del self._running[request.request_id]
            self._num_finished += 1
            self._slots.release()

    async def _wait_for_slot(self, request: Request) -> bool:
        left_s = None
        if request.deadline_s is not None:
            left_s = max(0.0, request.deadline_s - time.monotonic())
        self._num_waiting += 1
        try:
            await asyncio.wait_for(self._slots.acquire(), left_s)
        except TimeoutError:
            return False
        finally:
            self._num_waiting -= 1
        return True

    def _check(self, request: Request) -> None:
        if self._dead:
            raise EngineDeadError("dead")
        length, limit = len(request.prompt_token_ids), self.settings.max_model_len
        room = limit - (request.params.max_tokens if request.params.max_tokens is not None else 1)
        if length > room:
            raise ContextTooLongError(
                "prompt", f"expected at most {room} tokens before the completion, got {length}"
            )
        if self.dies_on and self.dies_on in self.decode(request.prompt_token_ids, True):
            self._dead = True
            raise EngineDeadError("killed by a prompt")
        if self.fails_on and self.fails_on in self.decode(request.prompt_token_ids, True):
            raise ZeroDivisionError("the toy was told to fail on this prompt")

    async def _decode(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        started = time.monotonic()
        queue_s = started - request.arrival_s
        state = _ToyDecode(self, request)
        for first in (True, *[False] * self.settings.max_model_len):
            await asyncio.sleep(self.settings.step_s)
            if self.dies_at_next_step:
                self._dead = True
            if self._dead:
                raise EngineDeadError("dead")
            output = state.step(first)
            output.timing = RequestTiming(
                queue_s, 0.0, time.monotonic() - started, time.monotonic() - request.arrival_s
            )
            yield output
            if output.finished:
                return


class _ToyDecode:
    """The choices of one request, all advancing by one token per step."""

    def __init__(self, backend: ToyBackend, request: Request) -> None:
        self._backend = backend
        self._request = request
        self._params = request.params
        prompt = request.prompt_token_ids
        most = backend.settings.max_model_len - len(prompt)
        self._most = most if self._params.max_tokens is None else self._params.max_tokens
        self._choices = [
            _Choice(index, _sentence_from(prompt, self._params, index))
            for index in range(self._params.n)
        ]
        self._num_output_tokens = 0

    def step(self, first: bool) -> RequestOutput:
        outputs = []
        if self._most > 0:
            for choice in self._choices:
                if not choice.done:
                    outputs.append(choice.advance(self._params, self._most, self._expired))
                    self._num_output_tokens += len(outputs[-1].token_ids)
        prompt = self._request.prompt_token_ids
        output = RequestOutput(
            request_id=self._request.request_id,
            outputs=outputs,
            finished=self._most == 0 or all(choice.done for choice in self._choices),
            num_prompt_tokens=len(prompt),
            num_output_tokens=self._num_output_tokens,
        )
        if first and self._params.prompt_logprobs is not None:
            output.prompt_logprobs = [
                _position(token_id, self._params.prompt_logprobs, known=position > 0)
                for position, token_id in enumerate(prompt)
            ]
        if self._most == 0:
            output.outputs = [CompletionOutput(0, finish_reason=FinishReason.LENGTH)]
        return output

    @property
    def _expired(self) -> bool:
        deadline_s = self._request.deadline_s
        return deadline_s is not None and time.monotonic() >= deadline_s


class _Choice:
    def __init__(self, index: int, source: list[int]) -> None:
        self.index = index
        self.done = False
        self._source = source
        self._tokens: list[int] = []
        self._sent = ""

    def advance(self, params: SamplingParams, most: int, expired: bool) -> CompletionOutput:
        delta = CompletionOutput(self.index)
        if expired:
            delta.finish_reason = FinishReason.DEADLINE
        else:
            token_id = self._source[len(self._tokens) % len(self._source)]
            self._tokens.append(token_id)
            delta.token_ids = [token_id]
            if params.logprobs is not None:
                delta.logprobs = [_position(token_id, params.logprobs, known=True)]
            self._end(delta, params, most)
        self._emit(delta, params)
        if delta.finish_reason is not None:
            self.done = True
            delta.cumulative_logprob = _LOGPROB * len(self._tokens)
        return delta

    def _end(self, delta: CompletionOutput, params: SamplingParams, most: int) -> None:
        if delta.token_ids[0] in params.stop_token_ids:
            delta.finish_reason, delta.stop_reason = FinishReason.STOP, delta.token_ids[0]
        elif len(self._tokens) >= most:
            delta.finish_reason = FinishReason.LENGTH

    def _emit(self, delta: CompletionOutput, params: SamplingParams) -> None:
        """Sends whole characters only, and nothing that may yet become a stop string."""
        text = bytes(t for t in self._tokens if t < BOS).decode(errors="ignore")
        for stop in params.stop:
            position = text.find(stop)
            if position >= 0:
                delta.finish_reason, delta.stop_reason = FinishReason.STOP, stop
                text = text[: position + (len(stop) if params.include_stop_in_output else 0)]
                break
        held = max((_overlap(text, stop) for stop in params.stop), default=0)
        if delta.finish_reason is not None:
            held = 0
        ready = text[: len(text) - held]
        delta.text, self._sent = ready[len(self._sent) :], ready


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)


def _sentence_from(prompt: Sequence[int], params: SamplingParams, index: int) -> list[int]:
    data = list(SENTENCE.encode())
    start = SENTENCE.encode().find(b" ", sum(prompt) % len(SENTENCE)) + 1
    if params.temperature > 0:
        seed = params.seed if params.seed is not None else random.getrandbits(63)
        start = random.Random(f"{seed}/{index}").randrange(40)
    return data[start:] + data[:start]


def _position(token_id: int, num_top: int, *, known: bool) -> PositionLogprobs:
    if not known:
        return PositionLogprobs(None)
    chosen = TokenLogprob(token_id, _LOGPROB, 1, *_text_and_bytes(token_id))
    others = [
        replace(chosen, token_id=(token_id + rank) % 128, logprob=-float(rank), rank=rank)
        for rank in range(2, num_top + 1)
    ]
    return PositionLogprobs(chosen, (chosen, *others) if num_top else ())


def _text_and_bytes(token_id: int) -> tuple[str, bytes]:
    if token_id >= BOS:
        return ("<s>" if token_id == BOS else "</s>"), b""
    return bytes([token_id]).decode(errors="replace"), bytes([token_id])


def _ended_in_queue(request: Request) -> RequestOutput:
    return RequestOutput(
        request_id=request.request_id,
        outputs=[
            CompletionOutput(index, finish_reason=FinishReason.DEADLINE)
            for index in range(request.params.n)
        ],
        finished=True,
        num_prompt_tokens=len(request.prompt_token_ids),
    )


def _runs(token_ids: Sequence[int]) -> list[tuple[bool, list[int]]]:
    runs: list[tuple[bool, list[int]]] = []
    for token_id in token_ids:
        is_byte = token_id < BOS
        if not runs or runs[-1][0] != is_byte:
            runs.append((is_byte, []))
        runs[-1][1].append(token_id)
    return runs

"""A model without arithmetic, for testing what surrounds models.

`ToyRunner` keeps a paged cache of *tokens* where a real runner keeps keys and values. Each step it
writes the scheduled tokens, reads every sequence's whole context back through its block table, and
fails if one token of it is not the sequence's own. The next token is a hash of the context, so
that any mix-up of contexts changes the output.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from services.engine.config import EngineConfig
from services.engine.engine import LLMEngine
from services.engine.request import PositionLogprobs, Request, RequestOutput, Sequence, TokenLogprob
from services.engine.scheduler import SchedulerOutput
from services.engine.step_result import SampledToken, StepResult

VOCAB_SIZE = 97
EOS = 96


def next_token(context: list[int], index: int = 0) -> int:
    """The toy model: token `index`-th completion continues `context` with. Never EOS."""
    return zlib.crc32(repr((context, index)).encode()) % (VOCAB_SIZE - 1)


def continuation(prompt: list[int], count: int, index: int = 0) -> list[int]:
    """What the toy model generates after `prompt`, computed in the plainest way."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens, index))
    return tokens[len(prompt) :]


class PagedTokens:
    """The cache: `block_id * block_size + offset` -> token."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.slots: list[int | None] = [None] * (num_blocks * block_size)

    def run(self, out: SchedulerOutput) -> None:
        """Copies blocks, writes the step's tokens, and checks every context."""
        size = self.block_size
        for source, copy in out.block_copies:
            assert source != copy
            self.slots[copy * size : (copy + 1) * size] = self.slots[
                source * size : (source + 1) * size
            ]
        for scheduled in out.scheduled:
            seq, start = scheduled.seq, scheduled.seq.num_computed_tokens
            assert scheduled.num_tokens > 0
            for position in range(start, start + scheduled.num_tokens):
                self.slots[self._slot(seq, position)] = seq.token_ids[position]
        for scheduled in out.scheduled:
            seq = scheduled.seq
            end = seq.num_computed_tokens + scheduled.num_tokens
            context = [self.slots[self._slot(seq, position)] for position in range(end)]
            assert context == seq.token_ids[:end], f"sequence {seq.seq_id} reads foreign tokens"

    def _slot(self, seq: Sequence, position: int) -> int:
        return seq.block_ids[position // self.block_size] * self.block_size + (
            position % self.block_size
        )


class ToyTokenizer:
    """Token i is a letter; tokens from 90 on are special and have no text."""

    num_leading_spaces = 0
    special_token_ids = frozenset(range(90, VOCAB_SIZE))

    def token_bytes(self, token_id: int) -> bytes:
        return b"" if token_id in self.special_token_ids else self.token_text(token_id).encode()

    def token_text(self, token_id: int) -> str:
        return chr(ord("!") + token_id)


def text_of(token_ids: list[int]) -> str:
    tokenizer = ToyTokenizer()
    return b"".join(tokenizer.token_bytes(token_id) for token_id in token_ids).decode()


class ToyRunner:
    """A runner over the toy model.

    `choose(seq, index)` may replace the hash: the token that completion `index` of the sequence
    gets next. A request whose id is in `poisoned` makes every step that it is part of fail.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.cache = PagedTokens(num_blocks, block_size)
        self.choose: Callable[[Sequence, int], int] = lambda seq, i: next_token(seq.token_ids, i)
        self.poisoned: set[str] = set()
        self.before_step: Callable[[], None] = lambda: None
        self.num_steps = 0
        self.num_computed_tokens = 0
        self.known: set[int] = set()  # seq_ids that hold a row

    def execute(self, out: SchedulerOutput) -> StepResult:
        self.before_step()
        self.num_steps += 1
        self.cache.run(out)
        for scheduled in out.scheduled:
            self.known.add(scheduled.seq.seq_id)
            if scheduled.seq.request.request_id in self.poisoned:
                raise RuntimeError("poisoned")
        self.num_computed_tokens += out.num_batched_tokens
        result = StepResult()
        for scheduled in out.scheduled:
            self._prompt_logprobs(scheduled.seq, scheduled.num_tokens, result)
            if scheduled.samples:
                self._sample(scheduled.seq, result)
        return result

    def release(self, seq: Sequence) -> None:
        self.known.discard(seq.seq_id)

    def _sample(self, seq: Sequence, result: StepResult) -> None:
        num_samples = seq.request.params.num_samples
        result.samples.append(self._sampled(seq, seq.index))
        if num_samples > 1 and seq.num_output_tokens == 0:
            drawn = [self._sampled(seq, index) for index in range(num_samples)]
            result.fork_samples[seq.seq_id] = drawn

    def _sampled(self, seq: Sequence, index: int) -> SampledToken:
        token_id = self.choose(seq, index)
        logprob = -0.01 * (token_id + 1)
        position = None
        if seq.request.params.logprobs is not None:
            position = PositionLogprobs(TokenLogprob(token_id, logprob, 1))
        return SampledToken(token_id, position, logprob)

    def _prompt_logprobs(self, seq: Sequence, num_tokens: int, result: StepResult) -> None:
        if seq.request.params.prompt_logprobs is None or seq.num_output_tokens:
            return
        start = seq.num_computed_tokens
        chunk = [] if start else [PositionLogprobs(None)]
        chunk += [
            PositionLogprobs(TokenLogprob(token_id, -0.01 * (token_id + 1), 1))
            for token_id in seq.token_ids[start + 1 : start + 1 + num_tokens]
        ]
        result.prompt_logprobs[seq.seq_id] = chunk


def toy_model(context_length: int = 64) -> Any:
    """What the engine reads of a loaded model."""
    return SimpleNamespace(
        config=SimpleNamespace(
            vocab_size=VOCAB_SIZE, context_length=context_length, eos_token_ids=(EOS,)
        )
    )


def toy_engine(num_blocks: int = 32, tokenizer: bool = True, **settings: Any) -> LLMEngine:
    """An engine over the toy model: blocks of 4 tokens, a context of 64."""
    stats = settings.pop("stats", None)
    values = {"block_size": 4, "max_num_seqs": 4, "max_num_batched_tokens": 32, **settings}
    config = EngineConfig.model_validate(values)
    return LLMEngine(
        toy_model(),
        ToyTokenizer() if tokenizer else None,  # type: ignore[arg-type]
        config,
        runner=ToyRunner(num_blocks, config.block_size),
        stats=stats,
    )


def run_to_end(engine: LLMEngine, max_steps: int = 5000) -> dict[str, RequestOutput]:
    """Steps until nothing is left; the whole outputs by request_id."""
    whole: dict[str, RequestOutput] = {}
    for _ in range(max_steps):
        if not engine.has_unfinished():
            return whole
        for output in engine.step():
            known = whole.get(output.request_id)
            assert known is None or not known.finished, "news after the last output"
            if known is None:
                whole[output.request_id] = output
            else:
                known.extend(output)
        engine.check_integrity()
    raise AssertionError("the engine does not come to an end")


def run_one(engine: LLMEngine, request: Request) -> RequestOutput:
    engine.add_request(request)
    return run_to_end(engine)[request.request_id]

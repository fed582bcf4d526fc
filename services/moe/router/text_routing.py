"""How the tokens of a text are routed: the dense part of the decoder runs over it in this process,
its sparse layers through the router's own dispatch.

    thread:      trunk ── layer 0 ──> wait      trunk ── layer 1 ──> wait   ...
    event loop:              └── dispatch ──^               └── dispatch ──^

The trunk is loaded when the first text comes. Texts are read one after another; a bounded number
waits. Knows nothing of gRPC or protobuf.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from services.engine.config import EngineConfig
from services.engine.engine import LLMEngine
from services.engine.errors import ExpertsUnavailableError, InvalidRequestError
from services.engine.request import Request, SamplingParams
from services.engine.tokenizer import Tokenizer
from services.engine.weights import read_model_config
from services.moe.model_facts import ModelFacts
from services.moe.router.config import RouterConfig, TextConfig
from services.moe.router.dispatcher import Dispatched
from services.moe.router.gates import Routed
from services.moe.tensors import all_finite
from services.runtime.errors import DeadlineExceeded, InvalidRequest, OrreryError, Overloaded
from services.runtime.message_size import MAX_CONTENT_BYTES

__all__ = [
    "Dispatch",
    "RoutedText",
    "TextLimits",
    "TextRouting",
    "TrunkRouting",
    "most_told",
    "trunk_routing",
]

_RETRY_AFTER_S = 1.0
# What an answer tells of a token, at most: of each of its experts an id and a weight, in each layer
# an entropy; beside that its own id and the length of its text.
_BYTES_PER_EXPERT, _BYTES_PER_LAYER, _BYTES_PER_TOKEN = 9, 4, 10

Dispatch = Callable[[int, Tensor, float], Awaitable[Dispatched]]  # layer, hidden, deadline


@dataclass(frozen=True, slots=True, eq=False)
class RoutedText:
    """A text's tokens, and where each sparse layer sent them."""

    token_ids: list[int]
    tokens: list[str]  # the text of each; empty of a special one
    layers: dict[int, Routed]


class TextRouting(Protocol):
    """Reads texts as the decoder does. `field` is what an error is blamed on."""

    async def route_text(self, text: str, field: str, deadline_s: float) -> RoutedText: ...

    async def route_ids(
        self, token_ids: Sequence[int], field: str, deadline_s: float
    ) -> RoutedText: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TextLimits:
    """What is read at most."""

    max_tokens: int  # of a text
    vocab_size: int
    max_waiting: int  # texts in line, behind the one that is read

    def check(self, token_ids: Sequence[int], field: str) -> None:
        """Raises `InvalidRequest`."""
        if not 1 <= len(token_ids) <= self.max_tokens:
            raise InvalidRequest(
                f"{field}: expected 1 to {self.max_tokens} tokens, got {len(token_ids)}",
                field=field,
            )
        if max(token_ids) >= self.vocab_size:
            raise InvalidRequest(
                f"{field}: expected ids from 0 to {self.vocab_size - 1}, got {max(token_ids)}",
                field=field,
            )


@dataclass(slots=True, eq=False)
class _Reading:
    """One text being read, seen by the thread and by whoever waits for it."""

    loop: asyncio.AbstractEventLoop
    blamed: str  # the field of the request
    deadline_s: float
    layers: dict[int, list[Routed]] = field(default_factory=dict)
    failure: OrreryError | None = None
    asked: Future[Dispatched] | None = None
    given_up: bool = False

    def give_up(self) -> None:
        self.given_up = True
        if self.asked is not None:
            self.asked.cancel()  # does nothing to one that has ended


class TrunkRouting:
    """A `TextRouting` over the engine. `dispatch` runs on the event loop that asks."""

    def __init__(
        self, model_folder: str, config: EngineConfig, limits: TextLimits, dispatch: Dispatch
    ) -> None:
        self._model_folder = model_folder
        self._config = config
        self._limits = limits
        self._dispatch = dispatch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="moe-trunk")
        self._engine: LLMEngine | None = None
        self._reading: _Reading | None = None  # the thread's
        self._num_texts = 0  # being read, and in line

    async def route_text(self, text: str, field: str, deadline_s: float) -> RoutedText:
        """Raises `InvalidRequest`, `Overloaded`, and what the dispatch raises."""

        def read() -> RoutedText:
            token_ids = self._encode(text, field)
            self._limits.check(token_ids, field)
            return self._route(token_ids)

        return await self._within(read, field, deadline_s)

    async def route_ids(
        self, token_ids: Sequence[int], field: str, deadline_s: float
    ) -> RoutedText:
        """Raises `InvalidRequest`, `Overloaded`, and what the dispatch raises."""
        self._limits.check(token_ids, field)
        return await self._within(lambda: self._route(list(token_ids)), field, deadline_s)

    async def close(self) -> None:
        """Ends the text that is read."""
        if self._reading is not None:
            self._reading.give_up()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _within(
        self, read: Callable[[], RoutedText], field: str, deadline_s: float
    ) -> RoutedText:
        if self._num_texts > self._limits.max_waiting:
            raise Overloaded(
                f"{self._limits.max_waiting} texts wait already", retry_after_s=_RETRY_AFTER_S
            )
        loop = asyncio.get_running_loop()
        reading = _Reading(loop, field, deadline_s)

        def run() -> RoutedText:
            self._reading = reading
            return read()

        self._num_texts += 1
        try:
            async with asyncio.timeout(deadline_s - time.monotonic()):
                return await loop.run_in_executor(self._thread, run)
        except TimeoutError:
            raise DeadlineExceeded(
                "the deadline passed before the text was read", stage="trunk"
            ) from None
        finally:
            self._num_texts -= 1
            reading.give_up()

    # --- in the thread -----------------------------------------------------------------------

    def _encode(self, text: str, field: str) -> list[int]:
        try:
            return self._tokenizer().encode(text, field=field)
        except InvalidRequestError as error:
            raise InvalidRequest(str(error), field=error.field) from error

    def _route(self, token_ids: list[int]) -> RoutedText:
        engine, reading = self._loaded(), self._reading
        assert reading is not None
        reading.layers.clear()  # of what loading computed
        params = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
        engine.add_request(Request("text", token_ids, params))
        while engine.has_unfinished():
            for output in engine.step():
                if output.error is not None:
                    raise reading.failure or output.error
        tokenizer = self._tokenizer()
        special = tokenizer.special_token_ids
        return RoutedText(
            token_ids,
            ["" if i in special else tokenizer.token_text(i) for i in token_ids],
            {layer: _joined(parts) for layer, parts in reading.layers.items()},
        )

    def _loaded(self) -> LLMEngine:
        if self._engine is None:
            try:
                self._engine = LLMEngine.from_pretrained(
                    self._model_folder, self._config, sparse_layer=self._sparse_layer
                )
            except ExpertsUnavailableError as error:
                assert self._reading is not None
                raise self._reading.failure or error from error
        return self._engine

    def _tokenizer(self) -> Tokenizer:
        tokenizer = self._loaded().tokenizer
        assert tokenizer is not None
        return tokenizer

    def _sparse_layer(self, layer: int, hidden: Tensor) -> Tensor:
        """A `services.engine.layers.moe.SparseLayer`."""
        reading = self._reading
        assert reading is not None
        if not all_finite(hidden):  # it would share a batch with tokens of others
            reading.failure = InvalidRequest(
                f"{reading.blamed}: the numbers that enter layer {layer} overflow",
                field=reading.blamed,
            )
            raise ExpertsUnavailableError(reading.failure.message)
        work = _awaited(self._dispatch, layer, hidden, reading.deadline_s)
        reading.asked = asyncio.run_coroutine_threadsafe(work, reading.loop)
        if reading.given_up:
            reading.asked.cancel()
        try:
            done = reading.asked.result()
        except OrreryError as error:
            reading.failure = error
            raise ExpertsUnavailableError(error.message) from error
        except CancelledError as error:
            raise ExpertsUnavailableError("the text is not waited for any more") from error
        reading.layers.setdefault(layer, []).append(done.routed)
        return done.hidden


def trunk_routing(
    config: RouterConfig, text: TextConfig, model: ModelFacts, dispatch: Dispatch
) -> TrunkRouting:
    """For the router of a model. Raises `ConfigError` where the texts it allows are too long."""
    engine = EngineConfig(
        dtype=config.dtype,
        device=config.device,
        num_threads=config.num_threads,
        kv_cache_bytes=text.kv_cache_bytes,
        enable_prefix_caching=False,  # every token is to be routed
        max_model_len=text.max_tokens,
        max_num_seqs=1,
    )
    decoder = read_model_config(model.folder)
    longest = min(engine.context_length(decoder) - 1, most_told(model))
    limits = TextLimits(longest, decoder.vocab_size, text.max_waiting)
    return TrunkRouting(str(model.folder), engine, limits, dispatch)


def most_told(model: ModelFacts) -> int:
    """Tokens of a text whose routing one answer can tell."""
    of_layer = model.gating.num_experts_per_token * _BYTES_PER_EXPERT + _BYTES_PER_LAYER
    return MAX_CONTENT_BYTES // (len(model.layers) * of_layer + _BYTES_PER_TOKEN)


async def _awaited(dispatch: Dispatch, layer: int, hidden: Tensor, deadline_s: float) -> Dispatched:
    return await dispatch(layer, hidden, deadline_s)


def _joined(parts: Sequence[Routed]) -> Routed:
    """Of the pieces that a long text was read in."""
    return Routed(
        torch.cat([part.weights for part in parts]),
        torch.cat([part.expert_ids for part in parts]),
        torch.cat([part.logits for part in parts]),
        parts[0].scores,
    )

"""The engine: requests in, outputs out, one step at a time. Synchronous and single-threaded.

    add_request ──> scheduler.schedule ──> runner.execute ──> postprocess ──> outputs
                         (what runs)        (tokens)           (text, ends, forks)

Every accepted request ends in exactly one last output, unless it is aborted; whatever it held is
given back then. `async_engine.py` runs the steps in a thread and streams the outputs.
"""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

from services.engine import fault_isolation
from services.engine.beam_search import BeamSearch, Continuation
from services.engine.config import EngineConfig
from services.engine.errors import (
    EngineDeadError,
    EngineError,
    ExpertsUnavailableError,
    InvalidRequestError,
)
from services.engine.fault_isolation import Runner
from services.engine.layers.moe import SparseLayer
from services.engine.output_processor import Completion, RequestState, StepNews
from services.engine.request import FinishReason, Request, RequestOutput, Sequence
from services.engine.runner import ModelRunner
from services.engine.sampler.constraints import ending_token_ids
from services.engine.scheduler import Scheduler, SchedulerOutput
from services.engine.stats import EngineLoad, StatsSink
from services.engine.step_result import SampledToken, StepResult
from services.engine.tokenizer import Tokenizer
from services.engine.validation import RequestValidator
from services.engine.weights import LoadedModel, load_model

__all__ = ["LLMEngine"]

# Requests that fail in a row, with none that runs in between: then it is not the requests.
_MAX_FAILURES_IN_A_ROW = 16


class LLMEngine:
    """One model, its cache and its queue.

    `runner`: in place of a `ModelRunner` over `model`. `stats`: told of every step and every
    request that ends. Raises `ConfigError` when the settings do not fit the model.
    """

    def __init__(
        self,
        model: LoadedModel,
        tokenizer: Tokenizer | None,
        config: EngineConfig,
        *,
        runner: Runner | None = None,
        stats: StatsSink | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.max_model_len = config.context_length(model.config)
        self.runner: Runner = runner or ModelRunner(model, config)
        self.scheduler = Scheduler(config, self.runner.num_blocks)
        self.validator = RequestValidator(
            vocab_size=model.config.vocab_size,
            eos_token_ids=model.config.eos_token_ids,
            max_model_len=self.max_model_len,
            max_num_seqs=config.max_num_seqs,
            has_tokenizer=tokenizer is not None,
        )
        self._stats = stats
        self._states: dict[str, RequestState] = {}  # by request_id
        self._seq_ids = count()
        self._num_finished = 0
        self._num_prompt_tokens = self._num_cached_tokens = self._num_output_tokens = 0
        self._failures_in_a_row = 0

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        config: EngineConfig | None = None,
        *,
        stats: StatsSink | None = None,
        sparse_layer: SparseLayer | None = None,
    ) -> LLMEngine:
        """Loads a Hugging Face folder, or a hub name, with its tokenizer.

        `sparse_layer`: as in `load_model`. It is called once here, as one token is computed.
        Raises `CheckpointError`, `ConfigError` or, from it, `ExpertsUnavailableError`.
        """
        config = config or EngineConfig()
        model = load_model(path, config.dtype, config.device, sparse_layer=sparse_layer)
        return cls(model, Tokenizer.from_folder(model.path), config, stats=stats)

    # Requests ------------------------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        """Queues a request.

        Raises `InvalidRequestError`, `ContextTooLongError` or `QueueFullError`; then nothing is
        held.
        """
        max_num_tokens = self.validator.check(request)
        if request.request_id in self._states:
            raise InvalidRequestError("request_id", f"{request.request_id!r} is in use")
        params = request.params
        root = Sequence(
            seq_id=next(self._seq_ids),
            request=request,
            token_ids=list(request.prompt_token_ids),
            max_num_tokens=max_num_tokens,
            num_slots=max(params.num_samples, params.beam_width),
        )
        ending = frozenset(ending_token_ids(params, self.model.config.eos_token_ids))
        state = RequestState(request, self.tokenizer, ending)
        if params.beam_width:
            state.search = BeamSearch(params, root, ending)
        state.add_completion(root)
        self.scheduler.add(root)
        self._states[request.request_id] = state

    def abort(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ends a request without an output; its blocks are free at once. Unknown ids are fine."""
        state = self._states.get(request_id)
        if state is not None:
            self._end_request(state, reason)
            self._forget(state, time.monotonic())

    def has_unfinished(self) -> bool:
        return bool(self._states)

    def load(self) -> EngineLoad:
        pool, prefix_cache = self.scheduler.pool, self.scheduler.tables.prefix_cache
        return EngineLoad(
            num_running=self.scheduler.num_running,
            num_waiting=self.scheduler.num_waiting,
            max_running=self.config.max_num_seqs,
            max_waiting=self.config.max_num_waiting,
            num_places=self.scheduler.num_places,
            retry_after_s=self.scheduler.retry_after_s,
            num_blocks=pool.num_blocks,
            num_free_blocks=pool.num_free,
            prefix_queries=prefix_cache.num_queried,
            prefix_hits=prefix_cache.num_hit,
            num_preemptions=self.scheduler.num_preemptions,
            num_finished=self._num_finished,
            num_prompt_tokens=self._num_prompt_tokens,
            num_cached_tokens=self._num_cached_tokens,
            num_output_tokens=self._num_output_tokens,
        )

    def check_integrity(self) -> None:
        """Raises AssertionError when blocks, queues and requests do not agree. For tests."""
        self.scheduler.check_integrity()
        live = [seq.seq_id for state in self._states.values() for seq in state.live_sequences]
        assert sorted(live) == sorted(seq.seq_id for seq in self.scheduler.sequences)
        if not self._states:
            assert self.scheduler.pool.num_free == self.scheduler.pool.num_blocks, "blocks leaked"

    # One step ------------------------------------------------------------------------------

    def step(self) -> list[RequestOutput]:
        """Computes once and returns what each request gained.

        An error in one request ends that request with `FinishReason.ERROR`. Raises
        `EngineDeadError` when nothing runs any more.
        """
        start = time.monotonic()
        out = self.scheduler.schedule(start)
        news = StepNews(num_sequences=len(out.scheduled))
        self._note_schedule(out, news, start)
        if out.scheduled:
            result, failed = fault_isolation.execute(self.runner, self.scheduler, out)
            self._postprocess(out, result, news)
            self._fail_all(failed, news, anything_ran=bool(out.scheduled))
        now = time.monotonic()
        outputs = []
        for state in news.touched:
            output = state.take_output(now)
            if output is not None:
                outputs.append(output)
            if state.finished:
                self._forget(state, now)
        if self._stats is not None:
            self._stats.record_step(news.stats(self.load(), out.num_batched_tokens, now - start))
        return outputs

    def _note_schedule(self, out: SchedulerOutput, news: StepNews, start: float) -> None:
        for seq in out.preempted:
            self.runner.release(seq)
        for seq in out.expired:
            state = self._states[seq.request.request_id]
            self._end_request(state, FinishReason.DEADLINE)
            news.touched[state] = None
        for seq in out.admitted:
            state = self._states[seq.request.request_id]
            if state.started_s is None:
                state.started_s = start
                state.num_cached_tokens = seq.num_cached_tokens
                self._num_prompt_tokens += len(state.request.prompt_token_ids)
                self._num_cached_tokens += seq.num_cached_tokens

    def _postprocess(self, out: SchedulerOutput, result: StepResult, news: StepNews) -> None:
        """Gives what was computed to the requests; an error in one of them ends that one."""
        ran = [(item.seq, item.seq.num_computed_tokens, item.samples) for item in out.scheduled]
        tokens = iter(result.samples)
        self.scheduler.advance(out)
        news.now = time.monotonic()
        for seq, start, samples in ran:
            sampled = next(tokens) if samples else None
            state = self._states[seq.request.request_id]
            if state.error is not None:  # a sibling has failed in this step
                continue
            news.touched[state] = None
            try:
                chunk = result.prompt_logprobs.get(seq.seq_id)
                if chunk is not None:
                    state.add_prompt_logprobs(start, chunk)
                if sampled is not None:
                    self._accept(state, seq, sampled, result, news)
            except Exception as error:  # noqa: BLE001 - it belongs to this request alone
                self._fail(state, error)

    def _accept(
        self,
        state: RequestState,
        seq: Sequence,
        sampled: SampledToken,
        result: StepResult,
        news: StepNews,
    ) -> None:
        if state.search is not None:
            self._search(state, state.search, seq, result)
        elif seq.num_tokens >= seq.max_num_tokens:  # nothing is to be generated: a score
            self._end_completion(state, state.completions[seq.index], FinishReason.LENGTH)
        else:
            for index, drawn in enumerate(result.fork_samples.get(seq.seq_id, ())):
                if index != seq.index:
                    child = self._new_sequence(seq, list(seq.token_ids), index)
                    completion = state.add_completion(child)
                    self.scheduler.fork(seq, child)
                    self._append(state, completion, drawn, news)
            self._append(state, state.completions[seq.index], sampled, news)
        if state.first_token_s is None:
            state.first_token_s = news.now

    def _append(
        self, state: RequestState, completion: Completion, sampled: SampledToken, news: StepNews
    ) -> None:
        if not sampled.valid:
            raise EngineError("the model's output is not a distribution (NaN)")
        state.num_output_tokens += 1
        self._num_output_tokens += 1
        reason = completion.append(sampled)
        news.record_token(state, completion)
        if reason is not None:
            self._end_completion(state, completion, reason)

    # Beam search ---------------------------------------------------------------------------

    def _search(
        self, state: RequestState, search: BeamSearch, seq: Sequence, result: StepResult
    ) -> None:
        """Takes one beam's candidates; when it was the last to report, forks and drops beams."""
        if not search.report(seq, result.candidates[seq.seq_id]):
            return
        continuations = search.select()
        heirs = {continuation.parent for continuation in continuations}
        for beam in search.beams:
            if beam not in heirs:
                self._let_go(beam)
        if continuations:
            self._continue_beams(search, continuations)
        else:
            state.end_search()

    def _continue_beams(self, search: BeamSearch, continuations: list[Continuation]) -> None:
        """The best continuation of a beam stays on its sequence, further ones become forks."""
        beams: dict[Sequence, Continuation] = {}
        for continuation in continuations:
            beam = parent = continuation.parent
            if parent in beams:
                beam = self._new_sequence(parent, list(parent.token_ids), parent.index)
                self.scheduler.fork(parent, beam)
            beams[beam] = continuation
        for beam, continuation in beams.items():  # not before all forks are made
            beam.token_ids.append(continuation.token_id)
            self.scheduler.resume(beam)
        search.replace_beams([(beam, c.cumulative_logprob) for beam, c in beams.items()])

    def _new_sequence(self, parent: Sequence, token_ids: list[int], index: int) -> Sequence:
        return Sequence(
            seq_id=next(self._seq_ids),
            request=parent.request,
            token_ids=token_ids,
            index=index,
            max_num_tokens=parent.max_num_tokens,
        )

    # Endings -------------------------------------------------------------------------------

    def _end_completion(
        self, state: RequestState, completion: Completion, reason: FinishReason
    ) -> None:
        self._let_go(completion.seq)
        completion.end(state.honest(reason))

    def _end_request(self, state: RequestState, reason: FinishReason) -> None:
        for seq in state.live_sequences:
            self._let_go(seq)
        state.end(reason)

    def _let_go(self, seq: Sequence) -> None:
        self.scheduler.finish(seq)
        self.runner.release(seq)

    def _fail(self, state: RequestState, error: Exception) -> None:
        state.error = error
        self._end_request(state, FinishReason.ERROR)

    def _fail_all(
        self, failed: dict[Sequence, Exception], news: StepNews, *, anything_ran: bool
    ) -> None:
        for seq, error in failed.items():
            state = self._states[seq.request.request_id]
            news.touched[state] = None
            if state.error is None:
                self._fail(state, error)
        faults = sum(not isinstance(e, ExpertsUnavailableError) for e in failed.values())
        self._failures_in_a_row = 0 if anything_ran else self._failures_in_a_row + faults
        if self._failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            last = next(reversed(failed.values()))
            raise EngineDeadError("no request runs any more") from last

    def _forget(self, state: RequestState, now: float) -> None:
        del self._states[state.request.request_id]
        self._num_finished += 1
        if state.request.params.beam_width:  # only those of the beams that won count
            self._num_output_tokens += state.num_output_tokens
        if self._stats is not None:
            self._stats.record_finished(state.request_stats(now))

"""Runs the model over what the scheduler chose: one `SchedulerOutput` in, one `StepResult` out.

    copy blocks -> flatten -> decoder.forward -> rows that sample -> logits -> sampler

Owns the KV cache, the attention backend and the batch state. Knows nothing of queues, block
ownership, stopping or text.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from services.engine.attention import AttentionMetadata, get_backend, make_metadata
from services.engine.batch_state import BatchState
from services.engine.config import EngineConfig
from services.engine.devices import use_threads
from services.engine.kv_cache import KVCache
from services.engine.logprobs import position_logprobs
from services.engine.request import PositionLogprobs, Sequence
from services.engine.sampler import Sampler, SampleRow
from services.engine.scheduler import ScheduledSequence, SchedulerOutput
from services.engine.step_result import SampledToken, StepResult
from services.engine.weights import LoadedModel

__all__ = ["ModelRunner", "SampledToken", "StepResult"]

# Logits of prompt positions are made this many numbers at a time (64 MiB of float32): a prompt of
# thousands of tokens over a large vocabulary would otherwise need gigabytes at once.
_MAX_PROMPT_LOGITS = 1 << 24


class ModelRunner:
    """Executes steps of one model. Not thread-safe: one step at a time.

    Raises `ConfigError` naming `kv_cache_bytes`, `max_model_len` or `attention_backend` when the
    settings do not fit the model.
    """

    def __init__(self, model: LoadedModel, engine_config: EngineConfig) -> None:
        use_threads(engine_config.num_threads)
        self.max_model_len = engine_config.context_length(model.config)
        self.cache = KVCache(model.config, engine_config, model.dtype, model.device)
        self._model = model
        self._attend = get_backend(engine_config.attention_backend, model.device.type)
        self._state = BatchState(
            max_num_seqs=engine_config.max_num_seqs,
            max_blocks_per_seq=-(-self.max_model_len // engine_config.block_size),
            block_size=engine_config.block_size,
        )
        self._sampler = Sampler(model.config.vocab_size, model.config.eos_token_ids, model.device)
        self._warm_up()

    @property
    def num_blocks(self) -> int:
        return self.cache.num_blocks

    def release(self, seq: Sequence) -> None:
        """Forgets a sequence: it finished, was preempted or cancelled.

        Also to be called for a live sequence whose blocks below `num_computed_tokens` changed; it
        is taken up anew at its next step. A sequence that never ran is fine.
        """
        self._state.release(seq.seq_id)

    @torch.inference_mode()
    def execute(self, out: SchedulerOutput) -> StepResult:
        """Computes the scheduled tokens and samples for each sequence that is complete."""
        for seq in out.preempted:
            self.release(seq)
        self.cache.copy_blocks(out.block_copies)
        if not out.scheduled:
            return StepResult()
        arrays = self._state.arrays(out.scheduled)
        meta = make_metadata(
            arrays.num_computed_tokens,
            arrays.num_new_tokens,
            arrays.block_tables,
            self.cache.block_size,
            self._model.device,
        )
        token_ids = torch.from_numpy(arrays.token_ids).to(self._model.device)
        hidden = self._model.decoder(token_ids, self.cache, meta, self._attend)  # [T, hidden_size]
        result = StepResult(prompt_logprobs=self._prompt_logprobs(out.scheduled, hidden, meta))
        self._sample(out.scheduled, hidden, meta, result)
        return result

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """Computes one token into block 0, which no sequence has yet: compiles or loads kernels, so
        that a setting that cannot run fails at start and the first request does not wait."""
        one = np.ones(1, dtype=np.int64)
        meta = make_metadata(
            one - 1,
            one,
            np.zeros((1, 1), dtype=np.int32),
            self.cache.block_size,
            self._model.device,
        )
        token_ids = torch.zeros(1, dtype=torch.int64, device=self._model.device)
        hidden = self._model.decoder(token_ids, self.cache, meta, self._attend)
        self._model.decoder.compute_logits(hidden)

    def _sample(
        self,
        scheduled: list[ScheduledSequence],
        hidden: Tensor,
        meta: AttentionMetadata,
        result: StepResult,
    ) -> None:
        """Fills `result.samples`, `.fork_samples` and `.candidates`."""
        sampling = [s for s, item in enumerate(scheduled) if item.samples]
        if not sampling:
            return
        seqs = [scheduled[s].seq for s in sampling]
        if len(sampling) < meta.num_tokens:
            last_rows = meta.query_start_loc[1:][sampling] - 1
            hidden = hidden.index_select(0, last_rows)
        logits = self._model.decoder.compute_logits(hidden)  # float32 [len(seqs), vocab_size]
        rows: list[SampleRow] = []
        logits_rows: list[int] = []
        for i, seq in enumerate(seqs):
            for index in _completions(seq):
                rows.append(SampleRow(seq, index))
                logits_rows.append(i)
        if len(rows) > len(seqs):
            logits = logits.index_select(0, torch.tensor(logits_rows, device=logits.device))
        sampled = self._sampler.sample(logits, rows)
        tokens = sampled.tokens()
        row = 0
        for seq in seqs:
            count = len(_completions(seq))
            result.samples.append(tokens[row])
            if count > 1:
                result.fork_samples[seq.seq_id] = tokens[row : row + count]
            if row in sampled.candidates:
                result.candidates[seq.seq_id] = sampled.candidates[row]
            row += count

    def _prompt_logprobs(
        self, scheduled: list[ScheduledSequence], hidden: Tensor, meta: AttentionMetadata
    ) -> dict[int, list[PositionLogprobs]]:
        found: dict[int, list[PositionLogprobs]] = {}
        for s, item in enumerate(scheduled):
            seq = item.seq
            if seq.request.params.prompt_logprobs is not None and seq.num_output_tokens == 0:
                start = int(meta.query_start_loc[s])
                rows = hidden[start : start + item.num_tokens]
                found[seq.seq_id] = self._prompt_chunk(seq, rows)
        return found

    def _prompt_chunk(self, seq: Sequence, hidden: Tensor) -> list[PositionLogprobs]:
        """Row i of `hidden` [num_tokens, hidden_size] predicts prompt token first + i + 1."""
        first = seq.num_computed_tokens
        targets = seq.token_ids[first + 1 : first + 1 + len(hidden)]
        positions = [PositionLogprobs(chosen=None)] if first == 0 else []
        rows_at_once = max(1, _MAX_PROMPT_LOGITS // self._model.config.vocab_size)
        for begin in range(0, len(targets), rows_at_once):
            chosen = torch.tensor(targets[begin : begin + rows_at_once], device=hidden.device)
            logits = self._model.decoder.compute_logits(hidden[begin : begin + len(chosen)])
            count = seq.request.params.prompt_logprobs or 0
            positions += position_logprobs(logits, chosen, [count] * len(chosen))
        return positions


def _completions(seq: Sequence) -> range:
    """Indices of the completions drawn from this sequence's logits: several when it forks now."""
    num_samples = seq.request.params.num_samples
    if num_samples > 1 and seq.num_output_tokens == 0 and not seq.request.params.beam_width:
        return range(num_samples)
    return range(seq.index, seq.index + 1)

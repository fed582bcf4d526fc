"""Choosing the next token of every row of a batch, each row by its own parameters.

Knows nothing of models, caches or text. The order in which logits are processed:

    logit_bias -> allowed / banned -> min_tokens -> repetition, presence, frequency penalties
    -> temperature -> top_k -> top_p -> min_p -> typical_p -> draw

Greedy rows take the most likely token after the penalties. A stage that no row uses costs
nothing, and a stage that some rows use works on those rows alone. What a stage needs of the
parameters is prepared once per composition of the batch (`_Plan`), not once per token.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.engine.logprobs import position_logprobs, token_logprobs
from services.engine.request import PositionLogprobs, Request, SamplingParams, Sequence
from services.engine.sampler.constraints import Constraints, ending_token_ids
from services.engine.sampler.penalties import Penalties
from services.engine.sampler.randomness import stream_keys, uniforms
from services.engine.sampler.truncation import Filters, draw, kept_weights
from services.engine.step_result import SampledToken

__all__ = ["SampleResult", "SampleRow", "Sampler"]

# Below it logits differ by more than float32 can hold; by then the draw is greedy anyway.
_MIN_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row of logits to sample from: the sequence, and which completion of its request it is.

    A sequence that is about to fork gives several rows, with the completions' indices.
    """

    seq: Sequence
    sample_index: int = 0


@dataclass(slots=True)
class SampleResult:
    """What was sampled, row by row.

    `token_ids`: int64 [N]. `valid`: bool [N], see `SampledToken`. The dictionaries hold the rows
    that asked: the token's log-probability under the model's own distribution (for `logprobs`
    and for ranking `best_of`), its alternatives, and for beams at least the 2 * beam_width best
    tokens with their log-probabilities (after penalties and constraints), best first.
    """

    token_ids: NDArray[np.int64]
    valid: NDArray[np.bool_]
    logprobs: dict[int, float] = field(default_factory=dict)
    positions: dict[int, PositionLogprobs] = field(default_factory=dict)
    candidates: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def tokens(self) -> list[SampledToken]:
        """The rows as objects."""
        return [
            SampledToken(token_id, self.positions.get(i), self.logprobs.get(i), valid)
            for i, (token_id, valid) in enumerate(
                zip(self.token_ids.tolist(), self.valid.tolist(), strict=True)
            )
        ]


class Sampler:
    """Samples batches of rows; keeps what it prepared for the last composition of the batch."""

    def __init__(
        self, vocab_size: int, eos_token_ids: SequenceOf[int], device: torch.device | str = "cpu"
    ) -> None:
        self._vocab_size = vocab_size
        self._eos_token_ids = tuple(eos_token_ids)
        self._device = torch.device(device)
        self._entropy = secrets.randbits(64)  # for the requests without a seed
        self._plan: _Plan | None = None

    def sample(self, logits: Tensor, rows: list[SampleRow]) -> SampleResult:
        """Choose a token for each row.

        `logits`: float32 [N, vocab], contiguous, one row per entry of `rows`; may be overwritten.
        `seq.token_ids` of each row are the tokens that the logits follow. The token does not
        depend on the other rows, nor on earlier calls.
        """
        plan = self._plan_for(rows)
        raw = logits.index_select(0, plan.scored_rows) if plan.scored else None  # a copy
        if plan.processed:
            logits = self._process(logits, plan)
        token_ids, valid = _most_likely(logits)
        result = SampleResult(token_ids, valid)
        if plan.beams:
            _collect_candidates(result, logits, plan)
        if plan.num_sampled:  # spoils `logits`
            drawn, is_distribution = self._draw(logits, plan)
            token_ids[plan.sampled] = drawn
            valid[plan.sampled] &= is_distribution
        if raw is not None:
            _score(result, raw, plan)
        return result

    def _plan_for(self, rows: list[SampleRow]) -> _Plan:
        if self._plan is None or self._plan.rows != rows:
            seeds = [self._seed(row.seq.request) for row in rows]
            self._plan = _Plan(
                list(rows), seeds, self._vocab_size, self._eos_token_ids, self._device
            )
        return self._plan

    def _seed(self, request: Request) -> int:
        """The request's seed, or one that stays the same for the request's whole life."""
        if request.params.seed is not None:
            return request.params.seed
        return (hash((request.request_id, request.arrival_s)) ^ self._entropy) & (2**64 - 1)

    def _process(self, logits: Tensor, plan: _Plan) -> Tensor:
        if not plan.constraints.empty:
            plan.constraints.apply_(logits, plan.num_output_tokens())
        if not plan.penalties.empty:
            plan.penalties.apply_(logits)
        return logits

    def _draw(self, logits: Tensor, plan: _Plan) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Sample the rows that are not greedy: token ids [S], and which rows had a distribution."""
        if plan.num_sampled < len(plan.rows):
            logits = logits.index_select(0, plan.sampled_rows)
        scaled = logits.sub_(logits.amax(-1, keepdim=True)).div_(plan.temperature)  # [S, vocab]
        positions = plan.num_output_tokens()[plan.sampled].astype(np.uint64)
        uniform = torch.from_numpy(uniforms(plan.keys, positions)).to(self._device)
        token_ids, is_distribution = draw(kept_weights(scaled, plan.filters), uniform)
        return token_ids.numpy(force=True), is_distribution.numpy(force=True)


class _Plan:
    """Everything about a batch's rows that stays the same while its composition does."""

    def __init__(
        self,
        rows: list[SampleRow],
        seeds: list[int],
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
        device: torch.device,
    ) -> None:
        self.rows = rows
        params = [row.seq.request.params for row in rows]
        self.constraints = Constraints(params, eos_token_ids, device)
        self.penalties = Penalties([row.seq for row in rows], vocab_size, device)
        self.processed = not (self.constraints.empty and self.penalties.empty)

        sampled = [i for i, p in enumerate(params) if not p.greedy and not p.beam_width]
        self.num_sampled = len(sampled)
        self.sampled = np.array(sampled, dtype=np.int64)
        self.sampled_rows = torch.tensor(sampled, dtype=torch.int64, device=device)
        self.keys = stream_keys(
            np.array([seeds[i] for i in sampled], dtype=np.uint64),
            np.array([rows[i].sample_index for i in sampled], dtype=np.uint64),
        )
        drawn = [params[i] for i in sampled]
        temperatures = [max(p.temperature, _MIN_TEMPERATURE) for p in drawn]
        self.temperature = torch.tensor(temperatures, device=device)[:, None]  # [S, 1]
        self.filters = _filters(drawn, vocab_size, device)

        self.beams = [
            (i, _num_candidates(p, eos_token_ids)) for i, p in enumerate(params) if p.beam_width
        ]
        # best_of > n ranks completions by their log-probability, whether or not it is returned.
        scored = [i for i, p in enumerate(params) if p.logprobs is not None or p.num_samples > p.n]
        self.scored = scored
        self.scored_rows = torch.tensor(scored, dtype=torch.int64, device=device)
        self.num_logprobs = [params[i].logprobs for i in scored]

    def num_output_tokens(self) -> NDArray[np.int64]:
        """int64 [N]: output tokens of each row before this step."""
        return np.array([row.seq.num_output_tokens for row in self.rows], dtype=np.int64)


def _num_candidates(params: SamplingParams, eos_token_ids: SequenceOf[int]) -> int:
    """Best tokens that a beam needs: `beam_width` that go on, whatever of them would end it."""
    num_ending = len(ending_token_ids(params, eos_token_ids))
    return params.beam_width + max(params.beam_width, num_ending)


def _filters(params: list[SamplingParams], vocab_size: int, device: torch.device) -> Filters:
    """The columns of the filters that at least one of the rows uses."""

    def column(values: list[float], neutral: float) -> Tensor | None:
        if all(value == neutral for value in values):
            return None
        return torch.tensor(values, dtype=torch.float32, device=device)

    top_k = [min(p.top_k, vocab_size) or vocab_size for p in params]
    limited = any(k < vocab_size for k in top_k)
    return Filters(
        top_k=torch.tensor(top_k, device=device) if limited else None,
        top_p=column([p.top_p for p in params], 1.0),
        min_p=column([p.min_p for p in params], 0.0),
        typical_p=column([p.typical_p for p in params], 1.0),
    )


def _most_likely(logits: Tensor) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The first largest entry of each row, and whether it is finite (it is not if one is NaN)."""
    if logits.device.type == "cpu":  # numpy's argmax is vectorised there, torch's is not
        values = logits.numpy()
        token_ids = values.argmax(-1)
        return token_ids, np.isfinite(np.take_along_axis(values, token_ids[:, None], -1)[:, 0])
    best = logits.max(-1)
    return best.indices.numpy(force=True), best.values.isfinite().numpy(force=True)


def _score(result: SampleResult, raw: Tensor, plan: _Plan) -> None:
    """Add the log-probabilities of the rows that asked, from the logits before any processing."""
    token_ids = torch.from_numpy(result.token_ids[plan.scored]).to(raw.device)
    result.logprobs = dict(zip(plan.scored, token_logprobs(raw, token_ids).tolist(), strict=True))
    asked = [(i, n) for i, n in enumerate(plan.num_logprobs) if n is not None]
    if asked:
        rows = [i for i, _ in asked]
        positions = position_logprobs(raw[rows], token_ids[rows], [n for _, n in asked])
        result.positions = {plan.scored[i]: p for i, p in zip(rows, positions, strict=True)}


def _collect_candidates(result: SampleResult, logits: Tensor, plan: _Plan) -> None:
    """Add the most likely continuations of the rows that are beams."""
    rows = [i for i, _ in plan.beams]
    logprobs = torch.log_softmax(logits[rows], dim=-1)
    most = min(max(width for _, width in plan.beams), logits.shape[1])
    values, token_ids = torch.topk(logprobs, most, dim=-1)
    for (row, width), row_ids, row_values in zip(
        plan.beams, token_ids.tolist(), values.tolist(), strict=True
    ):
        pairs = zip(row_ids[:width], row_values[:width], strict=True)
        result.candidates[row] = [(t, lp) for t, lp in pairs if lp > float("-inf")]

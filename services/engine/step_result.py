"""What a step of the model gave: the boundary between the runner and the engine. No torch.

`ModelRunner.execute` makes one; the engine's postprocessing reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.engine.request import PositionLogprobs

__all__ = ["SampledToken", "StepResult"]


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A chosen token.

    `valid` is False where the model gave no distribution (NaN): then the token means nothing and
    the request should end as ERROR.
    """

    token_id: int
    logprob: PositionLogprobs | None = None  # where `logprobs` was asked for
    cumulative: float | None = None  # the token's log-probability, where something needs it
    valid: bool = True


@dataclass(slots=True)
class StepResult:
    """The outcome of one `SchedulerOutput`.

    samples: one per scheduled sequence that samples, in the scheduled order.
    fork_samples: by seq_id, for the first token of a request with `num_samples` > 1: one per
        completion; the first is also the sequence's entry in `samples`.
    candidates: by seq_id, for beam search: at least the 2 * beam_width best (token_id, logprob),
        best first; the first is also the sequence's entry in `samples`.
    prompt_logprobs: by seq_id, for requests that ask, while they have no output: the prompt
        positions that this step's chunk decided. A chunk [c, c + n) decides positions c + 1 to
        c + n, and position 0 when c is 0, so that the chunks of a prompt join to one entry per
        prompt token. A sequence preempted before its first token starts again from position 0.
    """

    samples: list[SampledToken] = field(default_factory=list)
    fork_samples: dict[int, list[SampledToken]] = field(default_factory=dict)
    candidates: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    prompt_logprobs: dict[int, list[PositionLogprobs]] = field(default_factory=dict)

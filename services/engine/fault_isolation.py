"""Runs a step so that a failure costs only the sequences at fault.

A batch fails as a whole, so after an exception its sequences are run again one by one. That is
safe: a run writes the same keys and values to the same slots, and sampling does not depend on the
batch or on earlier draws. Only a sequence that had a block copied starts over from its tokens,
because the copy's source may have been overwritten since.

Experts that are elsewhere and cannot be reached are no sequence's fault: whoever runs next would
wait for them in vain, so all that are left of the step fail with that error at once.
"""

from __future__ import annotations

from typing import Protocol

from services.engine.errors import ExpertsUnavailableError
from services.engine.request import Sequence
from services.engine.scheduler import ScheduledSequence, Scheduler, SchedulerOutput
from services.engine.step_result import StepResult

__all__ = ["Runner", "execute"]


class Runner(Protocol):
    """What the engine needs of a model runner."""

    @property
    def num_blocks(self) -> int: ...

    def execute(self, out: SchedulerOutput) -> StepResult: ...

    def release(self, seq: Sequence) -> None: ...


def execute(
    runner: Runner, scheduler: Scheduler, out: SchedulerOutput
) -> tuple[StepResult, dict[Sequence, Exception]]:
    """Runs `out`; returns the result, and the sequences that cannot be run with their errors.

    `out.scheduled` is left with the sequences that did run.
    """
    try:
        return runner.execute(out), {}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is given to whom it concerns
        if len(out.scheduled) == 1 or isinstance(error, ExpertsUnavailableError):
            failed = {scheduled.seq: error for scheduled in out.scheduled}
            out.scheduled.clear()
            return StepResult(), failed
    return _execute_one_by_one(runner, scheduler, out)


def _execute_one_by_one(
    runner: Runner, scheduler: Scheduler, out: SchedulerOutput
) -> tuple[StepResult, dict[Sequence, Exception]]:
    merged = StepResult()
    failed: dict[Sequence, Exception] = {}
    unavailable: ExpertsUnavailableError | None = None
    ran: list[ScheduledSequence] = []
    copies = {copy for _, copy in out.block_copies}
    for scheduled in out.scheduled:
        seq = scheduled.seq
        runner.release(seq)  # its row may be half-written
        if copies.intersection(seq.block_ids):
            scheduler.preempt(seq)
            continue
        if unavailable is not None:
            failed[seq] = unavailable
            continue
        alone = SchedulerOutput([scheduled], num_batched_tokens=scheduled.num_tokens)
        try:
            result = runner.execute(alone)
        except Exception as error:  # noqa: BLE001
            failed[seq] = error
            if isinstance(error, ExpertsUnavailableError):
                unavailable = error
            continue
        ran.append(scheduled)
        merged.samples += result.samples
        merged.fork_samples |= result.fork_samples
        merged.candidates |= result.candidates
        merged.prompt_logprobs |= result.prompt_logprobs
    out.scheduled[:] = ran
    return merged, failed

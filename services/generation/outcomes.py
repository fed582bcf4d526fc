"""What the end of a request means to its caller: an answer, or an error of the taxonomy."""

from __future__ import annotations

from collections.abc import Iterable

from services.engine.request import CompletionOutput, FinishReason
from services.runtime.errors import DeadlineExceeded, NotReady

__all__ = ["raise_failure"]


def raise_failure(completions: Iterable[CompletionOutput], error: Exception | None) -> None:
    """Raises if one of the completions ended in failure. What was streamed before stays sent.

    Time that ran out is an error whatever had been generated, so that no caller takes a cut
    answer for a whole one.
    """
    for completion in completions:
        match completion.finish_reason:
            case FinishReason.ERROR:
                raise error if error is not None else RuntimeError("the engine gave no error")
            case FinishReason.DEADLINE:
                raise DeadlineExceeded("the deadline passed before the completion was done")
            case FinishReason.CANCELLED:  # not by its client: that closes the stream
                raise NotReady("the engine is shutting down", retry_after_s=1.0)

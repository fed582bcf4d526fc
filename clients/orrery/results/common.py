"""What answers of every service have in common."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StageTiming", "Timing", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call consumed. `cached_tokens` of the prompt came from the prefix cache."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completions together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the server's time went; a stage that a service does not have is 0."""

    queue_ns: int = 0
    prefill_ns: int = 0
    decode_ns: int = 0
    retrieval_ns: int = 0
    rerank_ns: int = 0
    total_ns: int = 0


@dataclass(frozen=True, slots=True)
class StageTiming:
    """One stage of a call, in nanoseconds since the call arrived.

    `detail` says what it did, in numbers: "8 hits", "412 prompt tokens".
    """

    stage: str
    start_ns: int
    duration_ns: int
    detail: str = ""

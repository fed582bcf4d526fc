"""What the service counts and times; see README.md. Knows nothing of who exports it."""

from __future__ import annotations

from services.rag.types import Abstention, Answer
from services.runtime import common_metrics
from services.runtime.metrics import LATENCY_BUCKETS_S, MetricsRegistry

__all__ = ["RagMetrics"]

# The failures that are no fault of the asker, and leaving early.
_FAILED = ("failed_dependency_down", "failed_deadline_exceeded", "failed_internal",
           "failed_cancelled")  # fmt: skip


class RagMetrics:
    """Made once per service."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._stages = registry.histogram(
            "rag_stage_seconds", "Seconds of one stage.", LATENCY_BUCKETS_S, ("stage",)
        )
        self._questions = registry.counter(
            "rag_questions_total", "Questions that ended, by outcome.", ("outcome",)
        )
        for outcome in ("answered", *map(_abstained, Abstention), *_FAILED):
            self._questions.inc(0, outcome=outcome)  # a rate knows no first value
        self._citations = registry.counter("rag_citations_total", "Citations given.")
        self._running = registry.gauge("rag_num_running", "Questions being answered.")
        self._running.set(0)
        self._queue_usage = common_metrics.queue_usage(registry)
        self.usage(0.0)
        self._redis_available = common_metrics.redis_available(registry)
        self._redis_memory_usage = common_metrics.redis_memory_usage(registry)

    def stage(self, name: str, duration_s: float) -> None:
        """A stage ended."""
        self._stages.observe(duration_s, stage=name)

    def answered(self, answer: Answer) -> None:
        """A question got its answer, or the sentence that says there is none."""
        abstention = answer.abstention
        self._questions.inc(outcome="answered" if abstention is None else _abstained(abstention))
        if answer.citations:
            self._citations.inc(len(answer.citations))

    def failed(self, reason: str) -> None:
        """A question ended with an error, by the error's reason, or was cancelled."""
        self._questions.inc(outcome=f"failed_{reason.lower()}")

    def redis_available(self, available: bool) -> None:
        """Redis, which keeps the conversations, answered or did not."""
        self._redis_available.set(float(available))

    def redis_memory(self, share: float) -> None:
        """So much of the memory that Redis may have is in use."""
        self._redis_memory_usage.set(share)

    def running(self, count: int) -> None:
        """So many questions are being answered now."""
        self._running.set(count)

    def usage(self, share: float) -> None:
        """So much of the places for questions is taken."""
        self._queue_usage.set(share, queue="questions")


def _abstained(why: Abstention) -> str:
    return f"abstained_{why}"

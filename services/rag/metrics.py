"""What the service counts and times; see README.md. Knows nothing of who exports it."""

from __future__ import annotations

from services.rag.types import Answer
from services.runtime import common_metrics
from services.runtime.metrics import LATENCY_BUCKETS_S, MetricsRegistry

__all__ = ["RagMetrics"]


class RagMetrics:
    """Made once per service."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._stages = registry.histogram(
            "rag_stage_seconds", "Seconds of one stage.", LATENCY_BUCKETS_S, ("stage",)
        )
        self._questions = registry.counter(
            "rag_questions_total", "Questions that ended, by outcome.", ("outcome",)
        )
        self._citations = registry.counter("rag_citations_total", "Citations given.")
        self._running = registry.gauge("rag_num_running", "Questions being answered.")
        self._running.set(0)
        self._redis_available = common_metrics.redis_available(registry)

    def stage(self, name: str, duration_s: float) -> None:
        """A stage ended."""
        self._stages.observe(duration_s, stage=name)

    def answered(self, answer: Answer) -> None:
        """A question got its answer, or the sentence that says there is none."""
        outcome = "answered" if answer.abstention is None else f"abstained_{answer.abstention}"
        self._questions.inc(outcome=outcome)
        if answer.citations:
            self._citations.inc(len(answer.citations))

    def failed(self, reason: str) -> None:
        """A question ended with an error, by the error's reason, or was cancelled."""
        self._questions.inc(outcome=f"failed_{reason.lower()}")

    def redis_available(self, available: bool) -> None:
        """Redis, which keeps the conversations, answered or did not."""
        self._redis_available.set(float(available))

    def running(self, count: int) -> None:
        """So many questions are being answered now."""
        self._running.set(count)

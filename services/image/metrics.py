"""What the service tells about itself: pictures, steps, batches, how pictures end.

Knows no exporter.
"""

from __future__ import annotations

from services.image.loop.stats import EngineLoad, StepStats
from services.image.types import Times
from services.runtime import common_metrics
from services.runtime.metrics import (
    LATENCY_BUCKETS_S,
    TOKEN_LATENCY_BUCKETS_S,
    MetricsRegistry,
)

__all__ = ["ImageMetrics"]

_ENDS = ("done", "cancelled", "deadline_exceeded", "internal", "not_ready")
_BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class ImageMetrics:
    """Records for the service; for the engine, a `services.image.loop.stats.EngineObserver`."""

    def __init__(self, registry: MetricsRegistry) -> None:
        gauge, counter, histogram = registry.gauge, registry.counter, registry.histogram
        self._running = gauge("images_running", "Pictures in the batch.")
        self._waiting = gauge("images_waiting", "Pictures in line for the batch.")
        self._decoding = gauge("images_decoding", "Pictures being decoded.")
        self._queue_usage = common_metrics.queue_usage(registry)
        self._state = gauge(
            "image_state_bytes", "Latents and scheduler state of all pictures under way."
        )
        self._steps = counter("image_steps_total", "Steps done; one of one picture counts one.")
        self._step_pictures = histogram(
            "image_step_pictures", "Pictures in one call of the model.", _BATCH_BUCKETS
        )
        self._step_rows = histogram(
            "image_step_rows",
            "Rows in one call of the model; a picture with guidance has two.",
            _BATCH_BUCKETS,
        )
        self._step_time = histogram(
            "image_step_seconds",
            "Time of one call of the model and its step.",
            TOKEN_LATENCY_BUCKETS_S,
        )
        self._failed = counter("image_failed_pictures_total", "Pictures that failed in a step.")
        self._ended = counter("images_total", "Pictures that ended, by why.", ("finished_reason",))
        for reason in _ENDS:
            self._ended.inc(0, finished_reason=reason)  # a rate knows no first value
        self._orphaned = common_metrics.requests_orphaned(registry)
        self._end_to_end = common_metrics.end_to_end_time(registry)
        self._queue_time = common_metrics.queue_time(registry)
        self._decode_time = histogram(
            "image_decode_seconds", "From the last step to the pixels.", LATENCY_BUCKETS_S
        )
        self._rank_time = histogram(
            "image_rank_seconds", "Asking CLIP about the pictures of a call.", LATENCY_BUCKETS_S
        )
        self._prompt_tokens = common_metrics.prompt_tokens(registry)

    def step_finished(self, stats: StepStats) -> None:
        """One call of the model. Comes from the engine's threads."""
        self._steps.inc(stats.num_pictures)
        self._step_pictures.observe(stats.num_pictures)
        self._step_rows.observe(stats.num_rows)
        self._step_time.observe(stats.step_s)
        self._failed.inc(stats.num_failed)

    def load_changed(self, load: EngineLoad) -> None:
        """Pictures came, went, or took less or more memory."""
        self._running.set(load.num_running)
        self._waiting.set(load.num_waiting)
        self._decoding.set(load.num_decoding)
        self._state.set(load.state_bytes)
        in_line = load.num_waiting / load.max_waiting if load.max_waiting else 0.0
        self._queue_usage.set(in_line, queue="pictures")

    def accepted(self, num_prompt_tokens: int) -> None:
        """A call's pictures go to the engine."""
        self._prompt_tokens.inc(num_prompt_tokens)

    def made(self, times: Times, total_s: float) -> None:
        """A picture is a PNG."""
        self._end_to_end.observe(total_s)
        self._queue_time.observe(times.queue_s)
        self._decode_time.observe(times.decode_s)

    def ended(self, reason: str) -> None:
        """Of every picture once: "done", "cancelled" or an error's reason in small letters."""
        self._ended.inc(finished_reason=reason)
        if reason == "cancelled":
            self._orphaned.inc()

    def ranked(self, seconds: float) -> None:
        """A call's pictures were compared with its prompt."""
        self._rank_time.observe(seconds)

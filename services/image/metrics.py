"""What the service tells about itself: pictures, steps, batches, how calls end.

Knows no exporter.
"""

from __future__ import annotations

from services.image.stats import EngineLoad, StepStats
from services.image.types import Finished
from services.runtime.metrics import (
    LATENCY_BUCKETS_S,
    TOKEN_LATENCY_BUCKETS_S,
    MetricsRegistry,
)

__all__ = ["PictureMetrics", "StepMetrics"]

_BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class PictureMetrics:
    """Pictures by how they ended, and how long they took."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._ended = registry.counter(
            "images_total", "Pictures that ended, by why.", ("finished_reason",)
        )
        self._end_to_end = registry.histogram(
            "e2e_request_latency_seconds", "From arrival to the PNG.", LATENCY_BUCKETS_S
        )
        self._queue_time = registry.histogram(
            "request_queue_time_seconds", "From arrival to the first step.", LATENCY_BUCKETS_S
        )
        self._decode_time = registry.histogram(
            "image_decode_seconds", "From the last step to the pixels.", LATENCY_BUCKETS_S
        )
        self._rank_time = registry.histogram(
            "image_rank_seconds", "Asking CLIP about a call's pictures.", LATENCY_BUCKETS_S
        )
        self._prompt_tokens = registry.counter(
            "prompt_tokens_total", "Tokens of the prompts of accepted calls."
        )

    def accepted(self, num_prompt_tokens: int) -> None:
        """A call's wish was read."""
        self._prompt_tokens.inc(num_prompt_tokens)

    def made(self, picture: Finished, total_s: float) -> None:
        """A picture was made; that it ended is told besides."""
        self._end_to_end.observe(total_s)
        self._queue_time.observe(picture.queue_s)
        self._decode_time.observe(picture.decode_s)

    def ended(self, reason: str) -> None:
        """`reason` is "done", "cancelled" or the taxonomy's, in small letters."""
        self._ended.inc(finished_reason=reason)

    def ranked(self, seconds: float) -> None:
        self._rank_time.observe(seconds)


class StepMetrics:
    """A `services.image.stats.EngineObserver` over a metrics registry."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._running = registry.gauge("images_running", "Pictures in the batch.")
        self._waiting = registry.gauge("images_waiting", "Pictures in line for it.")
        self._decoding = registry.gauge("images_decoding", "Pictures being decoded.")
        self._state = registry.gauge(
            "image_state_bytes", "Latents and scheduler state held for the pictures above."
        )
        self._steps = registry.counter(
            "image_steps_total", "Steps done; one of one picture counts one."
        )
        self._pictures = registry.histogram(
            "image_step_pictures", "Pictures in one call of the model.", _BATCH_BUCKETS
        )
        self._rows = registry.histogram(
            "image_step_rows", "Rows in it; a picture with guidance has two.", _BATCH_BUCKETS
        )
        self._seconds = registry.histogram(
            "image_step_seconds", "Time of that call and its step.", TOKEN_LATENCY_BUCKETS_S
        )
        self._failed = registry.counter(
            "image_failed_pictures_total", "Pictures that failed in a step."
        )

    def step_finished(self, stats: StepStats, load: EngineLoad) -> None:
        """Called from the engine's threads."""
        self._steps.inc(stats.num_pictures)
        self._pictures.observe(stats.num_pictures)
        self._rows.observe(stats.num_rows)
        self._seconds.observe(stats.step_s)
        self._failed.inc(stats.num_failed)
        self.load_changed(load)

    def load_changed(self, load: EngineLoad) -> None:
        """Where pictures come and go without a step."""
        self._running.set(load.num_running)
        self._waiting.set(load.num_waiting)
        self._decoding.set(load.num_decoding)
        self._state.set(load.state_bytes)

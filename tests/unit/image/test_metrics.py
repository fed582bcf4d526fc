"""What the engine of pictures tells, as metrics."""

from __future__ import annotations

from services.image.loop.stats import EngineLoad, StepStats
from services.image.metrics import ImageMetrics
from services.runtime.metrics import PrometheusRegistry

LABELS = {"service": "image", "model": "m"}


def test_load_shows_pictures_their_memory_and_how_full_the_line_is() -> None:
    registry = PrometheusRegistry(LABELS)
    ImageMetrics(registry).load_changed(
        EngineLoad(
            num_running=2,
            num_waiting=6,
            max_running=2,
            max_waiting=8,
            num_decoding=1,
            num_steps_done=40,
            num_images_done=3,
            state_bytes=4096,
        )
    )
    sample = registry.collector.get_sample_value
    found = {
        name: sample(f"orrery_{name}", LABELS)
        for name in ("images_running", "images_waiting", "images_decoding", "image_state_bytes")
    }
    assert found == {
        "images_running": 2,
        "images_waiting": 6,
        "images_decoding": 1,
        "image_state_bytes": 4096,
    }
    assert sample("orrery_queue_usage_perc", {**LABELS, "queue": "pictures"}) == 0.75


def test_steps_count_pictures_rows_and_failures() -> None:
    registry = PrometheusRegistry(LABELS)
    ImageMetrics(registry).step_finished(StepStats(3, 6, 6 * 256, 0.25, num_failed=1))
    sample = registry.collector.get_sample_value
    assert sample("orrery_image_steps_total", LABELS) == 3
    assert sample("orrery_image_step_pictures_sum", LABELS) == 3
    assert sample("orrery_image_step_rows_sum", LABELS) == 6
    assert sample("orrery_image_step_seconds_sum", LABELS) == 0.25
    assert sample("orrery_image_failed_pictures_total", LABELS) == 1

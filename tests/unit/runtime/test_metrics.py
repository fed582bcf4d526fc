"""The metrics seam, the RPC metrics on it, and what this process knows of itself."""

from __future__ import annotations

import platform
from importlib.metadata import version

from orrery.v1 import rag_pb2
from services.runtime.common_metrics import announce_build
from services.runtime.metrics import PrometheusRegistry
from services.runtime.process import resident_bytes
from services.runtime.rpc_metrics import RpcMetrics

LABELS = {"service": "generation", "model": "m"}


def test_registry_puts_prefix_and_constant_labels_on_every_metric() -> None:
    registry = PrometheusRegistry(LABELS)
    registry.counter("things_total", "Things.", ("kind",)).inc(2, kind="a")
    registry.gauge("level", "A level.").set(0.5)
    registry.histogram("seconds", "Seconds.", (1.0, 2.0)).observe(1.5)
    sample = registry.collector.get_sample_value
    assert sample("orrery_things_total", {**LABELS, "kind": "a"}) == 2
    assert sample("orrery_level", LABELS) == 0.5
    assert sample("orrery_seconds_bucket", {**LABELS, "le": "1.0"}) == 0
    assert sample("orrery_seconds_bucket", {**LABELS, "le": "2.0"}) == 1


def test_counter_without_labels_is_there_before_it_counts() -> None:
    registry = PrometheusRegistry(LABELS)
    registry.counter("things_total", "Things.")
    with_labels = registry.counter("parts_total", "Parts.", ("kind",))
    sample = registry.collector.get_sample_value
    assert sample("orrery_things_total", LABELS) == 0
    assert sample("orrery_parts_total", {**LABELS, "kind": "a"}) is None
    with_labels.inc(0, kind="a")
    assert sample("orrery_parts_total", {**LABELS, "kind": "a"}) == 0


def test_build_is_announced_with_its_version() -> None:
    registry = PrometheusRegistry(LABELS)
    announce_build(registry)
    labels = {**LABELS, "version": version("orrery"), "python": platform.python_version()}
    assert registry.collector.get_sample_value("orrery_build_info", labels) == 1


def test_rpc_metrics_count_by_method_and_status() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = RpcMetrics(registry)
    metrics.observe("Score", "OK", 0.02)
    metrics.observe("Score", "OK", 0.02)
    metrics.observe("Score", "CANCELLED", 0.02)
    sample = registry.collector.get_sample_value
    labels = {**LABELS, "method": "Score"}
    assert sample("orrery_rpc_requests_total", {**labels, "status": "OK"}) == 2
    assert sample("orrery_rpc_requests_total", {**labels, "status": "CANCELLED"}) == 1
    assert sample("orrery_rpc_duration_seconds_count", labels) == 3


def test_rpcs_of_a_service_are_told_of_before_the_first() -> None:
    registry = PrometheusRegistry(LABELS)
    RpcMetrics(registry, (rag_pb2.DESCRIPTOR.services_by_name["RagService"].full_name,))
    sample = registry.collector.get_sample_value
    for status in ("OK", "INTERNAL", "UNAVAILABLE"):
        labels = {**LABELS, "method": "Ask", "status": status}
        assert sample("orrery_rpc_requests_total", labels) == 0


def test_resident_bytes_grows_with_what_the_process_holds() -> None:
    before = resident_bytes()
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])  # touch every page
    assert resident_bytes() - before > 48 << 20

"""Spans to an OTLP endpoint. Imported only where one is set: otherwise it would cost its import.

A span says which call, of whom by its request id, how long and how it ended; never a prompt, a
document or a key.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.runtime.tracing import TRACEPARENT, Span, well_formed

__all__ = ["OtlpTracer"]

_PROPAGATOR = TraceContextTextMapPropagator()


class OtlpTracer:
    """Sends by HTTP, in batches and from a thread of its own.

    `sample_ratio` is the share of the traces that begin here; of one that began elsewhere its
    flags decide. What the endpoint does not take in time is dropped, not waited for.
    """

    def __init__(self, endpoint: str, sample_ratio: float, service: str) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service, "service.namespace": "orrery"}),
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("orrery")

    def start(self, name: str, traceparent: str | None, attributes: Mapping[str, str]) -> Span:
        parent = well_formed(traceparent)
        carrier = {} if parent is None else {TRACEPARENT: parent}
        context = _PROPAGATOR.extract(carrier, Context())  # not the current one: what came counts
        span = self._tracer.start_span(name, context, SpanKind.SERVER, dict(attributes))
        return _OtlpSpan(span)

    def close(self) -> None:
        """Sends what waits, and ends the thread."""
        self._provider.shutdown()


class _OtlpSpan:
    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, status: str, *, failed: bool, name: str | None = None) -> None:
        if name is not None:
            self._span.update_name(name)
        self._span.set_attribute("orrery.status", status)
        if failed:
            self._span.set_status(Status(StatusCode.ERROR, status))
        self._span.end()

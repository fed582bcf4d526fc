"""A collector of traces: takes in OTLP over HTTP as a real one does, and keeps the spans."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span


class Collector:
    """Where it listens, and what has come."""

    def __init__(self, endpoint: str, received: list[ResourceSpans]) -> None:
        self.endpoint = endpoint
        self._received = received

    def spans(self, service: str) -> list[Span]:
        """Those of a service, in the order in which they ended."""
        return [
            span
            for group in list(self._received)
            if _text(group.resource.attributes, "service.name") == service
            for scope in group.scope_spans
            for span in scope.spans
        ]


def attributes(span: Span) -> dict[str, str]:
    """Its attributes, as texts."""
    return {each.key: each.value.string_value for each in span.attributes}


def _text(pairs: Iterable[KeyValue], key: str) -> str:
    return next((each.value.string_value for each in pairs if each.key == key), "")


@contextmanager
def otlp_collector() -> Iterator[Collector]:
    """Listens on a free loopback port."""
    received: list[ResourceSpans] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is the library's
            body = self.rfile.read(int(self.headers["content-length"]))
            received.extend(ExportTraceServiceRequest.FromString(body).resource_spans)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            del args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="otlp-collector")
    thread.start()
    try:
        yield Collector(f"http://127.0.0.1:{server.server_port}/v1/traces", received)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

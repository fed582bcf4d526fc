"""One trace from the caller's own span over the gateway to the service, at a real OTLP receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from services.gateway.api import create_api
from services.gateway.config import GatewayConfig
from services.runtime.auth import Authenticator
from services.runtime.otlp import OtlpTracer
from services.runtime.peer import Peer
from services.runtime.tracing import PASSING, Tracer
from tests.fakes.generation_server import MODEL_NAME, generation_server
from tests.fakes.otlp_collector import Collector, attributes, otlp_collector

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
COMPLETION = {"model": MODEL_NAME, "prompt": "a secret prompt", "max_tokens": 3}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector() as running:
        yield running


@asynccontextmanager
async def traced(gateway: Tracer, generation: Tracer) -> AsyncIterator[httpx.AsyncClient]:
    config = GatewayConfig(applications=(MODEL_NAME,))
    async with generation_server(tracer=generation, api_keys=("k1",)) as services:
        upstream = Peer(services.target, num_channels=1, max_retries=0)
        api = create_api(config, upstream, Authenticator(("k1",)), tracer=gateway)
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://gateway",
            headers={"authorization": "Bearer k1"},
        ) as client:
            yield client
        await upstream.close()


def of_method(spans: list[Span], method: str) -> Span:
    (found,) = [span for span in spans if span.name == method]
    return found


async def test_spans_of_gateway_and_service_are_in_the_callers_trace(collector: Collector) -> None:
    tracers = [OtlpTracer(collector.endpoint, 1.0, name) for name in ("gateway", "generation")]
    async with traced(*tracers) as client:
        headers = {**HEADER, "x-request-id": "mine-1"}
        answer = await client.post("/v1/completions", json=COMPLETION, headers=headers)
        assert answer.status_code == 200
        refused = {**COMPLETION, "max_tokens": -1}
        assert (await client.post("/v1/completions", json=refused)).status_code == 400
        assert (await client.get("/health")).status_code == 200
    for tracer in tracers:
        tracer.close()
    asked, bad = collector.spans("gateway")  # probes have no spans
    assert asked.name == bad.name == "POST /v1/completions"
    assert (asked.trace_id.hex(), asked.parent_span_id.hex()) == (TRACE, PARENT)
    assert bad.trace_id != asked.trace_id
    assert bad.status.code == Status.STATUS_CODE_UNSET  # its client's fault
    assert attributes(asked)["orrery.status"] == "200"
    assert attributes(asked)["request_id"] == "mine-1"

    generated = of_method(collector.spans("generation"), "GenerateBatch")
    assert generated.trace_id == asked.trace_id
    assert generated.parent_span_id == asked.span_id
    assert attributes(generated)["orrery.status"] == "OK"
    assert attributes(generated)["request_id"].startswith("mine-1")
    assert asked.start_time_unix_nano <= generated.start_time_unix_nano
    assert generated.end_time_unix_nano <= asked.end_time_unix_nano
    told = str([*collector.spans("gateway"), *collector.spans("generation")])
    assert "secret" not in told
    assert "k1" not in told


async def test_a_gateway_that_traces_nothing_passes_the_trace_on(collector: Collector) -> None:
    tracer = OtlpTracer(collector.endpoint, 1.0, "generation")
    async with traced(PASSING, tracer) as client:
        await client.post("/v1/completions", json=COMPLETION, headers=HEADER)
        malformed = {"traceparent": f"00-{TRACE}-0000000000000000-01"}
        await client.post("/v1/completions", json=COMPLETION, headers=malformed)
    tracer.close()
    first, second = (s for s in collector.spans("generation") if s.name == "GenerateBatch")
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, PARENT)
    assert second.trace_id.hex() != TRACE
    assert not second.parent_span_id


async def test_what_is_not_sampled_is_not_sent(collector: Collector) -> None:
    tracers = [OtlpTracer(collector.endpoint, 0.0, name) for name in ("gateway", "generation")]
    async with traced(*tracers) as client:
        await client.post("/v1/completions", json=COMPLETION)
        await client.post("/v1/completions", json=COMPLETION, headers=HEADER)  # sampled elsewhere
    for tracer in tracers:
        tracer.close()
    assert [span.trace_id.hex() for span in collector.spans("gateway")] == [TRACE]
    assert {span.trace_id.hex() for span in collector.spans("generation")} == {TRACE}

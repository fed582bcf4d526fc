"""Each end of a request is one kind of outcome."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from orrery import ConnectionLostError, InvalidRequestError, OverloadedError, RateLimitedError
from orrery.load.outcomes import OK, REFUSED, Heard, HttpFailure, Sent, outcome_of

NOW = time.perf_counter()
REQUEST = Sent("generation", "grpc", run_began=NOW - 2.0, planned=NOW - 1.0, sent=NOW - 0.75)


@pytest.mark.parametrize(
    ("error", "status", "retry_after_s"),
    [
        (None, OK, None),
        (OverloadedError("full", retry_after_s=2.0), REFUSED, 2.0),
        (RateLimitedError("too many"), REFUSED, None),
        (HttpFailure(429, "SERVER_OVERLOADED", 3.0), REFUSED, 3.0),
        (HttpFailure(200, "SERVER_OVERLOADED", None), REFUSED, None),  # as the first event
        (HttpFailure(503, "NOT_READY", 1.0), "NOT_READY", 1.0),
        (HttpFailure(502, "", None), "HTTP_502", None),
        (HttpFailure(200, "STREAM_CUT_SHORT", None), "STREAM_CUT_SHORT", None),
        (ConnectionLostError("gone"), "CONNECTION_LOST", None),
        (InvalidRequestError("no"), "INVALID_REQUEST", None),
        (httpx.ReadError("reset"), "CLIENT_ReadError", None),
        (asyncio.CancelledError(), "UNFINISHED", None),
    ],
)
def test_an_end_is_classified(
    error: BaseException | None, status: str, retry_after_s: float | None
) -> None:
    outcome = outcome_of(REQUEST, Heard(), error)
    assert (outcome.status, outcome.retry_after_s) == (status, retry_after_s)


@pytest.mark.parametrize("error", [OverloadedError("full"), HttpFailure(429, "", 1.0)])
def test_a_refusal_after_the_first_text_is_no_refusal(error: Exception) -> None:
    heard = Heard()
    heard.text("a")
    assert outcome_of(REQUEST, heard, error).status == "REFUSED_MIDWAY"


def test_times_count_from_the_planned_arrival() -> None:
    heard = Heard([NOW, NOW + 0.5, NOW + 0.75], num_tokens=3)
    outcome = outcome_of(REQUEST, heard, None)
    assert outcome.planned_s == pytest.approx(1.0)
    assert outcome.lateness_s == pytest.approx(0.25)
    assert outcome.first_s == pytest.approx(1.0)
    assert outcome.gaps_s == pytest.approx((0.5, 0.25))
    assert outcome.total_s >= 1.0
    assert outcome.num_tokens == 3

"""When a call is tried again and after how long: pure decisions, no clock but the test's."""

from __future__ import annotations

import math

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orrery
from orrery import errors
from orrery.methods import GET_LOAD
from orrery.retry import Deadline, RetryPolicy
from orrery.steps import CallContext, Pause, Send, send_with_retries
from orrery.v1 import generation_pb2 as pb


def longest(low: float, high: float) -> float:
    """The worst draw of the jitter."""
    del low
    return high


def policy(max_retries: int = 4) -> RetryPolicy:
    return RetryPolicy(max_retries=max_retries, uniform=longest)


def test_backoff_doubles_up_to_its_ceiling() -> None:
    error = orrery.UnavailableError("x")
    delays = [policy(8).delay_s(error, retries=k, said_by_server=False) for k in range(9)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, None]


@settings(deadline=None)
@given(st.integers(0, 7))
def test_jitter_stays_within_the_backoff(retries: int) -> None:
    delay = RetryPolicy(max_retries=8).delay_s(
        orrery.UnavailableError("x"), retries=retries, said_by_server=False
    )
    assert delay is not None
    assert 0 <= delay <= min(5.0, 0.2 * 2**retries)


@pytest.mark.parametrize(
    "kind", sorted(errors.ERRORS_BY_REASON.values(), key=lambda kind: kind.__name__)
)
def test_only_unavailable_and_overloaded_are_repeated_when_a_service_says_so(
    kind: type[orrery.OrreryError],
) -> None:
    delay = policy().delay_s(kind("x"), retries=0, said_by_server=True)
    repeated = issubclass(kind, orrery.UnavailableError | orrery.OverloadedError)
    assert (delay is not None) is repeated


def test_what_may_have_been_done_is_repeated_only_if_that_does_no_harm() -> None:
    harmful = RetryPolicy(max_retries=4, uniform=longest, idempotent=False)
    lost, nobody = orrery.ConnectionLostError("x"), orrery.UnavailableError("x")
    assert policy().delay_s(lost, retries=0, said_by_server=False) is not None
    assert harmful.delay_s(lost, retries=0, said_by_server=False) is None
    assert harmful.delay_s(nobody, retries=0, said_by_server=False) is not None


def test_retry_after_is_the_least_wait() -> None:
    error = orrery.OverloadedError("x", retry_after_s=3.0)
    assert policy().delay_s(error, retries=0, said_by_server=True) == pytest.approx(3.2)


@pytest.mark.parametrize("retry_after_s", [61.0, math.inf])
def test_retry_after_of_minutes_is_left_to_the_caller(retry_after_s: float) -> None:
    error = orrery.RateLimitedError("x", retry_after_s=retry_after_s)
    assert policy().delay_s(error, retries=0, said_by_server=True) is None


def test_unknown_application_is_tried_twice_quickly() -> None:
    error = orrery.ModelNotFoundError("x")
    delays = [policy().delay_s(error, retries=k, said_by_server=False) for k in range(3)]
    assert delays == [0.1, 0.1, None]


def test_deadline_counts_down_and_stops_at_zero() -> None:
    now = 100.0
    deadline = Deadline(2.0, clock=lambda: now)
    assert deadline.remaining_s() == 2.0
    now = 101.5
    assert deadline.grpc_timeout() == 0.5
    assert deadline.grpc_timeout(at_most_s=0.25) == 0.25
    now = 103.0
    assert deadline.remaining_s() == 0.0
    assert Deadline(math.inf).grpc_timeout() is None


class Refusal(grpc.RpcError):
    """UNAVAILABLE, without a reason."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "refused"

    def trailing_metadata(self) -> tuple[()]:
        return ()


def test_steps_send_pause_and_send_again_until_the_deadline_leaves_no_room() -> None:
    now = 0.0
    context = CallContext("id", Deadline(1.0, clock=lambda: now), "key", policy(9))
    steps = send_with_retries(context, GET_LOAD, pb.GetLoadRequest(), application="llama")
    taken = []
    for _ in range(2):
        taken.append(next(steps))
        pause = steps.throw(Refusal())
        assert isinstance(pause, Pause)
        now += pause.seconds
        taken.append(pause)
    taken.append(next(steps))
    with pytest.raises(orrery.UnavailableError, match="refused"):
        steps.throw(Refusal())
    assert [step.seconds for step in taken if isinstance(step, Pause)] == [0.2, 0.4]
    sends = [step for step in taken if isinstance(step, Send)]
    assert [send.timeout_s for send in sends] == pytest.approx([1.0, 0.8, 0.4])
    assert sends[-1].metadata == (
        ("x-request-id", "id"),
        ("application", "llama"),
        ("x-timeout-ms", "400"),
        ("authorization", "Bearer key"),
    )


def test_call_whose_time_is_up_is_not_sent() -> None:
    context = CallContext("id", Deadline(0.0, clock=lambda: 0.0), None, policy())
    steps = send_with_retries(context, GET_LOAD, pb.GetLoadRequest(), application="")
    with pytest.raises(orrery.DeadlineExceededError):
        next(steps)

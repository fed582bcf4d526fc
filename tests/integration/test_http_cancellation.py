"""HTTP clients that go away at random points leave nothing behind in the engine."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from tests.integration.conftest import HttpApi

CHAT = "/v1/chat/completions"
NUM_CLIENTS = 200
NUM_AT_ONCE = 6


def body(http_api: HttpApi, **changes: Any) -> dict[str, Any]:
    return {
        "model": http_api.model,
        "messages": [{"role": "user", "content": "Tell me about the lamp."}],
        "max_tokens": 400,
        "ignore_eos": True,
        **changes,
    }


@pytest.fixture
def client(http_api: HttpApi) -> Iterator[httpx.Client]:
    """One for all threads. Leaving a stream before its end closes that stream's connection."""
    with httpx.Client(base_url=http_api.url, trust_env=False, timeout=60) as client:
        yield client


def read_events(client: httpx.Client, request: dict[str, Any], count: int) -> int:
    """Reads so many events of an answer that would have more, and leaves. Returns how many."""
    while True:
        with client.stream("POST", CHAT, json=request | {"stream": True}) as response:
            if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                time.sleep(0.05)  # those who left a moment ago still hold their places
                continue
            assert response.status_code == HTTPStatus.OK, response.read()
            lines = response.iter_lines()
            for _ in range(2 * count):  # an event is a line of data and an empty one
                next(lines)
            return count


def give_up_waiting(client: httpx.Client, request: dict[str, Any], timeout_s: float) -> bool:
    """Waits for a whole answer no longer than that. Returns whether it left without one."""
    try:
        client.post(CHAT, json=request, timeout=timeout_s)
    except httpx.TimeoutException:
        return True
    return False


def becomes_idle(http_api: HttpApi, limit_s: float = 10.0) -> bool:
    deadline = time.monotonic() + limit_s
    while not http_api.is_idle():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_streams_cut_at_random_points_leave_the_engine_idle(
    http_api: HttpApi, client: httpx.Client
) -> None:
    chooser = random.Random(20)
    counts = [chooser.randrange(0, 30) for _ in range(NUM_CLIENTS)]

    def cut(number: int) -> int:
        return read_events(client, body(http_api, n=1 + number % 3), counts[number])

    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        read = list(pool.map(cut, range(NUM_CLIENTS)))
    assert read == counts
    assert becomes_idle(http_api)


def test_waiting_clients_that_give_up_leave_the_engine_idle(
    http_api: HttpApi, client: httpx.Client
) -> None:
    chooser = random.Random(21)
    waits_s = [chooser.uniform(0.01, 0.15) for _ in range(40)]
    request = body(http_api, n=4)
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        left = list(pool.map(lambda wait_s: give_up_waiting(client, request, wait_s), waits_s))
    assert any(left)
    assert becomes_idle(http_api)


def test_the_gateway_answers_after_many_have_left(http_api: HttpApi, client: httpx.Client) -> None:
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        list(pool.map(lambda _: read_events(client, body(http_api), 1), range(32)))
    answer = client.post(CHAT, json=body(http_api, max_tokens=3))
    assert answer.json()["usage"]["completion_tokens"] == 3

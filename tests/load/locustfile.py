"""The same requests from Locust's users, for its web page, its ramps and its statistics.

    locust -f tests/load/locustfile.py GrpcUser --workload mixed
    locust -f tests/load/locustfile.py HttpUser --workload chat --headless -u 20 -r 5 -t 60s

A user asks again when it was answered: a closed loop. At the end the report of all outcomes is
written, as of every other run; the processes of a distributed run each write one of their own.

Locust runs on gevent, under which asyncio's gRPC cannot: here the blocking clients are used, gRPC's
made to yield to gevent before its first channel.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import gevent
import grpc.experimental.gevent as grpc_gevent
from locust import User, constant, events, task
from locust.env import Environment
from rich.console import Console

from deploy.demo_data import running_platform
from orrery.cli.load_tables import print_runs
from orrery.load import over_grpc, over_http
from orrery.load.asks import WORKLOADS, Ask, draw_ask
from orrery.load.outcomes import OK, Heard, Outcome, Sent, outcome_of
from orrery.load.report import Run, report_of, write_report
from orrery.load.summary import Objective
from orrery.load.transports import Target
from tests.load.session import Served, look_up, new_folder, target_of

grpc_gevent.init_gevent()

_DRAIN_S = 60.0  # at the end, what is under way may take so long, unless --stop-timeout says less

_console = Console(stderr=True)


class _Asking:
    """What all users of one run share: the platform, what it serves, and the outcomes."""

    def __init__(self, target: Target, served: Served, workload: str) -> None:
        self.target = target
        self.began = time.perf_counter()
        self.outcomes: list[Outcome] = []
        self._served = served
        self._workload = workload
        self._rng = random.Random()

    def draw(self) -> tuple[str, Ask]:
        return draw_ask(self._workload, self._served.subject, self._rng)


@events.init_command_line_parser.add_listener
def _add_options(parser: Any) -> None:
    parser.add_argument("--workload", choices=WORKLOADS, default="generation")
    parser.add_argument("--model", default="orrery-llama")


@events.init.add_listener
def _tell_gevent_the_time(**_: Any) -> None:
    """Its clock stood still while all this was imported: a run of seconds would end at once."""
    gevent.get_hub().loop.update_now()


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    running = running_platform(_console)
    if running is None:
        environment.process_exit_code = 1
        environment.runner.quit()
        return
    environment.stop_timeout = environment.stop_timeout or _DRAIN_S
    options = environment.parsed_options
    served = look_up(running, options.model, options.workload)
    environment.asking = _Asking(target_of(running), served, options.workload)


@events.test_stop.add_listener
def _stop(environment: Environment, **_: Any) -> None:
    asking = getattr(environment, "asking", None)
    if asking is None or not asking.outcomes:
        return
    lasted_s = time.perf_counter() - asking.began
    run = Run("locust", lasted_s, tuple(asking.outcomes))
    folder = new_folder("locust")
    print_runs(_console, [run], Objective())
    write_report(folder, [run], report_of([run], Objective()))
    _console.print(f"kept in {folder}")


def _ask(environment: Environment, transport: str, hear: Callable[[Ask, Heard], None]) -> None:
    """One request, told to Locust and kept for the report."""
    asking: _Asking = environment.asking
    kind, ask = asking.draw()
    heard, error = Heard(), None
    now = time.perf_counter()
    try:
        hear(ask, heard)
    except Exception as failure:  # noqa: BLE001 - it is the outcome
        error = failure
    outcome = outcome_of(Sent(kind, transport, asking.began, now, now), heard, error)
    asking.outcomes.append(outcome)
    environment.events.request.fire(
        request_type=transport,
        name=kind,
        response_time=1e3 * outcome.total_s,
        response_length=outcome.num_tokens,
        exception=None if outcome.status == OK else RuntimeError(outcome.status),
        context={},
    )


class GrpcUser(User):
    """Asks by the `orrery` client."""

    wait_time = constant(0)

    def on_start(self) -> None:
        target = self.environment.asking.target
        self.client = over_grpc.blocking_client(target.grpc, target.api_key, target.timeout_s)

    @task
    def ask(self) -> None:
        _ask(
            self.environment,
            "grpc",
            lambda ask, heard: over_grpc.hear_blocking(self.client, ask, heard),
        )

    def on_stop(self) -> None:
        self.client.close()


class HttpUser(User):
    """Asks the gateway."""

    wait_time = constant(0)

    def on_start(self) -> None:
        target = self.environment.asking.target
        self.client = over_http.blocking_client(target.http_url, target.api_key, target.timeout_s)

    @task
    def ask(self) -> None:
        _ask(
            self.environment,
            "http",
            lambda ask, heard: over_http.hear_blocking(self.client, ask, heard),
        )

    def on_stop(self) -> None:
        self.client.close()

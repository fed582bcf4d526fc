"""`orrery top`: what every service does, again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from orrery.cli.activity import Activity, ActivityMeter
from orrery.cli.services import (
    OTHER,
    READY,
    Service,
    ServiceLoad,
    ShardLoad,
    ask_loads,
    find_services,
)
from orrery.cli.session import (
    EXIT_UNAVAILABLE,
    JsonOption,
    TargetOption,
    TimeoutOption,
    connect,
    describe,
    find_platform,
    write_json,
)
from orrery.cli.top_frame import Frame, Row, draw_frame
from orrery.client import Client
from orrery.errors import OrreryError
from orrery.results import EmbeddingLoad, ExpertLoad, RagLoad, RetrievalLoad

__all__ = ["top"]

# Services are looked for anew this often; what they do is asked in every frame.
_LOOK_AGAIN_S = 10.0
_FORGET_REPLICA_AFTER_S = 10.0
_FORGET_REPLICA_AFTER_FRAMES = 5


def top(
    once: Annotated[
        bool, typer.Option("--once", help="Watch for one interval, print one frame and leave.")
    ] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", "-n", metavar="SECONDS", min=0.1, max=3600.0)
    ] = 2.0,
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 5.0,
    target: TargetOption = None,
) -> None:
    """Watch what every service does: requests, tokens, queues, caches, experts. Ctrl-C leaves.

    Rates are those since the frame before. On a terminal the view stays in place; elsewhere
    every frame is printed below the last, and with --json each is one line.
    """
    console = Console()
    target, _ = find_platform(target)
    with connect(target, timeout_s, max_retries=0) as client:
        frames = _frames(client, interval_s)
        try:
            if not (once or as_json) and _can_redraw(console):
                _show_live(console, frames, interval_s)
                return
            with_rates = islice(frames, 1, 2 if once else None)
            for frame in with_rates:
                _write(console, frame, as_json=as_json)
        except KeyboardInterrupt:
            return  # that is how one leaves it
    if frame.problem or any(row.state not in (READY, OTHER) for row in frame.services):
        raise typer.Exit(EXIT_UNAVAILABLE)


def _frames(client: Client, interval_s: float) -> Iterator[Frame]:
    """A frame now, without rates, and one after each interval.

    Raises:
        OrreryError: The platform did not answer at the beginning; later a frame says so.
    """
    watch = _Watch(client, interval_s)
    due_s = time.monotonic()
    while True:
        yield watch.look()
        due_s = max(due_s + interval_s, time.monotonic())
        time.sleep(max(0.0, due_s - time.monotonic()))


class _Watch:
    """Looks at the platform, and remembers what rates are made from."""

    def __init__(self, client: Client, interval_s: float) -> None:
        self._client = client
        self._services = find_services(client)
        self._found_s = time.monotonic()
        self._meter = ActivityMeter(
            max(_FORGET_REPLICA_AFTER_S, _FORGET_REPLICA_AFTER_FRAMES * interval_s)
        )

    def look(self) -> Frame:
        """How the platform is now."""
        problem = None
        try:
            if time.monotonic() - self._found_s > _LOOK_AGAIN_S:
                self._services = find_services(self._client)
                self._found_s = time.monotonic()
            loads = ask_loads(self._client, self._services)
        except OrreryError as error:
            problem, loads = describe(error), []
        rows = [self._row(*each) for each in zip(self._services, loads, strict=False)]
        return Frame(datetime.now(UTC), self._client.settings.target, problem, tuple(rows))

    def _row(self, service: Service, told: ServiceLoad) -> Row:
        activity = None
        if told.load is not None:
            activity = self._meter.add(service.application, told.load, time.monotonic())
        return Row(service.application, service.model, told.state, activity, _note(told))


def _can_redraw(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


def _show_live(console: Console, frames: Iterator[Frame], interval_s: float) -> None:
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for frame in frames:
            live.update(draw_frame(frame, f"every {interval_s:g} s, Ctrl-C leaves"), refresh=True)


def _write(console: Console, frame: Frame, *, as_json: bool) -> None:
    if as_json:
        services = [_flat(row) for row in frame.services]
        write_json({**asdict(frame), "services": services}, indent=None)
    else:
        console.print(draw_frame(frame, ""))


def _flat(row: Row) -> Mapping[str, object]:
    """A row as JSON: its activity beside its name; all null where there is none."""
    row_fields = asdict(row)
    activity = row_fields.pop("activity") or dict.fromkeys(each.name for each in fields(Activity))
    return {**row_fields, **activity}


def _note(told: ServiceLoad) -> str:
    """What else is worth a glance; before all, why it is not ready."""
    if told.reason is not None:
        return told.reason
    match told.load:
        case EmbeddingLoad(cache_available=False):
            return "no cache: its store is away"
        case RagLoad(num_running_by_stage=stages):
            return ", ".join(f"{count} in {stage}" for stage, count in sorted(stages.items()))
        case RetrievalLoad() as load:
            if not load.log_available:
                return "no writes: its log is away"
            behind = "" if load.applied_position == load.log_position else ", behind its log"
            return f"{load.num_documents} documents{behind}"
        case ShardLoad(num_experts=count):
            return f"{count} experts"
    return _unevenness(told.experts)


def _unevenness(experts: ExpertLoad | None) -> str:
    layers = experts.layers if experts else ()
    if not any(any(layer.num_tokens) for layer in layers):
        return ""
    worst = max(layers, key=lambda layer: layer.max_over_mean)
    return f"busiest expert {worst.max_over_mean:.2f}x the mean, in layer {worst.layer}"

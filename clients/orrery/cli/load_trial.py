"""A load test from the command line: the platform is found, asked, and what came of it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import typer
from rich.console import Console

from orrery.cli.load_tables import print_runs
from orrery.cli.session import EXIT_FAILED, EXIT_USAGE, fail, find_platform, write_json
from orrery.cli.versions import client_version
from orrery.client import Client
from orrery.load.arrivals import Arrival
from orrery.load.asks import Ask, Size, Subject, Workload, draw_ask
from orrery.load.driver import open_loop
from orrery.load.outcomes import Outcome
from orrery.load.report import Run, report_of, write_report
from orrery.load.summary import Objective
from orrery.load.transports import TRANSPORTS, Target, TransportName, connected
from orrery.plots.files import check_matplotlib
from orrery.settings import DEFAULT_TARGET

__all__ = ["Offer", "Reached", "Reporting", "check_picture", "reach", "try_out"]

_FOLDER = Path("orrery-load")


@dataclass(frozen=True, slots=True)
class Reached:
    """Where the platform listens, as far as it is known, and over what it is asked."""

    grpc: str
    http_url: str | None
    over: tuple[TransportName, ...]


@dataclass(frozen=True, slots=True)
class Reporting:
    """What is reported of a test, and where it goes."""

    command: str
    objective: Objective
    out: Path | None
    picture: bool
    as_json: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """What is asked for, and when."""

    workload: Workload
    subject: Subject
    arrivals: Sequence[Arrival]
    duration_s: float
    seed: int


def reach(target: str | None, http: str | None, over: TransportName | None) -> Reached:
    """The addresses that are asked for, or those of the platform that was started here."""
    found, state = find_platform(target)
    grpc = found or DEFAULT_TARGET
    if http is not None and not http.startswith(("http://", "https://")):
        raise typer.BadParameter(
            f"expected http://HOST:PORT or https://..., got {http}", param_hint="--http"
        )
    if over == "grpc" and http is not None:
        raise typer.BadParameter("--over leaves HTTP out", param_hint="--http")
    if http is None and state is not None and state.grpc == grpc:
        http = f"http://{state.http}"
    if over == "http" and http is None:
        raise typer.BadParameter("the gateway's address is not known: --http", param_hint="--over")
    known = tuple(name for name in TRANSPORTS if name != "http" or http is not None)
    return Reached(grpc, http, (over,) if over else known)


def check_picture(reporting: Reporting) -> None:
    """Raises `InvalidRequestError` where a picture is wanted and could not be drawn."""
    if reporting.picture:
        check_matplotlib("--picture", "--no-picture")


def try_out(client: Client, reached: Reached, offer: Offer, reporting: Reporting) -> None:
    """Offers the load, shows and keeps what came of it."""
    if not offer.arrivals:
        fail("no request comes within that time: raise --rate or --duration", EXIT_USAGE)
    folder = _made_folder(reporting)
    settings = client.settings
    target = Target(reached.grpc, reached.http_url, settings.api_key, settings.timeout_s)
    told = f"{len(offer.arrivals)} requests within {offer.duration_s:.0f} s"
    with Console(stderr=True, quiet=reporting.as_json).status(told):
        outcomes = asyncio.run(_offered(target, reached.over, offer))
    run = Run(reporting.command, offer.duration_s, tuple(outcomes))
    report = report_of(
        [run], reporting.objective, client=client_version(), **_facts(reached, offer)
    )
    if reporting.as_json:
        write_json(report)
    else:
        print_runs(Console(), [run], reporting.objective)
    try:
        write_report(folder, [run], report, picture=reporting.picture)
    except OSError as error:
        fail(f"{folder}: {error.strerror or error}", EXIT_FAILED)
    if not reporting.as_json:
        typer.echo(f"kept in {folder}")
    if not run.summary(reporting.objective).num_ok:
        fail(f"not one of {len(outcomes)} requests was answered", EXIT_FAILED)


async def _offered(target: Target, over: Sequence[TransportName], offer: Offer) -> list[Outcome]:
    rng = Random(offer.seed)  # noqa: S311 - no secret

    def draw(size: Size | None) -> tuple[str, Ask]:
        return draw_ask(offer.workload, offer.subject, rng, size)

    async with connected(target, over) as transports:
        return await open_loop(offer.arrivals, draw, transports, drain_s=target.timeout_s)


def _facts(reached: Reached, offer: Offer) -> dict[str, Any]:
    """What was asked of whom, for the report that is kept."""
    subject = offer.subject
    return {
        "grpc": reached.grpc,
        "http": reached.http_url,
        "over": reached.over,
        "workload": offer.workload,
        "mixture": subject.mixture if offer.workload == "mixed" else None,
        "model": subject.model or None,
        "seed": offer.seed,
    }


def _made_folder(reporting: Reporting) -> Path:
    named = _FOLDER / f"{reporting.command}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = reporting.out or named
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"--out: {folder}: {error.strerror or error}", EXIT_USAGE)
    return folder

"""`orrery status`: what runs, how busy it is, and what memory it holds."""

from __future__ import annotations

from dataclasses import dataclass

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orrery.cli.processes import PlatformProcess, platform_processes
from orrery.cli.service_loads import LOAD_HEADINGS, load_cells, load_details
from orrery.cli.services import (
    OTHER,
    READY,
    AnyLoad,
    Service,
    ServiceLoad,
    ask_loads,
    find_services,
)
from orrery.cli.session import (
    EXIT_UNAVAILABLE,
    JsonOption,
    TargetOption,
    TimeoutOption,
    connect,
    find_platform,
    write_json,
)
from orrery.cli.tables import new_table
from orrery.cli.versions import CONTRACT, client_version
from orrery.client import Client
from orrery.settings import data_dir

__all__ = ["status"]

_MIB = 1 << 20
_REPLICA_TITLE = "ray::ServeReplica:"
_NUM_HASH_DIGITS = 8  # enough to tell weights apart; the JSON has all


@dataclass(frozen=True, slots=True)
class _Service:
    """One application. `load` is that of one of its replicas; `replicas` counts this machine's.

    `reason` is why it is not ready, in its own words.
    """

    application: str
    model: str | None
    weight_hash: str | None
    state: str
    reason: str | None
    load: AnyLoad | None
    replicas: int | None


@dataclass(frozen=True, slots=True)
class _Gateway:
    """The gateway as it speaks of itself. Versions are None where it does not tell them."""

    state: str
    version: str | None = None
    contract: str | None = None


@dataclass(frozen=True, slots=True)
class _Report:
    client_version: str
    contract: str
    grpc: str
    http: str | None
    gateway: _Gateway | None
    services: list[_Service]
    processes: list[PlatformProcess]
    total_rss_bytes: int
    total_pss_bytes: int | None


def status(
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 10.0,
    target: TargetOption = None,
) -> None:
    """Show the services with their load, and each process of the platform with its memory.

    The processes are those of the platform started from $ORRERY_DATA_DIR (by default ./.orrery) on
    this machine. The exit code is 3 if a service does not answer.
    """
    target, state = find_platform(target)
    processes = platform_processes(state.root_pids) if state else []
    gateway = _ask_gateway(state.http, timeout_s) if state else None
    with connect(target, timeout_s, max_retries=1) as client:
        report = _Report(
            client_version=client_version(),
            contract=CONTRACT,
            grpc=client.settings.target,
            http=state.http if state else None,
            gateway=gateway,
            services=_services(client, processes),
            processes=processes,
            total_rss_bytes=sum(process.rss_bytes for process in processes),
            total_pss_bytes=_total_pss(processes),
        )
    if as_json:
        write_json(report)
    else:
        _print(report)
    if any(service.state not in (READY, OTHER) for service in report.services):
        raise typer.Exit(EXIT_UNAVAILABLE)


def _services(client: Client, processes: list[PlatformProcess]) -> list[_Service]:
    services = find_services(client)
    return [
        _described(service, told, processes)
        for service, told in zip(services, ask_loads(client, services), strict=True)
    ]


def _described(service: Service, told: ServiceLoad, processes: list[PlatformProcess]) -> _Service:
    return _Service(
        application=service.application,
        model=service.model,
        weight_hash=service.weight_hash or None,
        state=told.state,
        reason=told.reason,
        load=told.load,
        replicas=_replicas(service.application, processes),
    )


def _replicas(application: str, processes: list[PlatformProcess]) -> int | None:
    """Replicas of an application among the processes; None where none of them is known."""
    title = f"{_REPLICA_TITLE}{application}:"
    return sum(process.name.startswith(title) for process in processes) or None


def _ask_gateway(address: str, timeout_s: float) -> _Gateway:
    """What it says at its `/ready` and its `/version`."""
    import httpx  # here, because it takes longer to import than all the rest

    url = f"http://{address}"
    try:
        with httpx.Client(base_url=url, timeout=timeout_s, trust_env=False) as http:
            ready, version = http.get("/ready"), http.get("/version")
            told = version.json() if version.is_success else {}
    except (httpx.HTTPError, ValueError) as error:  # the second: it is no gateway of ours
        return _Gateway(f"does not answer ({type(error).__name__})")
    state = READY if ready.is_success else f"not ready (HTTP {ready.status_code})"
    return _Gateway(state, told.get("version"), told.get("contract"))


def _total_pss(processes: list[PlatformProcess]) -> int | None:
    """The sum, or None where the kernel keeps a part of it to itself."""
    known = [process.pss_bytes for process in processes if process.pss_bytes is not None]
    return sum(known) if len(known) == len(processes) else None


def _print(report: _Report) -> None:
    console = Console()
    console.print(f"client {report.client_version}, contract {report.contract}", highlight=False)
    console.print(f"gRPC  {report.grpc}")
    if report.gateway:
        console.print(f"HTTP  {report.http}  {_gateway_words(report.gateway)}")
    console.print()
    console.print(_service_table(report.services))
    console.print()
    details = [
        f"{each.application or '-'}: {detail}"
        for each in report.services
        for detail in (each.reason, load_details(each.load))
        if detail
    ]
    for detail in details:
        console.print(Text(detail), soft_wrap=True)
    if details:
        console.print()
    if report.processes:
        console.print(_process_table(report))
    else:
        console.print(
            f"No processes listed: {data_dir()} knows of no platform at {report.grpc} that runs "
            "on this machine (ORRERY_DATA_DIR chooses the folder)."
        )


def _gateway_words(gateway: _Gateway) -> str:
    if gateway.version is None:
        return gateway.state
    return f"{gateway.state}, version {gateway.version}, contract {gateway.contract}"


def _service_table(services: list[_Service]) -> Table:
    headings = ("REPLICAS", *LOAD_HEADINGS)
    table = new_table("APPLICATION", "MODEL", "WEIGHTS", "STATE", *headings, numbers=headings)
    for service in services:
        table.add_row(
            Text(service.application or "-"),
            Text(service.model or "-"),
            (service.weight_hash or "-")[:_NUM_HASH_DIGITS],
            service.state,
            str(service.replicas or "-"),
            *load_cells(service.load),
            style=None if service.state in (READY, OTHER) else "red",
        )
    return table


def _process_table(report: _Report) -> Table:
    numbers = ("PID", "RSS MiB", "PSS MiB")
    table = new_table("PROCESS", *numbers, numbers=numbers)
    by_size = sorted(report.processes, key=lambda process: -process.rss_bytes)
    for process in by_size:
        table.add_row(
            Text(process.name), str(process.pid), _mib(process.rss_bytes), _mib(process.pss_bytes)
        )
    total = f"{len(report.processes)} processes in all"
    sums = (_mib(report.total_rss_bytes), _mib(report.total_pss_bytes))
    table.add_row(total, "", *sums, style="bold")
    return table


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / _MIB:.0f}"

"""Puts the running platform under load and judges it: `python -m tests.load COMMAND`.

    overload     measures the capacity, then asks for 0.8 and for 4 times it, and judges
    soak         asks for everything for minutes, and judges memory and file descriptors

They end with status 1 where something does not hold. Load without a judgement: `orrery load`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.demo_data import Running, running_platform
from orrery import OrreryError
from orrery.cli.load_tables import print_runs
from orrery.load.arrivals import bursts, poisson
from orrery.load.asks import WORKLOADS, Subject, draw_ask
from orrery.load.driver import Drawer, open_loop
from orrery.load.outcomes import OK
from orrery.load.report import Run, report_of, write_report
from orrery.load.summary import Objective
from orrery.load.transports import TRANSPORTS, connected
from tests.bench.report import machine
from tests.load import overload, plots, soak
from tests.load.session import Served, look_up, new_folder, target_of
from tests.load.verdicts import Verdict, show_verdicts

_DRAIN_S = 60.0
_REST_S = 150.0  # Serve and the proxy let go of an idle connection after up to two minutes
_SAMPLE_INTERVAL_S = 5.0  # of a long soak
_MIN_SAMPLES = 60
_LENGTHS = ("prompt_tokens", "output_tokens")
_WARM_UP_SHARE = 0.2  # of a soak
_WARM_UP_BURST = 8  # more at once than in what follows: pools grow now, and not then


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console()
    running = running_platform(console)
    if running is None:
        return 1
    try:
        served = _of_length(look_up(running, options.model, options.workload), options)
        return asyncio.run(_COMMANDS[options.command](options, running, served, console))
    except (OrreryError, overload.NoAnswerError, OSError, ValueError) as error:
        console.print(f"[bold red]error:[/] {error}")
        return 1


async def _overload(
    options: argparse.Namespace, running: Running, served: Served, console: Console
) -> int:
    rng = random.Random(options.seed)
    draw = _drawer(options, served, rng)
    measured = []
    async with connected(target_of(running), options.over) as transports:
        for transport in transports:
            with console.status(f"{transport.name}: capacity, then below and above it"):
                found = await overload.measure_overload(
                    transport, draw, served.max_running, options.duration, rng
                )
            console.print(f"{found.transport}: capacity {found.capacity:.1f} requests/s")
            measured.append(found)
    runs = [run for found in measured for run in found.runs]
    verdicts = [verdict for found in measured for verdict in overload.judge(found)]
    capacities = {found.transport: found.capacity for found in measured}
    return _report(console, "overload", runs, _objective(options), verdicts, capacity=capacities)


async def _soak(
    options: argparse.Namespace, running: Running, served: Served, console: Console
) -> int:
    rng = random.Random(options.seed)
    draw = _drawer(options, served, rng)
    duration_s = 60.0 * options.minutes
    interval_s = min(_SAMPLE_INTERVAL_S, duration_s / _MIN_SAMPLES)
    began = time.monotonic()
    samples: list[soak.Sample] = []
    watching = asyncio.create_task(
        soak.watch(running.state.platform_id, began, interval_s, samples)
    )
    runs: list[Run] = []
    loads: list[soak.Period] = []
    rests: list[soak.Period] = []
    warm_up_s = _WARM_UP_SHARE * duration_s
    for name, part_s, arrivals in (
        ("warm-up", warm_up_s, bursts(options.rate, warm_up_s, rng, _WARM_UP_BURST)),
        ("soak", duration_s - warm_up_s, poisson(options.rate, duration_s - warm_up_s, rng)),
    ):
        load_began = time.monotonic() - began
        with console.status(f"{name}: {options.workload} for {part_s / 60:g} minutes"):
            async with connected(target_of(running), options.over) as transports:
                outcomes = await open_loop(arrivals, draw, transports, _DRAIN_S)
            loads.append(soak.Period(load_began, time.monotonic() - began))
            await asyncio.sleep(_REST_S)
        rests.append(soak.Period(loads[-1].end_s, time.monotonic() - began))
        runs.append(Run(name, part_s, tuple(outcomes)))
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    changed = soak.changes(samples, loads[1], (rests[0], rests[1]))
    verdicts = [*soak.judge(changed), _all_answered(runs[1])]
    processes = [change.as_json() for change in changed]
    return _report(
        console,
        "soak",
        runs,
        _objective(options),
        verdicts,
        write=lambda folder: plots.draw_memory(soak.memory_lines(samples), folder / "memory.png"),
        processes=processes,
    )


_Command = Callable[[argparse.Namespace, Running, Served, Console], Coroutine[Any, Any, int]]
_COMMANDS: dict[str, _Command] = {"overload": _overload, "soak": _soak}


def _all_answered(run: Run) -> Verdict:
    failed = Counter(outcome.status for outcome in run.outcomes if outcome.status != OK)
    return Verdict(
        f"all of {len(run.outcomes)} requests are answered",
        bool(run.outcomes) and not failed,
        ", ".join(f"{num} {name}" for name, num in failed.most_common()) or "all",
    )


def _report(
    console: Console,
    name: str,
    runs: Sequence[Run],
    objective: Objective,
    verdicts: Sequence[Verdict],
    write: Callable[[Path], None] | None = None,
    **facts: Any,
) -> int:
    print_runs(console, runs, objective)
    show_verdicts(console, verdicts)
    folder = new_folder(name)
    judged = [asdict(verdict) for verdict in verdicts]
    report = report_of(runs, objective, machine=machine(), **facts, verdicts=judged)
    write_report(folder, runs, report)
    if write is not None:
        write(folder)
    console.print(f"kept in {folder}")
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _of_length(served: Served, options: argparse.Namespace) -> Served:
    subject = replace(
        served.subject, prompt_tokens=options.prompt_tokens, output_tokens=options.output_tokens
    )
    return replace(served, subject=subject)


def _drawer(options: argparse.Namespace, served: Served, rng: random.Random) -> Drawer:
    return lambda size: draw_ask(options.workload, served.subject, rng, size)


def _objective(options: argparse.Namespace) -> Objective:
    return Objective(options.first_ms / 1e3, options.gap_ms / 1e3, options.total_ms / 1e3)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    judged = _command(commands, "overload", workload="generation")
    judged.add_argument("--duration", type=_positive, default=30.0, help="seconds of each part")
    long = _command(commands, "soak", workload="mixed")
    long.add_argument("--minutes", type=_positive, default=10.0)
    long.add_argument("--rate", type=_positive, default=3.0, help="requests a second")
    return parser


def _command(commands: Any, name: str, workload: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name)
    parser.add_argument("--workload", choices=WORKLOADS, default=workload)
    parser.add_argument("--model", default="orrery-llama")
    parser.add_argument("--over", nargs="+", choices=TRANSPORTS, default=list(TRANSPORTS))
    parser.add_argument("--seed", type=int, default=0)
    for length in _LENGTHS:
        parser.add_argument(
            f"--{length.replace('_', '-')}",
            type=int,
            nargs=2,
            default=getattr(Subject("any", vocab_size=1), length),
            metavar=("LEAST", "MOST"),
        )
    goal = Objective()
    for option, default in (
        ("--first-ms", goal.first_s),
        ("--gap-ms", goal.gap_s),
        ("--total-ms", goal.total_s),
    ):
        parser.add_argument(option, type=_positive, default=1e3 * default, help="objective")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())

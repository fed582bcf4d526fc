"""Puts the running platform under load: `python -m tests.load COMMAND`.

    overload     measures the capacity, then asks for 0.8 and for 4 times it, and judges
    soak         asks for everything for minutes, and judges memory and file descriptors
    run          requests that come by chance
    replay       completions as a trace has them
    make-trace   writes a made-up trace

Judging commands end with status 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.demo_data import Running, running_platform
from orrery import OrreryError
from tests.load import overload, plots, soak
from tests.load.arrivals import Arrival, bursts, poisson, replay
from tests.load.asks import WORKLOADS, Subject, draw_ask
from tests.load.driver import Drawer, open_loop
from tests.load.report import Run, Verdict, new_folder, show_runs, show_verdicts, write_report
from tests.load.session import TRANSPORTS, Served, Target, connected, look_up
from tests.load.summary import Objective
from tests.load.trace import read_trace, synthesize, write_trace

_DRAIN_S = 60.0
_SAMPLE_INTERVAL_S = 5.0  # of a long soak
_MIN_SAMPLES = 60
_LENGTHS = ("prompt_tokens", "output_tokens")
_WARM_UP_SHARE = 0.2  # of a soak


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console()
    if options.command == "make-trace":
        write_trace(options.path, synthesize(options.rate, options.duration, options.seed))
        return 0
    running = running_platform(console)
    if running is None:
        return 1
    try:
        served = look_up(running, options.model, options.workload)
        if options.command != "replay":  # its trace says how long
            served = _of_length(served, options)
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
    async with connected(Target.of(running), options.over) as transports:
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
    duration_s = 60.0 * options.minutes
    interval_s = min(_SAMPLE_INTERVAL_S, duration_s / _MIN_SAMPLES)
    samples: list[soak.Sample] = []
    async with connected(Target.of(running), options.over) as transports:
        watching = asyncio.create_task(soak.watch(running.state.platform_id, interval_s, samples))
        with console.status(f"{options.workload} for {options.minutes:g} minutes"):
            arrivals = poisson(options.rate, duration_s, rng)
            draw = _drawer(options, served, rng)
            outcomes = await open_loop(arrivals, draw, transports, _DRAIN_S)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    changed = soak.changes(samples, _WARM_UP_SHARE * duration_s)
    run = Run("soak", duration_s, tuple(outcomes))
    verdicts = [*soak.judge(changed), _all_answered(run)]
    processes = [change.as_json() for change in changed]
    return _report(
        console,
        "soak",
        [run],
        _objective(options),
        verdicts,
        write=lambda folder: plots.draw_memory(soak.memory_lines(samples), folder / "memory.png"),
        processes=processes,
    )


async def _run(
    options: argparse.Namespace, running: Running, served: Served, console: Console
) -> int:
    rng = random.Random(options.seed)
    arrivals = (
        poisson(options.rate, options.duration, rng)
        if options.burst == 1
        else bursts(options.rate, options.duration, rng, options.burst)
    )
    return await _offer(options, running, served, console, list(arrivals), options.duration)


async def _replay(
    options: argparse.Namespace, running: Running, served: Served, console: Console
) -> int:
    rows = read_trace(options.trace, served.max_total_tokens)
    arrivals = list(replay(rows, options.speed))
    return await _offer(options, running, served, console, arrivals, max(1.0, arrivals[-1].at_s))


async def _offer(
    options: argparse.Namespace,
    running: Running,
    served: Served,
    console: Console,
    arrivals: Sequence[Arrival],
    duration_s: float,
) -> int:
    async with connected(Target.of(running), options.over) as transports:
        with console.status(f"{len(arrivals)} requests within {duration_s:.0f} s"):
            draw = _drawer(options, served, random.Random(options.seed))
            outcomes = await open_loop(arrivals, draw, transports, _DRAIN_S)
    run = Run(options.command, duration_s, tuple(outcomes))
    return _report(console, options.command, [run], _objective(options))


_Command = Callable[[argparse.Namespace, Running, Served, Console], Coroutine[Any, Any, int]]
_COMMANDS: dict[str, _Command] = {
    "overload": _overload,
    "soak": _soak,
    "run": _run,
    "replay": _replay,
}


def _all_answered(run: Run) -> Verdict:
    summary = run.summary(Objective())
    failed = {**summary.errors, **({"refused": summary.num_refused} if summary.num_refused else {})}
    return Verdict(
        f"all of {summary.num_requests} requests are answered",
        summary.num_ok == summary.num_requests > 0,
        ", ".join(f"{num} {name}" for name, num in failed.items()) or "all",
    )


def _report(
    console: Console,
    name: str,
    runs: Sequence[Run],
    objective: Objective,
    verdicts: Sequence[Verdict] = (),
    write: Callable[[Path], None] | None = None,
    **facts: Any,
) -> int:
    show_runs(console, runs, objective)
    show_verdicts(console, verdicts)
    folder = new_folder(name)
    write_report(folder, runs, objective, verdicts, **facts)
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
    single = _command(commands, "run", workload="generation")
    single.add_argument("--duration", type=_positive, default=30.0, help="seconds")
    single.add_argument("--rate", type=_positive, default=5.0, help="requests a second")
    for parser_with_lengths in (judged, long, single):
        for name in _LENGTHS:
            parser_with_lengths.add_argument(
                f"--{name.replace('_', '-')}",
                type=int,
                nargs=2,
                default=getattr(Subject("any", vocab_size=1), name),
                metavar=("LEAST", "MOST"),
            )
    single.add_argument("--burst", type=int, default=1, help="requests that come at once")
    traced = _command(commands, "replay", workload="generation", workloads=("generation",))
    traced.add_argument("trace", type=Path, help="CSV of timestamp,prompt_tokens,output_tokens")
    traced.add_argument("--speed", type=_positive, default=1.0, help="times as fast as it was")
    made = commands.add_parser("make-trace", help="write a made-up trace")
    made.add_argument("path", type=Path)
    made.add_argument("--rate", type=_positive, default=5.0, help="requests a second, on average")
    made.add_argument("--duration", type=_positive, default=60.0, help="seconds")
    made.add_argument("--seed", type=int, default=0)
    return parser


def _command(
    commands: Any, name: str, workload: str, workloads: Sequence[str] = WORKLOADS
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name)
    parser.add_argument("--workload", choices=workloads, default=workload)
    parser.add_argument("--model", default="orrery-llama")
    parser.add_argument("--over", nargs="+", choices=TRANSPORTS, default=list(TRANSPORTS))
    parser.add_argument("--seed", type=int, default=0)
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

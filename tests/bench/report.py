"""What every benchmark prints and keeps: the machine, a table, a JSON file."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(".orrery/bench")
_PACKAGES = ("torch", "transformers", "numba", "numpy", "ray", "grpcio")


def machine() -> dict[str, Any]:
    """CPU, cores that this process may use, how busy they were, and versions."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "instructions": _instructions(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def print_machine(console: Console, facts: dict[str, Any], num_threads: int) -> None:
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    console.print(f"{facts['cpu']}, {facts['cores']} cores, {num_threads} threads on either side")
    console.print(f"{facts['instructions']}; Python {facts['python']}, {versions}")
    if facts["load_average"] > 0.3 * facts["cores"]:
        console.print(
            f"[yellow]The machine is busy (load {facts['load_average']:.1f}): "
            "figures are lower than it can do, and ratios less certain.[/]"
        )


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        made.add_row(*row)
    return made


def save(name: str, result: dict[str, Any]) -> Path:
    """Writes the result under `.orrery/bench/`, named by benchmark and time."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps({"command": sys.argv, **result}, indent=2) + "\n")
    return path


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _instructions() -> str:
    """The vector and matrix instructions that decide how fast bfloat16 is."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return " ".join(known) or "no known vector instructions"

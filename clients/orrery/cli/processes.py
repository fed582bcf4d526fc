"""Which processes make up the platform on this machine, and what memory they hold.

Reads Linux's /proc; knows nothing of gRPC. Memory is told in two ways: RSS counts a page shared by
several processes once for each of them, PSS splits it among them, so that only PSS adds up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PlatformProcess", "platform_processes", "process_name"]

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ROLLUP_LINE = re.compile(r"^(Rss|Pss):\s+(\d+) kB$", re.MULTILINE)
_MODULE_FLAG = "-m"


@dataclass(frozen=True, slots=True)
class PlatformProcess:
    """One process. `pss_bytes` is None where the kernel does not tell it to this user."""

    pid: int
    name: str
    rss_bytes: int
    pss_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Stat:
    pid: int
    parent: int
    session: int
    state: str


def platform_processes(roots: Iterable[int]) -> list[PlatformProcess]:
    """The root processes, their descendants, and whoever shares a session with one of them.

    The session catches what a root started and then left behind to init. Processes that end while
    they are looked at are left out, and so are zombies: they hold no memory.
    """
    stats = {stat.pid: stat for stat in _all_stats()}
    wanted = {pid for pid in roots if pid in stats}
    sessions = {pid for pid in wanted if stats[pid].session == pid}
    wanted |= {stat.pid for stat in stats.values() if stat.session in sessions}
    children: dict[int, list[int]] = {}
    for stat in stats.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    waiting = list(wanted)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in wanted:
                wanted.add(child)
                waiting.append(child)
    found = (_process(pid) for pid in sorted(wanted) if stats[pid].state != "Z")
    return [process for process in found if process is not None]


def _all_stats() -> Iterator[_Stat]:
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            content = _read(entry / "stat")
            if content is not None:
                # "pid (name) state parent group session ...": the name may hold anything.
                state, parent, _, session = content.rpartition(")")[2].split()[:4]
                yield _Stat(int(entry.name), int(parent), int(session), state)


def _process(pid: int) -> PlatformProcess | None:
    folder = _PROC / str(pid)
    arguments = _read(folder / "cmdline")
    pages = _read(folder / "statm")
    if arguments is None or pages is None:
        return None
    rollup = dict(_ROLLUP_LINE.findall(_read(folder / "smaps_rollup") or ""))
    rss_bytes = int(pages.split()[1]) * _PAGE_BYTES
    if "Rss" in rollup:  # exact, where statm's count is kept per thread and lags behind
        rss_bytes = int(rollup["Rss"]) * 1024
    pss_bytes = int(rollup["Pss"]) * 1024 if "Pss" in rollup else None
    return PlatformProcess(pid, process_name(arguments.split("\0")), rss_bytes, pss_bytes)


def process_name(arguments: list[str]) -> str:
    """What a process is, without its arguments: they may hold keys and passwords.

    Ray's workers set their title (`ray::ServeReplica:llama:Generation`, at times with the method
    that runs); of a Python process the module or the script says more than the interpreter.
    """
    title = arguments[0].strip()
    if title.startswith("ray::"):
        name = title.split(" ")[0]
        owner, _, method = name.rpartition(".")
        return owner if owner and method.isidentifier() else name
    program = Path(title.split(" ")[0]).name
    if not program.startswith("python"):
        return program
    if _MODULE_FLAG in arguments[:-1]:
        return f"python -m {arguments[arguments.index(_MODULE_FLAG) + 1]}"
    script = next((a for a in arguments[1:] if a.endswith(".py")), None)
    return f"python {Path(script).name}" if script else program


def _read(path: Path) -> str | None:
    """A file of /proc, or None when its process has ended or belongs to somebody else."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None

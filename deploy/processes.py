"""Finds and ends the processes of one platform.

Every process the launcher starts inherits a marker in its environment. Looking for the marker
finds them all, replicas started later and daemons that left their parent included, and never
touches another Ray cluster on the machine, as `ray stop` would.
"""

from __future__ import annotations

import contextlib

import psutil

__all__ = ["MARKER", "end_processes", "find_processes"]

MARKER = "_ORRERY_PLATFORM"


def find_processes(platform_id: str) -> list[psutil.Process]:
    """Living processes whose environment carries this platform's marker, this one excluded."""
    own_pid = psutil.Process().pid
    found = []
    for process in psutil.process_iter():
        # A process may end, or belong to another user, while we look at it.
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != own_pid and process.environ().get(MARKER) == platform_id:
                found.append(process)
    return found


def end_processes(platform_id: str, grace_s: float = 5.0) -> int:
    """Asks the platform's processes to end, then insists. Returns how many there were.

    Repeats until none is left: a supervisor may start a new one while its siblings are ended.
    """
    ended: set[int] = set()
    for attempt in range(5):
        processes = find_processes(platform_id)
        if not processes:
            break
        ended.update(process.pid for process in processes)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if attempt == 0:
                    process.terminate()
                else:
                    process.kill()
        psutil.wait_procs(processes, timeout=grace_s)
    return len(ended)

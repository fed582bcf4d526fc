"""Finds and ends the processes of one platform.

Every process the launcher starts inherits a marker in its environment. Looking for the marker
finds them, replicas started later and daemons that left their parent included, and never touches
another Ray cluster on the machine, as `ray stop` would. Some of Ray's helpers write their title
over the memory that shows their environment; those are found as children of marked ones.
"""

from __future__ import annotations

import contextlib

import psutil

__all__ = ["MARKER", "end_processes", "find_processes"]

MARKER = "_ORRERY_PLATFORM"


def find_processes(platform_id: str) -> list[psutil.Process]:
    """Living processes that carry this platform's marker, and their descendants."""
    own_pid = psutil.Process().pid
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        # A process may end, or belong to another user, while we look at it.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARKER) == platform_id:
                family = [process, *process.children(recursive=True)]
                found.update({member.pid: member for member in family})
    found.pop(own_pid, None)
    return list(found.values())


def end_processes(platform_id: str, grace_s: float = 5.0) -> int:
    """Asks the platform's processes to end, then insists. Returns how many there were.

    Repeats until none is left: a supervisor may start a new one while its siblings are ended, and a
    helper may outlive the marked parent by which it was found.
    """
    known: set[psutil.Process] = set()
    for attempt in range(5):
        known.update(find_processes(platform_id))
        living = [process for process in known if process.is_running()]
        if not living:
            break
        for process in living:
            with contextlib.suppress(psutil.Error):
                if attempt == 0:
                    process.terminate()
                else:
                    process.kill()
        psutil.wait_procs(living, timeout=grace_s)
    return len(known)

"""How a Serve replica ends: from when Serve says so until before Serve would kill it.

Serve stops a replica by waiting until no call is left, then runs the deployment's `__del__`; after
`graceful_shutdown_timeout_s` it kills the process, whose callers are told nothing. It has no hook
for the moment at which the waiting begins, so this module looks. Only an `app.py` imports it.

    told to stop ──> leave ────drain_timeout_s────> calls are cut ──> __del__ ──> (killed)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import ray

from services.runtime.lifecycle import Lifecycle

__all__ = ["graceful_shutdown_timeout_s", "leave_in_time", "when_stopping"]

_POLL_S = 0.2
# For calls that were cut to say so, for Serve to notice, for the model to be freed, and for Ray to
# report what was counted.
_ENDING_S = 20.0


def graceful_shutdown_timeout_s(drain_timeout_s: float) -> float:
    """Of a deployment whose running calls may take so long when it stops."""
    return drain_timeout_s + _ENDING_S


def leave_in_time(lifecycle: Lifecycle, drain_timeout_s: float) -> asyncio.Task[None]:
    """Has the calls end within that time of when Serve begins to stop this replica.

    Called in the deployment's constructor, which keeps what this returns.
    """
    return when_stopping(partial(lifecycle.leave, drain_timeout_s))


def when_stopping(leave: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """The same by any means, for a deployment that has no `Lifecycle`."""
    _is_stopping()  # fails here rather than unseen, should Serve have changed

    async def watch() -> None:
        while not _is_stopping():  # noqa: ASYNC110 - there is nothing to wait for
            await asyncio.sleep(_POLL_S)
        await leave()

    return asyncio.create_task(watch())


def _is_stopping() -> bool:
    worker = ray._private.worker.global_worker
    replica = worker.actors[worker.actor_id]._replica_impl
    stopping: bool = replica._shutting_down
    return stopping

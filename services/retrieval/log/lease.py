"""A lease in Redis: of all replicas, one at a time does something, and a dead one blocks nobody."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis

from services.runtime.errors import DependencyDown, Overloaded
from services.runtime.store import store_errors

__all__ = ["Lease"]

_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
_POLL_S = 0.1


class Lease:
    """Held by one holder at a time, for as long as it renews it."""

    def __init__(self, redis: Redis, key: str, *, time_to_live_s: float = 30.0) -> None:
        self._redis = redis
        self._key = key
        self._time_to_live_ms = int(time_to_live_s * 1000)
        self._holder = uuid.uuid4().hex

    @asynccontextmanager
    async def hold(self, wait_s: float) -> AsyncIterator[None]:
        """Holds it, renewed, while the context is open.

        Raises `Overloaded` when another holds it for longer than `wait_s`, `DependencyDown` when
        the store is away.
        """
        await self._take(wait_s)
        over = asyncio.Event()
        renewing = asyncio.create_task(self._keep(over), name="lease")
        try:
            yield
        finally:
            over.set()
            await renewing
            # The store may be away by now: the lease then runs out.
            with suppress(DependencyDown), store_errors("lease"):
                await self._redis.eval(_RELEASE, 1, self._key, self._holder)

    async def is_held(self) -> bool:
        """Whether it is (still) ours; renews it."""
        with store_errors("lease"):
            renewed = await self._redis.eval(
                _RENEW, 1, self._key, self._holder, self._time_to_live_ms
            )
        return bool(renewed)

    async def _take(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            with store_errors("lease"):
                taken = await self._redis.set(
                    self._key, self._holder, nx=True, px=self._time_to_live_ms
                )
            if taken:
                return
            if time.monotonic() >= deadline:
                raise Overloaded("another replica is writing a snapshot", retry_after_s=1.0)
            await asyncio.sleep(_POLL_S)

    async def _keep(self, over: asyncio.Event) -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self._time_to_live_ms / 3000)
                return
            with suppress(DependencyDown):
                await self.is_held()

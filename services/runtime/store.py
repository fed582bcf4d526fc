"""The connection to Redis that services share: one client each, errors in the platform's taxonomy.

Knows nothing of what is kept there: the retrieval log, the embedding cache and conversations each
have a home of their own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - redis's own, not the built-in
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
)
from redis.maint_notifications import MaintNotificationsConfig

from services.runtime.errors import DependencyDown

__all__ = ["connect", "store_errors", "watch"]

CONNECT_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 10.0
# Beyond them a call fails at once. Redis takes some thousand clients, or what its files allow.
MAX_CONNECTIONS = 256
_RETRY_AFTER_S = 1.0
_WATCH_INTERVAL_S = 1.0

# What Redis answers, or does not, while it cannot do its work; each passes by itself.
_DOWN = (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    TimeoutError,
    OSError,
)
# The same where redis-py has no class for it, in the error of a pipeline or a script, too.
_DOWN_REPLY = re.compile(
    r"\b(?:MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|OOM|READONLY|LOADING|BUSY|UNBLOCKED) "
)
# Before it stands the command, with what a user wrote.
_PIPELINE_ERROR = "of pipeline caused error: "


def connect(
    url: str, *, max_connections: int = MAX_CONNECTIONS, call_timeout_s: float = CALL_TIMEOUT_S
) -> Redis:
    """A client of the Redis at `url`; it connects when first used, and again after each loss.

    Nothing is repeated behind the caller's back: a write that may have happened is the caller's
    to decide about. Answers are bytes.

    Raises:
        ValueError: `url` is no Redis URL.
    """
    return Redis.from_url(
        url,
        protocol=3,
        max_connections=max_connections,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=call_timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        # With them on, connections that Redis closed while idle are not noticed before use.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )


def _unobserved(_available: bool) -> None:
    return None


@contextmanager
def store_errors(what: str, observe: Callable[[bool], None] = _unobserved) -> Iterator[None]:
    """Around calls to Redis: raises `DependencyDown` when it is away, naming `what` needs it.

    `observe` is told whether it could do its work.
    """
    try:
        yield
    except _DOWN as error:
        observe(False)
        raise DependencyDown(
            f"{what}: the store does not answer ({type(error).__name__})",
            retry_after_s=_RETRY_AFTER_S,
        ) from error
    except ResponseError as error:
        reply = _DOWN_REPLY.search(str(error).rpartition(_PIPELINE_ERROR)[2])
        if reply is None:
            raise
        observe(False)
        raise DependencyDown(
            f"{what}: the store cannot do it now ({reply[0].strip()})",
            retry_after_s=_RETRY_AFTER_S,
        ) from error
    observe(True)


async def watch(
    redis: Redis, observe: Callable[[bool], None], observe_memory: Callable[[float], None]
) -> None:
    """Asks the store every second how it is, until it is cancelled.

    `observe` is told whether it answers, `observe_memory` which share of the memory that it may
    have it uses, from 0 to 1; 0 where that is not limited.
    """
    while True:
        with suppress(DependencyDown, RedisError):
            with store_errors("", observe):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await redis.ping()
            with store_errors(""):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    memory = await redis.info("memory")
            limit = memory["maxmemory"]
            observe_memory(memory["used_memory"] / limit if limit else 0.0)
        await asyncio.sleep(_WATCH_INTERVAL_S)

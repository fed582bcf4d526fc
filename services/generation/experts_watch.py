"""Whether the `moe` service can compute a decoder's sparse layers: asked every few seconds.

A decoder whose experts are away cannot take a step, and its calls alone would not tell when they
are back. Knows nothing of the decoder.
"""

from __future__ import annotations

import asyncio
import time
import uuid

from services.generation.config import RemoteExpertsConfig
from services.runtime.errors import OrreryError
from services.runtime.peer import Caller, Peer, check_ready

__all__ = ["ExpertsWatch"]

_INTERVAL_S = 2.0
_TIMEOUT_S = 2.0


class ExpertsWatch:
    """Made and closed on one event loop."""

    def __init__(self, config: RemoteExpertsConfig) -> None:
        self._application = config.application
        self._peer = Peer(config.grpc_target, num_channels=1, max_retries=0)
        self._hindrance: str | None = None
        self._watching = asyncio.create_task(self._watch())

    @property
    def hindrance(self) -> str | None:
        """Why no sparse layer can be computed until it has passed; None = they can."""
        return self._hindrance

    async def close(self) -> None:
        """Stops asking."""
        self._watching.cancel()
        await asyncio.wait({self._watching})
        await self._peer.close()

    async def _watch(self) -> None:
        while True:
            deadline_s = time.monotonic() + _TIMEOUT_S
            caller = Caller(uuid.uuid4().hex, api_key=None, deadline_s=deadline_s)
            try:
                await check_ready(self._peer, self._application, caller)
            except OrreryError as error:
                self._hindrance = f"the experts, {self._application!r}: {error.message}"
            else:
                self._hindrance = None
            await asyncio.sleep(_INTERVAL_S)

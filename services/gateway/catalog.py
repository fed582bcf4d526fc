"""Which models are served, and by which application: asked of the applications, never assumed.

Knows nothing of HTTP, nor of what kind the models are: there is one catalog
for each kind. What an application said is believed for `ttl_s`; while it does not answer,
what it said last stands, so that calls meet its own error and not a false "no such model".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from services.gateway.upstream import Caller
from services.runtime.errors import ModelNotFound, NotReady, OrreryError

__all__ = ["Catalog", "ServedModel"]


class ModelInfo(Protocol):
    """What every application says about its model."""

    model: str
    weight_hash: str


InfoT = TypeVar("InfoT", bound=ModelInfo)

# One application that hangs must not use up the whole time of a request.
_ASK_TIMEOUT_S = 5.0
# While an application is silent, it is asked again this often and not at every request.
_ASK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class ServedModel(Generic[InfoT]):
    """A model and the application that serves it."""

    application: str
    info: InfoT

    @property
    def name(self) -> str:
        return self.info.model

    @property
    def fingerprint(self) -> str:
        """Identifies the weights, as `system_fingerprint`."""
        return f"fp_{self.info.weight_hash[:12]}"


class Catalog(Generic[InfoT]):
    """Finds the application of a model by the model's name, an alias, or the application's name.

    `ask` asks an application about the model of a name, or about its own by the empty one.
    """

    def __init__(
        self,
        applications: Sequence[str],
        ttl_s: float,
        ask: Callable[[str, str, Caller], Awaitable[InfoT]],
    ) -> None:
        self._applications = tuple(applications)
        self._ttl_s = ttl_s
        self._ask_application = ask
        self._models: dict[str, ServedModel[InfoT]] = {}  # by application
        self._silent: set[str] = set()  # applications that did not answer when last asked
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()

    async def models(self, caller: Caller) -> list[ServedModel[InfoT]]:
        """Every model that is known to be served, in the order of the applications."""
        await self._refresh(caller)
        return [self._models[name] for name in self._applications if name in self._models]

    async def find(self, name: str, caller: Caller) -> ServedModel[InfoT]:
        """The model of that name.

        Raises `ModelNotFound`, or `NotReady` while an application that might serve it is silent.
        """
        models = await self.models(caller)
        for model in models:
            if name in (model.name, model.application):
                return model
        # To a service the empty name means whatever it serves; to a gateway of many it means none.
        alias = await self._find_alias(name, caller) if name else None
        if alias is not None:
            return alias
        if self._silent:
            silent = ", ".join(sorted(self._silent))
            raise NotReady(f"cannot tell whether {name[:128]!r} is served: no answer from {silent}")
        known = ", ".join(repr(model.name) for model in models)
        expected = f"expected one of {known}" if known else "no model of this kind is served"
        raise ModelNotFound(f"the model {name[:128]!r} does not exist; {expected}", field="model")

    async def first(
        self, caller: Caller, suits: Callable[[InfoT], bool] = lambda _: True
    ) -> ServedModel[InfoT]:
        """The first that suits, for a request that names none.

        Raises `ModelNotFound`, or `NotReady` while an application that might serve one is silent.
        """
        for model in await self.models(caller):
            if suits(model.info):
                return model
        if self._silent:
            raise NotReady(f"no answer from {', '.join(sorted(self._silent))}")
        raise ModelNotFound("no model of this kind is served", field="model")

    async def _find_alias(self, name: str, caller: Caller) -> ServedModel[InfoT] | None:
        """Only an application knows its aliases."""
        for application in self._applications:
            info = await self._ask(application, name, caller)
            if info is not None:
                return ServedModel(application, info)
        return None

    async def _refresh(self, caller: Caller) -> None:
        if not self._is_stale():
            return
        async with self._asking:
            if self._is_stale():  # nobody asked while this one waited
                await asyncio.gather(*(self._update(name, caller) for name in self._applications))
                self._asked_at = time.monotonic()

    def _is_stale(self) -> bool:
        if self._asked_at is None:
            return True
        ttl_s = min(self._ttl_s, _ASK_AGAIN_S) if self._silent else self._ttl_s
        return time.monotonic() - self._asked_at >= ttl_s

    async def _update(self, application: str, caller: Caller) -> None:
        info = await self._ask(application, "", caller)
        if info is None:
            self._silent.add(application)
        else:
            self._models[application] = ServedModel(application, info)
            self._silent.discard(application)

    async def _ask(self, application: str, model: str, caller: Caller) -> InfoT | None:
        try:
            return await self._ask_application(application, model, caller.within_s(_ASK_TIMEOUT_S))
        except OrreryError:
            return None  # silent, or not its model

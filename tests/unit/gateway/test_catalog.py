"""Which application serves a model: asked, remembered, and asked again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from orrery.v1 import generation_pb2 as pb
from services.gateway.catalog import Catalog
from services.gateway.upstream import Caller
from services.runtime.errors import DependencyDown, ModelNotFound, NotReady

CALLER = Caller("id", None, time.monotonic() + 3600)


class Services:
    """Answers from a table: application -> names of its model, or None when silent."""

    def __init__(self, **models: tuple[str, ...] | None) -> None:
        self.models = models
        self.asked: Counter[str] = Counter()

    async def ask(self, application: str, model: str, _caller: Caller) -> pb.GetModelResponse:
        self.asked[application] += 1
        await asyncio.sleep(0)
        names = self.models[application]
        if names is None:
            raise DependencyDown("silent")
        if model and model not in names:
            raise ModelNotFound("not mine")
        return pb.GetModelResponse(model=names[0])


def catalog_of(services: Services, ttl_s: float = 3600.0) -> Catalog[pb.GetModelResponse]:
    return Catalog(tuple(services.models), ttl_s, services.ask)


async def test_model_is_found_by_name_alias_and_application() -> None:
    catalog = catalog_of(Services(llama=("orrery-llama", "small"), gpt=("orrery-gpt",)))
    for name in ("orrery-llama", "small", "llama"):
        assert (await catalog.find(name, CALLER)).application == "llama"
    assert (await catalog.find("orrery-gpt", CALLER)).application == "gpt"
    for name in ("gpt-5", ""):
        with pytest.raises(ModelNotFound, match="'orrery-llama', 'orrery-gpt'"):
            await catalog.find(name, CALLER)


async def test_many_requests_at_once_ask_each_application_once() -> None:
    services = Services(llama=("orrery-llama",), gpt=("orrery-gpt",))
    catalog = catalog_of(services)
    await asyncio.gather(*(catalog.find("orrery-gpt", CALLER) for _ in range(20)))
    assert services.asked == {"llama": 1, "gpt": 1}


async def test_model_that_was_replaced_is_noticed() -> None:
    services = Services(llama=("old",))
    catalog = catalog_of(services, ttl_s=0.0)
    assert (await catalog.find("old", CALLER)).name == "old"
    services.models["llama"] = ("new",)
    assert (await catalog.find("new", CALLER)).name == "new"
    with pytest.raises(ModelNotFound):
        await catalog.find("old", CALLER)


async def test_silent_application_makes_an_unknown_name_not_ready() -> None:
    catalog = catalog_of(Services(llama=None, gpt=("orrery-gpt",)))
    assert (await catalog.find("orrery-gpt", CALLER)).application == "gpt"
    with pytest.raises(NotReady, match="llama"):
        await catalog.find("orrery-llama", CALLER)
    assert [model.name for model in await catalog.models(CALLER)] == ["orrery-gpt"]


async def test_application_that_falls_silent_is_still_called_by_its_model() -> None:
    services = Services(llama=("orrery-llama",))
    catalog = catalog_of(services, ttl_s=0.0)
    await catalog.find("orrery-llama", CALLER)
    services.models["llama"] = None
    assert (await catalog.find("orrery-llama", CALLER)).application == "llama"

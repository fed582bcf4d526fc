"""A new client while the balancer stands, and nobody behind it tells which applications are."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

import orrery
from deploy.ports import free_port
from tests.fakes.front_balancer import front_balancer
from tests.unit.client.conftest import MakeClient
from tests.unit.client.scripted import ScriptedServer, model, reply


async def test_head_that_is_gone_is_unavailable_and_no_internal_error(
    make_client: MakeClient, tmp_path: Path
) -> None:
    with front_balancer(tmp_path, f"127.0.0.1:{free_port()}") as target:
        client = make_client(target, max_retries=1)
        for method, arguments in (("models", ()), ("generate", ("x",))):
            with pytest.raises(orrery.UnavailableError):
                await client.call(method, *arguments)


async def test_head_that_is_there_is_asked_through_the_balancer(
    server: ScriptedServer, make_client: MakeClient, tmp_path: Path
) -> None:
    server.on("ListApplications", reply(FieldMask(paths=["llama"])))
    server.on("GetModel", model("orrery-llama"))
    with front_balancer(tmp_path, server.target) as target:
        (found,) = await make_client(target).call("models")
    assert found.name == "orrery-llama"

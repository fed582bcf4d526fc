"""From a model's name to its application, on a server that lists applications as Ray Serve does."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

import orrery
from services.runtime import errors as served
from tests.unit.client.both_clients import AnyClient
from tests.unit.client.conftest import MakeClient
from tests.unit.client.scripted import (
    ScriptedServer,
    abort,
    by_application,
    model,
    refuse,
    reply,
    stall,
    tokens,
)

NOT_GENERATION = abort(grpc.StatusCode.UNKNOWN, "Method GetModel not found; try get_stats")


@pytest.fixture(autouse=True)
def platform(server: ScriptedServer) -> ScriptedServer:
    """Two models and an application that serves something else."""
    server.on("ListApplications", reply(FieldMask(paths=["llama", "gateway", "gpt"])))
    server.on(
        "GetModel",
        by_application(
            {
                "llama": model("orrery-llama", "storyteller"),
                "gpt": model("orrery-gpt"),
                "gateway": NOT_GENERATION,
            }
        ),
    )
    server.on("Generate", by_application({"llama": tokens("ll"), "gpt": tokens("gg")}))
    return server


@pytest.mark.parametrize(
    ("name", "application", "sent"),
    [
        ("llama", "llama", ""),
        ("orrery-llama", "llama", "orrery-llama"),
        ("storyteller", "llama", "storyteller"),
        ("orrery-gpt", "gpt", "orrery-gpt"),
    ],
)
async def test_name_of_application_model_or_alias_finds_the_application(
    server: ScriptedServer, client: AnyClient, name: str, application: str, sent: str
) -> None:
    assert (await client.call("generate", "x", model=name)).text == application[0] * 2
    seen = server.calls("Generate")[0]
    assert seen.metadata["application"] == application
    assert seen.request.model == sent


async def test_route_is_asked_for_once(server: ScriptedServer, client: AnyClient) -> None:
    for _ in range(3):
        await client.call("generate", "x", model="orrery-llama")
    assert len(server.calls("ListApplications")) == 1
    assert len(server.calls("Generate")) == 3


async def test_unknown_model_is_not_found_and_says_where_it_looked(
    server: ScriptedServer, client: AnyClient
) -> None:
    with pytest.raises(
        orrery.ModelNotFoundError, match=r"'mistral'.*gateway, gpt, llama"
    ) as caught:
        await client.call("generate", "x", model="mistral")
    assert caught.value.field == "model"
    assert server.calls("Generate") == []


async def test_model_deployed_later_is_found(server: ScriptedServer, client: AnyClient) -> None:
    with pytest.raises(orrery.ModelNotFoundError):
        await client.call("generate", "x", model="new")
    server.on("ListApplications", reply(FieldMask(paths=["new"])))
    server.on("Generate", by_application({"new": tokens("n")}))
    assert (await client.call("generate", "x", model="new")).text == "n"


async def test_model_that_moved_is_found_again_after_one_error(
    server: ScriptedServer, client: AnyClient
) -> None:
    await client.call("generate", "x", model="orrery-gpt")
    server.on("GetModel", by_application({"llama": model("orrery-gpt"), "gpt": model("another")}))
    gone = refuse(served.ModelNotFound("gone"))
    server.on("Generate", by_application({"gpt": gone, "llama": tokens("moved")}))
    with pytest.raises(orrery.ModelNotFoundError):
        await client.call("generate", "x", model="orrery-gpt")
    assert (await client.call("generate", "x", model="orrery-gpt")).text == "moved"


async def test_no_model_named_among_several_is_refused_with_their_names(
    client: AnyClient,
) -> None:
    with pytest.raises(orrery.InvalidRequestError, match="orrery-gpt, orrery-llama") as caught:
        await client.call("generate", "x")
    assert caught.value.field == "model"


async def test_no_model_named_goes_to_the_only_one(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("ListApplications", reply(FieldMask(paths=["gateway", "gpt"])))
    assert (await client.call("generate", "x")).text == "gg"


async def test_models_lists_what_is_served(client: AnyClient) -> None:
    models = await client.call("models")
    assert {(m.application, m.name) for m in models} == {
        ("llama", "orrery-llama"),
        ("gpt", "orrery-gpt"),
    }


async def test_applications_tells_who_does_not_answer(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on(
        "GetModel",
        by_application(
            {
                "llama": refuse(served.NotReady("loading")),
                "gpt": model("orrery-gpt"),
                "gateway": NOT_GENERATION,
            }
        ),
    )
    gateway, gpt, llama = await client.call("applications")
    assert (gateway.model, gateway.error) == (None, None)
    assert gpt.model.name == "orrery-gpt"
    assert isinstance(llama.error, orrery.NotReadyError)
    assert [m.name for m in await client.call("models")] == ["orrery-gpt"]


async def test_model_of_an_application_that_does_not_answer_is_unavailable_not_missing(
    server: ScriptedServer, client: AnyClient
) -> None:
    loading = refuse(served.NotReady("loading"))
    server.on("GetModel", by_application({"llama": loading, "gpt": model("orrery-gpt")}))
    with pytest.raises(orrery.NotReadyError, match="loading"):
        await client.call("generate", "x", model="orrery-llama")


@pytest.mark.parametrize("name", ["orrery-llama", None])
async def test_model_whose_replica_is_just_being_replaced_is_waited_for(
    server: ScriptedServer, client: AnyClient, name: str | None
) -> None:
    away = abort(grpc.StatusCode.UNAVAILABLE, "no server available")
    server.on("ListApplications", reply(FieldMask(paths=["llama"])))
    server.on("GetModel", away, away, model("orrery-llama"))
    assert (await client.call("generate", "x", model=name)).text == "ll"


async def test_hanging_application_does_not_hide_the_others(
    server: ScriptedServer, client: AnyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orrery.routing._PROBE_TIMEOUT_S", 0.2)
    server.on("GetModel", by_application({"llama": stall(), "gpt": model("orrery-gpt")}))
    _, gpt, llama = await client.call("applications")
    assert gpt.model is not None
    assert isinstance(llama.error, orrery.DeadlineExceededError)


async def test_given_applications_are_not_asked_for(
    server: ScriptedServer, make_client: MakeClient
) -> None:
    client = make_client(applications=["llama", "gpt"])
    assert (await client.call("generate", "x", model="gpt")).text == "gg"
    assert [seen.method for seen in server.seen] == ["Generate"]
    assert len(await client.call("models")) == 2


async def test_application_briefly_unknown_after_a_restart_is_tried_again(
    server: ScriptedServer, make_client: MakeClient
) -> None:
    client = make_client(applications=["llama"])
    server.on(
        "Generate", abort(grpc.StatusCode.NOT_FOUND, "Application 'llama' not found"), tokens("ok")
    )
    assert (await client.call("generate", "x", model="llama")).text == "ok"


async def test_application_listed_before_the_balancer_knows_it_is_tried_again(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("ListApplications", reply(FieldMask(paths=["llama"])))
    unknown = abort(grpc.StatusCode.NOT_FOUND, "Application 'llama' not found")
    server.on("GetModel", unknown, model("orrery-llama"))
    assert (await client.call("generate", "x", model="orrery-llama")).text == "ll"


async def test_application_unknown_for_good_is_not_found(
    server: ScriptedServer, make_client: MakeClient
) -> None:
    client = make_client(applications=["mistral"])
    with pytest.raises(orrery.ModelNotFoundError, match="Application 'mistral' not found"):
        await client.call("generate", "x", model="mistral")
    assert len(server.calls("Generate")) == 3


async def test_model_not_found_said_by_the_service_is_final(
    server: ScriptedServer, client: AnyClient
) -> None:
    server.on("Generate", refuse(served.ModelNotFound("model: no")))
    with pytest.raises(orrery.ModelNotFoundError, match="model: no"):
        await client.call("generate", "x", model="llama")
    assert len(server.calls("Generate")) == 1


async def test_listing_that_starts_late_is_waited_for(
    server: ScriptedServer, client: AnyClient
) -> None:
    starting = abort(grpc.StatusCode.UNAVAILABLE, "ListApplications is unavailable")
    server.on("ListApplications", starting, reply(FieldMask(paths=["llama"])))
    assert (await client.call("generate", "x", model="llama")).text == "ll"


async def test_wrong_key_is_told_while_looking_for_the_model(
    server: ScriptedServer, client: AnyClient
) -> None:
    refused = refuse(served.Unauthenticated("no"))
    server.on("GetModel", by_application({"llama": refused, "gpt": refused}))
    with pytest.raises(orrery.AuthenticationError):
        await client.call("generate", "x", model="orrery-llama")


def test_field_mask_reads_the_listing_of_ray_serve() -> None:
    """The wire form that `LIST_APPLICATIONS` relies on, against Ray's own message."""
    serve_pb2 = pytest.importorskip("ray.serve.generated.serve_pb2")
    listing = serve_pb2.ListApplicationsResponse(application_names=["llama", "gpt"])
    assert list(FieldMask.FromString(listing.SerializeToString()).paths) == ["llama", "gpt"]

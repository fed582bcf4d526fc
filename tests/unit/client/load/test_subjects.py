"""What can be asked of a platform: by the services that it has, its model, and the documents."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from orrery import Client, CollectionNotFoundError, InvalidRequestError
from orrery.load.asks import Workload
from orrery.load.subjects import Documents, Found, look_up
from orrery.v1 import generation_pb2 as pb
from services.runtime import errors as served
from tests.unit.client.fake_retrieval import FakePlatform
from tests.unit.client.scripted import ScriptedServer, by_application, refuse, reply

DOCUMENTS = Documents("docs", ("Who?", "Where?"))
MODEL = pb.GetModelResponse(
    model="orrery-llama", vocab_size=512, max_model_len=2048, has_chat_template=True
)
OTHER = refuse(served.ModelNotFound("no model"))


def serve(server: ScriptedServer, *others: str, model: pb.GetModelResponse = MODEL) -> None:
    """A model, and applications that serve something else."""
    server.on("ListApplications", reply(FieldMask(paths=["llama", *others])))
    server.on("GetModel", by_application({"llama": reply(model), **dict.fromkeys(others, OTHER)}))


async def found(target: str, workload: Workload, documents: Documents | None = None) -> Found:
    def ask() -> Found:
        with Client(target, max_retries=0) as client:
            return look_up(client, workload, None, documents)

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(
    ("others", "mixture"),
    [
        ((), ("generation", "chat")),
        (("embedding", "rag"), ("generation", "chat", "embeddings")),  # of no documents
        (("diffusion",), ("generation", "chat", "images")),
        (("diffusion", "embedding"), ("generation", "chat", "embeddings", "images")),
    ],
)
async def test_a_mixture_is_of_what_is_there(
    server: ScriptedServer, others: tuple[str, ...], mixture: tuple[str, ...]
) -> None:
    serve(server, *others)
    subject = (await found(server.target, "mixed")).subject
    assert subject.mixture == mixture
    assert (subject.model, subject.vocab_size) == ("orrery-llama", 512)


async def test_a_model_without_a_chat_template_is_asked_for_completions_only(
    server: ScriptedServer,
) -> None:
    plain = pb.GetModelResponse(model="orrery-gpt", vocab_size=512)
    serve(server, "embedding", model=plain)
    assert (await found(server.target, "mixed")).subject.mixture == ("generation", "embeddings")
    with pytest.raises(InvalidRequestError, match="a chat template, which orrery-gpt"):
        await found(server.target, "chat")


async def test_documents_that_nobody_answers_from_are_refused(server: ScriptedServer) -> None:
    serve(server, "embedding")
    with pytest.raises(InvalidRequestError, match="rag needs an application 'rag'"):
        await found(server.target, "mixed", DOCUMENTS)


async def test_questions_need_a_collection_that_is_there_and_no_model(
    platform: FakePlatform,
) -> None:
    platform.applications = ("embedding", "retrieval", "rag")
    asked = await found(platform.target, "rag", DOCUMENTS)
    assert asked.model is None
    assert (asked.subject.collection, asked.subject.questions) == ("docs", ("Who?", "Where?"))
    assert "rag" in asked.subject.mixture
    with pytest.raises(InvalidRequestError, match="rag needs documents"):
        await found(platform.target, "rag")
    with pytest.raises(CollectionNotFoundError):
        await found(platform.target, "rag", Documents("nowhere", ("Who?",)))

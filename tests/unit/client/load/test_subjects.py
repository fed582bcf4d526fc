"""What can be asked of a platform: by the services that it has, its model, and the documents."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from orrery import Client, InvalidRequestError
from orrery.load.asks import Workload
from orrery.load.subjects import Documents, Found, look_up
from orrery.v1 import generation_pb2 as pb
from services.runtime import errors as served
from tests.unit.client.scripted import ScriptedServer, by_application, refuse, reply

DOCUMENTS = Documents("docs", ("Who?", "Where?"))
MODEL = pb.GetModelResponse(
    model="orrery-llama", vocab_size=512, max_model_len=2048, has_chat_template=True
)
OTHER = refuse(served.ModelNotFound("no model"))


def platform(server: ScriptedServer, *others: str, model: pb.GetModelResponse = MODEL) -> None:
    """A model, and applications that serve something else."""
    server.on("ListApplications", reply(FieldMask(paths=["llama", *others])))
    server.on("GetModel", by_application({"llama": reply(model), **dict.fromkeys(others, OTHER)}))


async def found(
    server: ScriptedServer, workload: Workload, documents: Documents | None = None
) -> Found:
    def ask() -> Found:
        with Client(server.target) as client:
            return look_up(client, workload, None, documents)

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(
    ("others", "documents", "mixture"),
    [
        ((), None, ("generation", "chat")),
        (("embedding",), None, ("generation", "chat", "embeddings")),
        (("diffusion", "rag"), None, ("generation", "chat", "images")),
        (("rag",), DOCUMENTS, ("generation", "chat", "rag")),
        (("embedding",), DOCUMENTS, ("generation", "chat", "embeddings")),
        (
            ("diffusion", "embedding", "rag"),
            DOCUMENTS,
            ("generation", "chat", "embeddings", "rag", "images"),
        ),
    ],
)
async def test_a_mixture_is_of_what_is_there(
    server: ScriptedServer,
    others: tuple[str, ...],
    documents: Documents | None,
    mixture: tuple[str, ...],
) -> None:
    platform(server, *others)
    subject = (await found(server, "mixed", documents)).subject
    assert subject.mixture == mixture
    assert (subject.model, subject.vocab_size) == ("orrery-llama", 512)


async def test_a_model_without_a_chat_template_is_asked_for_completions_only(
    server: ScriptedServer,
) -> None:
    plain = pb.GetModelResponse(model="orrery-gpt", vocab_size=512)
    platform(server, "embedding", model=plain)
    assert (await found(server, "mixed")).subject.mixture == ("generation", "embeddings")
    with pytest.raises(InvalidRequestError, match="a chat template, which orrery-gpt"):
        await found(server, "chat")


async def test_questions_need_documents_and_no_model(server: ScriptedServer) -> None:
    platform(server, "rag")
    asked = await found(server, "rag", DOCUMENTS)
    assert asked.model is None
    assert (asked.subject.collection, asked.subject.questions) == ("docs", ("Who?", "Where?"))
    with pytest.raises(InvalidRequestError, match="rag needs documents"):
        await found(server, "rag")

"""What `import orrery` offers, and what it must not drag in."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import orrery
from orrery import errors, results
from orrery.client_collections import AsyncCollections, Collections
from orrery.client_documents import AsyncDocuments, Documents
from orrery.client_images import AsyncImages, Images
from orrery.client_moe import AsyncMoe, Moe
from orrery.requests import generation as requests
from orrery.v1 import common_pb2, embedding_pb2, image_pb2, moe_pb2, rag_pb2, retrieval_pb2
from orrery.v1 import generation_pb2 as pb

CLIENTS = Path(orrery.__file__).parent.parent


def test_all_is_sorted_as_the_linter_wants_and_every_name_exists() -> None:
    assert len(set(orrery.__all__)) == len(orrery.__all__)
    for name in orrery.__all__:
        assert getattr(orrery, name) is not None


def test_every_error_and_every_result_is_exported() -> None:
    expected = set(errors.__all__) - {"ERRORS_BY_REASON"} | set(results.__all__)
    assert expected <= set(orrery.__all__)


@pytest.mark.parametrize(
    "kind",
    [
        orrery.Client,
        orrery.AsyncClient,
        Collections,
        AsyncCollections,
        Documents,
        AsyncDocuments,
        Images,
        AsyncImages,
        Moe,
        AsyncMoe,
    ],
)
def test_every_type_in_a_signature_can_be_imported_from_the_package(kind: type) -> None:
    elsewhere = {"Literal", "None", "PathLike", "Unpack", "True", "False"}
    elsewhere |= set(collections.abc.__all__)
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_"):
            types = " ".join(map(str, method.__annotations__.values()))
            named = set(re.findall(r"\b[A-Z]\w+", types))
            assert named - elsewhere <= set(orrery.__all__), name


def test_package_is_marked_as_typed() -> None:
    assert (Path(orrery.__file__).parent / "py.typed").exists()


def test_import_needs_neither_torch_nor_services_nor_the_terminal_libraries() -> None:
    heavy = ["torch", "numpy", "services", "ray", "pydantic", "rich", "typer", "httpx"]
    script = (
        "import sys; import orrery, orrery.v1.generation_pb2_grpc;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd="/",
        env={"PYTHONPATH": str(CLIENTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_sampling_options_are_the_fields_of_the_contract() -> None:
    options = requests.SamplingOptions.__annotations__
    assert set(options) == {field.name for field in pb.SamplingParams.DESCRIPTOR.fields}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (results.ModelInfo, pb.GetModelResponse),
        (results.Load, pb.GetLoadResponse),
        (results.CacheGeometry, pb.CacheGeometry),
        (results.RequestLimits, pb.RequestLimits),
        (results.ScoreResult, pb.ScoreResponse),
        (results.TokenizeResult, pb.TokenizeResponse),
        (results.DetokenizeResult, pb.DetokenizeResponse),
        (results.StreamEvent, pb.GenerateResponse),
        (results.BatchResult, pb.GenerateBatchResponse),
        (results.StageTiming, common_pb2.StageTiming),
        (results.Embedding, embedding_pb2.Embedding),
        (results.EmbedResult, embedding_pb2.EmbedTextResponse),
        (results.EmbeddingModelInfo, embedding_pb2.GetEmbeddingModelResponse),
        (results.EmbeddingLoad, embedding_pb2.EmbeddingServiceGetLoadResponse),
        (results.RerankResult, embedding_pb2.RerankResponse),
        (results.LabelScore, embedding_pb2.LabelScore),
        (results.Classification, embedding_pb2.Classification),
        (results.ClassifyResult, embedding_pb2.ClassifyResponse),
        (results.SimilarityResult, embedding_pb2.SimilarityResponse),
        (results.ImageProgress, image_pb2.ImageProgress),
        (results.ImagePreview, image_pb2.ImagePreview),
        (results.LatentTensor, image_pb2.LatentTensor),
        (results.ImageRecipe, image_pb2.ImageRecipe),
        (results.GeneratedImage, image_pb2.GeneratedImage),
        (results.ImageModelInfo, image_pb2.GetImageModelResponse),
        (results.ImageLoad, image_pb2.ImageServiceGetLoadResponse),
        (results.LayerRouting, moe_pb2.LayerRouting),
        (results.RouteResult, moe_pb2.RouteResponse),
        (results.LayerAnalysis, moe_pb2.LayerAnalysis),
        (results.TokenClassRouting, moe_pb2.TokenClassRouting),
        (results.RoutingAnalysis, moe_pb2.AnalyzeResponse),
        (results.LayerLoad, moe_pb2.LayerLoad),
        (results.ShardStatus, moe_pb2.ShardStatus),
        (results.ExpertLoad, moe_pb2.GetExpertLoadResponse),
        (results.ExpertPlacement, moe_pb2.ExpertPlacement),
        (results.Placement, moe_pb2.GetPlacementResponse),
        (results.ExpertMove, moe_pb2.ExpertMove),
        (results.ShardBalance, moe_pb2.ShardBalance),
        (results.RebalanceResult, moe_pb2.RebalanceResponse),
        (results.MoeModelInfo, moe_pb2.GetMoeModelResponse),
        (results.MoeLoad, moe_pb2.MoeRouterServiceGetLoadResponse),
        (results.Chunk, retrieval_pb2.Chunk),
        (results.Collection, retrieval_pb2.Collection),
        (results.StoredDocument, retrieval_pb2.StoredDocument),
        (results.Hit, retrieval_pb2.Hit),
        (results.SearchResult, retrieval_pb2.SearchResponse),
        (results.SearchBatchResult, retrieval_pb2.SearchBatchResponse),
        (results.UpsertResult, retrieval_pb2.UpsertResponse),
        (results.DeleteResult, retrieval_pb2.DeleteResponse),
        (results.SnapshotInfo, retrieval_pb2.SnapshotResponse),
        (results.RetrievalLoad, retrieval_pb2.RetrievalServiceGetLoadResponse),
        (results.Citation, rag_pb2.Citation),
        (results.Passages, rag_pb2.Passages),
        (results.AnswerDelta, rag_pb2.AnswerDelta),
        (results.AnswerBatch, rag_pb2.AskBatchResponse),
        (results.Conversation, rag_pb2.GetConversationResponse),
        (results.ConversationTurn, rag_pb2.ConversationTurn),
        (results.RagLoad, rag_pb2.RagServiceGetLoadResponse),
    ],
)
def test_results_hold_every_field_of_the_contract(result: type, message: type) -> None:
    """A field added to a proto shows up here until the client passes it on."""
    renamed = {"name": "model", "application": None} if result is results.ModelInfo else {}
    held = {renamed.get(field.name, field.name) for field in dataclasses.fields(result)}
    descriptor = message.DESCRIPTOR  # type: ignore[attr-defined]
    assert held - {None} == {field.name for field in descriptor.fields}


def test_answer_holds_every_field_of_the_contract_and_the_passages() -> None:
    held = {field.name for field in dataclasses.fields(results.Answer)}
    fields = {field.name for field in rag_pb2.AskResult.DESCRIPTOR.fields}
    assert held - {"text", "passages"} == fields - {"answer"}


def test_end_of_pictures_holds_every_field_of_the_contract() -> None:
    held = {field.name for field in dataclasses.fields(results.ImageTiming)} | {"prompt_tokens"}
    assert held == {field.name for field in image_pb2.ImagesDone.DESCRIPTOR.fields}


def test_image_options_are_the_fields_of_the_contract() -> None:
    fields = {field.name for field in image_pb2.DiffusionParameters.DESCRIPTOR.fields}
    flat = (fields - {"previews"}) | {"preview_every", "preview_kind"}
    assert set(orrery.ImageOptions.__annotations__) == flat


def test_every_event_of_pictures_is_read() -> None:
    for response in (image_pb2.ImageServiceGenerateResponse, image_pb2.EditResponse):
        kinds = response.DESCRIPTOR.oneofs_by_name["event"].fields
        assert [kind.name for kind in kinds] == ["progress", "preview", "image", "done"]


def test_configuration_of_a_collection_is_what_it_can_be_created_with() -> None:
    held = {field.name for field in dataclasses.fields(results.CollectionConfig)}
    assert held == set(orrery.CollectionOptions.__annotations__)
    contract = retrieval_pb2.CollectionConfig.DESCRIPTOR.fields
    nested = [field.message_type.fields for field in contract if field.message_type]
    flat = sum(map(len, nested)) + sum(field.message_type is None for field in contract)
    assert len(held) == flat


def test_results_are_frozen() -> None:
    for name in results.__all__:
        result = getattr(results, name)
        if inspect.isclass(result):
            assert result.__dataclass_params__.frozen


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(client: type, **narrower: str) -> dict[str, list[str]]:
        """`narrower`: parameters of which the blocking client takes only this type."""
        return {
            name: [
                str(p.replace(annotation=narrower.get(p.name, p.annotation)))
                for p in inspect.signature(method).parameters.values()
            ]
            for name, method in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(orrery.Client) == methods(orrery.AsyncClient)
    assert methods(Collections) == methods(AsyncCollections)
    assert methods(Images) == methods(AsyncImages)
    assert methods(Moe) == methods(AsyncMoe)
    assert methods(Documents) == methods(AsyncDocuments, documents="Iterable[DocumentSource]")
    signatures = (inspect.signature(c) for c in (orrery.Client, orrery.AsyncClient))
    assert len({str(signature).partition("->")[0] for signature in signatures}) == 1


@pytest.mark.parametrize("client", [orrery.Client, orrery.AsyncClient])
def test_repr_does_not_show_the_key(client: type) -> None:
    made = client("127.0.0.1:1", api_key="very-secret")
    assert "very-secret" not in repr(made) + repr(made.settings) + str(vars(made))

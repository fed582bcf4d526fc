"""The RPCs of the contract, as values: path, how the answer is read, what of it is a stream.

Paths come from the generated descriptors, so they cannot differ from the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from orrery.v1 import (
    embedding_pb2,
    expert_shard_pb2,
    file_pb2,
    generation_pb2,
    image_pb2,
    moe_pb2,
    rag_pb2,
    retrieval_pb2,
)

__all__ = [
    "ANALYZE_ROUTING",
    "ASK",
    "ASK_BATCH",
    "ATTACH_FILE",
    "CHECK_HEALTH",
    "CLASSIFY",
    "COMPUTE_EXPERTS",
    "CREATE_COLLECTION",
    "CREATE_FILE",
    "DELETE_COLLECTION",
    "DELETE_CONVERSATION",
    "DELETE_DOCUMENTS",
    "DELETE_FILE",
    "DETACH_FILE",
    "DETOKENIZE",
    "DISPATCH",
    "DISPATCH_STREAM",
    "DROP_EXPERTS",
    "EDIT_IMAGES",
    "EMBED_IMAGE",
    "EMBED_TEXT",
    "GENERATE",
    "GENERATE_BATCH",
    "GENERATE_IMAGES",
    "GET_ATTACHMENT",
    "GET_COLLECTION",
    "GET_CONVERSATION",
    "GET_DOCUMENTS",
    "GET_EMBEDDING_LOAD",
    "GET_EMBEDDING_MODEL",
    "GET_EXPERT_LOAD",
    "GET_FILE",
    "GET_FILE_CONTENT",
    "GET_IMAGE_LOAD",
    "GET_IMAGE_MODEL",
    "GET_LOAD",
    "GET_MODEL",
    "GET_MOE_LOAD",
    "GET_MOE_MODEL",
    "GET_PLACEMENT",
    "GET_RAG_LOAD",
    "GET_RETRIEVAL_LOAD",
    "GET_SHARD",
    "LIST_APPLICATIONS",
    "LIST_ATTACHMENTS",
    "LIST_COLLECTIONS",
    "LIST_DOCUMENTS",
    "LIST_FILES",
    "LOAD_EXPERTS",
    "READINESS",
    "REBALANCE",
    "REBUILD",
    "RERANK",
    "ROUTE",
    "SCORE",
    "SEARCH",
    "SEARCH_BATCH",
    "SIMILARITY",
    "SNAPSHOT",
    "TOKENIZE",
    "UPDATE_COLLECTION",
    "UPSERT",
    "Method",
]

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT")
MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    """One RPC. `parse` turns the bytes of one response message into a message."""

    path: str
    parse: Callable[[bytes], ResponseT]
    streams: bool = False  # many answers
    takes_stream: bool = False  # many requests

    @staticmethod
    def serialize(request: RequestT) -> bytes:
        """The bytes of a request."""
        return request.SerializeToString()


def _method(
    service: ServiceDescriptor,
    name: str,
    request: type[RequestT],
    response: type[MessageT],
) -> Method[RequestT, MessageT]:
    rpc = service.methods_by_name[name]
    assert rpc.input_type is request.DESCRIPTOR
    assert rpc.output_type is response.DESCRIPTOR
    return Method(
        f"/{service.full_name}/{name}",
        response.FromString,
        streams=bool(rpc.server_streaming),
        takes_stream=bool(rpc.client_streaming),
    )


_GENERATION = generation_pb2.DESCRIPTOR.services_by_name["GenerationService"]
GENERATE = _method(
    _GENERATION, "Generate", generation_pb2.GenerateRequest, generation_pb2.GenerateResponse
)
GENERATE_BATCH = _method(
    _GENERATION,
    "GenerateBatch",
    generation_pb2.GenerateBatchRequest,
    generation_pb2.GenerateBatchResponse,
)
SCORE = _method(_GENERATION, "Score", generation_pb2.ScoreRequest, generation_pb2.ScoreResponse)
TOKENIZE = _method(
    _GENERATION, "Tokenize", generation_pb2.TokenizeRequest, generation_pb2.TokenizeResponse
)
DETOKENIZE = _method(
    _GENERATION, "Detokenize", generation_pb2.DetokenizeRequest, generation_pb2.DetokenizeResponse
)
GET_MODEL = _method(
    _GENERATION, "GetModel", generation_pb2.GetModelRequest, generation_pb2.GetModelResponse
)
GET_LOAD = _method(
    _GENERATION, "GetLoad", generation_pb2.GetLoadRequest, generation_pb2.GetLoadResponse
)

_EMBEDDING = embedding_pb2.DESCRIPTOR.services_by_name["EmbeddingService"]
EMBED_TEXT = _method(
    _EMBEDDING, "EmbedText", embedding_pb2.EmbedTextRequest, embedding_pb2.EmbedTextResponse
)
RERANK = _method(_EMBEDDING, "Rerank", embedding_pb2.RerankRequest, embedding_pb2.RerankResponse)
EMBED_IMAGE = _method(
    _EMBEDDING, "EmbedImage", embedding_pb2.EmbedImageRequest, embedding_pb2.EmbedImageResponse
)
CLASSIFY = _method(
    _EMBEDDING, "Classify", embedding_pb2.ClassifyRequest, embedding_pb2.ClassifyResponse
)
SIMILARITY = _method(
    _EMBEDDING, "Similarity", embedding_pb2.SimilarityRequest, embedding_pb2.SimilarityResponse
)
GET_EMBEDDING_MODEL = _method(
    _EMBEDDING,
    "GetEmbeddingModel",
    embedding_pb2.GetEmbeddingModelRequest,
    embedding_pb2.GetEmbeddingModelResponse,
)
GET_EMBEDDING_LOAD = _method(
    _EMBEDDING,
    "GetLoad",
    embedding_pb2.EmbeddingServiceGetLoadRequest,
    embedding_pb2.EmbeddingServiceGetLoadResponse,
)

_IMAGE = image_pb2.DESCRIPTOR.services_by_name["ImageService"]
GENERATE_IMAGES = _method(
    _IMAGE,
    "Generate",
    image_pb2.ImageServiceGenerateRequest,
    image_pb2.ImageServiceGenerateResponse,
)
EDIT_IMAGES = _method(_IMAGE, "Edit", image_pb2.EditRequest, image_pb2.EditResponse)
GET_IMAGE_MODEL = _method(
    _IMAGE, "GetImageModel", image_pb2.GetImageModelRequest, image_pb2.GetImageModelResponse
)
GET_IMAGE_LOAD = _method(
    _IMAGE,
    "GetLoad",
    image_pb2.ImageServiceGetLoadRequest,
    image_pb2.ImageServiceGetLoadResponse,
)

_RETRIEVAL = retrieval_pb2.DESCRIPTOR.services_by_name["RetrievalService"]
CREATE_COLLECTION = _method(
    _RETRIEVAL,
    "CreateCollection",
    retrieval_pb2.CreateCollectionRequest,
    retrieval_pb2.CreateCollectionResponse,
)
LIST_COLLECTIONS = _method(
    _RETRIEVAL,
    "ListCollections",
    retrieval_pb2.ListCollectionsRequest,
    retrieval_pb2.ListCollectionsResponse,
)
GET_COLLECTION = _method(
    _RETRIEVAL,
    "GetCollection",
    retrieval_pb2.GetCollectionRequest,
    retrieval_pb2.GetCollectionResponse,
)
UPDATE_COLLECTION = _method(
    _RETRIEVAL,
    "UpdateCollection",
    retrieval_pb2.UpdateCollectionRequest,
    retrieval_pb2.UpdateCollectionResponse,
)
DELETE_COLLECTION = _method(
    _RETRIEVAL,
    "DeleteCollection",
    retrieval_pb2.DeleteCollectionRequest,
    retrieval_pb2.DeleteCollectionResponse,
)
UPSERT = _method(_RETRIEVAL, "Upsert", retrieval_pb2.UpsertRequest, retrieval_pb2.UpsertResponse)
DELETE_DOCUMENTS = _method(
    _RETRIEVAL, "Delete", retrieval_pb2.DeleteRequest, retrieval_pb2.DeleteResponse
)
GET_DOCUMENTS = _method(_RETRIEVAL, "Get", retrieval_pb2.GetRequest, retrieval_pb2.GetResponse)
LIST_DOCUMENTS = _method(
    _RETRIEVAL,
    "ListDocuments",
    retrieval_pb2.ListDocumentsRequest,
    retrieval_pb2.ListDocumentsResponse,
)
SEARCH = _method(_RETRIEVAL, "Search", retrieval_pb2.SearchRequest, retrieval_pb2.SearchResponse)
SEARCH_BATCH = _method(
    _RETRIEVAL, "SearchBatch", retrieval_pb2.SearchBatchRequest, retrieval_pb2.SearchBatchResponse
)
REBUILD = _method(
    _RETRIEVAL, "Rebuild", retrieval_pb2.RebuildRequest, retrieval_pb2.RebuildResponse
)
SNAPSHOT = _method(
    _RETRIEVAL, "Snapshot", retrieval_pb2.SnapshotRequest, retrieval_pb2.SnapshotResponse
)
GET_RETRIEVAL_LOAD = _method(
    _RETRIEVAL,
    "GetLoad",
    retrieval_pb2.RetrievalServiceGetLoadRequest,
    retrieval_pb2.RetrievalServiceGetLoadResponse,
)

_FILE = file_pb2.DESCRIPTOR.services_by_name["FileService"]
CREATE_FILE = _method(_FILE, "CreateFile", file_pb2.CreateFileRequest, file_pb2.CreateFileResponse)
GET_FILE = _method(_FILE, "GetFile", file_pb2.GetFileRequest, file_pb2.GetFileResponse)
LIST_FILES = _method(_FILE, "ListFiles", file_pb2.ListFilesRequest, file_pb2.ListFilesResponse)
DELETE_FILE = _method(_FILE, "DeleteFile", file_pb2.DeleteFileRequest, file_pb2.DeleteFileResponse)
GET_FILE_CONTENT = _method(
    _FILE, "GetFileContent", file_pb2.GetFileContentRequest, file_pb2.GetFileContentResponse
)
ATTACH_FILE = _method(_FILE, "AttachFile", file_pb2.AttachFileRequest, file_pb2.AttachFileResponse)
GET_ATTACHMENT = _method(
    _FILE, "GetAttachment", file_pb2.GetAttachmentRequest, file_pb2.GetAttachmentResponse
)
LIST_ATTACHMENTS = _method(
    _FILE, "ListAttachments", file_pb2.ListAttachmentsRequest, file_pb2.ListAttachmentsResponse
)
DETACH_FILE = _method(_FILE, "DetachFile", file_pb2.DetachFileRequest, file_pb2.DetachFileResponse)

_RAG = rag_pb2.DESCRIPTOR.services_by_name["RagService"]
ASK = _method(_RAG, "Ask", rag_pb2.AskRequest, rag_pb2.AskResponse)
ASK_BATCH = _method(_RAG, "AskBatch", rag_pb2.AskBatchRequest, rag_pb2.AskBatchResponse)
GET_CONVERSATION = _method(
    _RAG, "GetConversation", rag_pb2.GetConversationRequest, rag_pb2.GetConversationResponse
)
DELETE_CONVERSATION = _method(
    _RAG,
    "DeleteConversation",
    rag_pb2.DeleteConversationRequest,
    rag_pb2.DeleteConversationResponse,
)
GET_RAG_LOAD = _method(
    _RAG, "GetLoad", rag_pb2.RagServiceGetLoadRequest, rag_pb2.RagServiceGetLoadResponse
)

_MOE = moe_pb2.DESCRIPTOR.services_by_name["MoeRouterService"]
ROUTE = _method(_MOE, "Route", moe_pb2.RouteRequest, moe_pb2.RouteResponse)
DISPATCH = _method(_MOE, "Dispatch", moe_pb2.DispatchRequest, moe_pb2.DispatchResponse)
DISPATCH_STREAM = _method(
    _MOE, "DispatchStream", moe_pb2.DispatchStreamRequest, moe_pb2.DispatchStreamResponse
)
GET_PLACEMENT = _method(
    _MOE, "GetPlacement", moe_pb2.GetPlacementRequest, moe_pb2.GetPlacementResponse
)
GET_EXPERT_LOAD = _method(
    _MOE, "GetExpertLoad", moe_pb2.GetExpertLoadRequest, moe_pb2.GetExpertLoadResponse
)
REBALANCE = _method(_MOE, "Rebalance", moe_pb2.RebalanceRequest, moe_pb2.RebalanceResponse)
ANALYZE_ROUTING = _method(_MOE, "Analyze", moe_pb2.AnalyzeRequest, moe_pb2.AnalyzeResponse)
GET_MOE_MODEL = _method(
    _MOE, "GetMoeModel", moe_pb2.GetMoeModelRequest, moe_pb2.GetMoeModelResponse
)
GET_MOE_LOAD = _method(
    _MOE, "GetLoad", moe_pb2.MoeRouterServiceGetLoadRequest, moe_pb2.MoeRouterServiceGetLoadResponse
)

_EXPERT_SHARD = expert_shard_pb2.DESCRIPTOR.services_by_name["ExpertShardService"]
COMPUTE_EXPERTS = _method(
    _EXPERT_SHARD, "Compute", expert_shard_pb2.ComputeRequest, expert_shard_pb2.ComputeResponse
)
LOAD_EXPERTS = _method(
    _EXPERT_SHARD,
    "LoadExperts",
    expert_shard_pb2.LoadExpertsRequest,
    expert_shard_pb2.LoadExpertsResponse,
)
DROP_EXPERTS = _method(
    _EXPERT_SHARD,
    "DropExperts",
    expert_shard_pb2.DropExpertsRequest,
    expert_shard_pb2.DropExpertsResponse,
)
GET_SHARD = _method(
    _EXPERT_SHARD, "GetShard", expert_shard_pb2.GetShardRequest, expert_shard_pb2.GetShardResponse
)

# Ray Serve's own RPC. Its request is empty and its response is one `repeated string` with number 1,
# on the wire the same as FieldMask: reading it so spares a generated copy of Ray's messages.
LIST_APPLICATIONS: Method[FieldMask, FieldMask] = Method(
    "/ray.serve.RayServeAPIService/ListApplications", FieldMask.FromString
)

# Of `grpc.health.v1`. Its request is one `string` with number 1, on the wire the same as
# StringValue; what it answers is not read, as under READINESS it fails unless the service serves.
CHECK_HEALTH: Method[StringValue, Empty] = Method("/grpc.health.v1.Health/Check", Empty.FromString)
READINESS = "orrery.readiness"

"""The RPCs this client calls, as values: path, how the answer is read, whether it is a stream.

Paths come from the generated descriptors, so they cannot differ from the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from orrery.v1 import generation_pb2 as pb

__all__ = [
    "DETOKENIZE",
    "GENERATE",
    "GENERATE_BATCH",
    "GET_LOAD",
    "GET_MODEL",
    "LIST_APPLICATIONS",
    "SCORE",
    "TOKENIZE",
    "Method",
]

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT")
MessageT = TypeVar("MessageT", bound=Message)

_GENERATION = pb.DESCRIPTOR.services_by_name["GenerationService"]


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    """One RPC. `parse` turns the bytes of one response message into a message."""

    path: str
    parse: Callable[[bytes], ResponseT]
    streams: bool = False

    @staticmethod
    def serialize(request: RequestT) -> bytes:
        """The bytes of a request."""
        return request.SerializeToString()


def _generation(
    name: str, request: type[RequestT], response: type[MessageT]
) -> Method[RequestT, MessageT]:
    rpc = _GENERATION.methods_by_name[name]
    assert rpc.input_type is request.DESCRIPTOR
    assert rpc.output_type is response.DESCRIPTOR
    path = f"/{_GENERATION.full_name}/{name}"
    return Method(path, response.FromString, streams=bool(rpc.server_streaming))


GENERATE = _generation("Generate", pb.GenerateRequest, pb.GenerateResponse)
GENERATE_BATCH = _generation("GenerateBatch", pb.GenerateBatchRequest, pb.GenerateBatchResponse)
SCORE = _generation("Score", pb.ScoreRequest, pb.ScoreResponse)
TOKENIZE = _generation("Tokenize", pb.TokenizeRequest, pb.TokenizeResponse)
DETOKENIZE = _generation("Detokenize", pb.DetokenizeRequest, pb.DetokenizeResponse)
GET_MODEL = _generation("GetModel", pb.GetModelRequest, pb.GetModelResponse)
GET_LOAD = _generation("GetLoad", pb.GetLoadRequest, pb.GetLoadResponse)

# Ray Serve's own RPC. Its request is empty and its response is one `repeated string` with number 1,
# on the wire the same as FieldMask: reading it so spares a generated copy of Ray's messages.
LIST_APPLICATIONS: Method[FieldMask, FieldMask] = Method(
    "/ray.serve.RayServeAPIService/ListApplications", FieldMask.FromString
)

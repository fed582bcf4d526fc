"""Protobuf messages of `embedding.proto` to and from the domain, field by field, no decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from orrery.v1 import common_pb2
from orrery.v1 import embedding_pb2 as pb
from services.embedding.inputs import Input, Purpose, TextInput, TokenInput
from services.embedding.model import Vectors
from services.embedding.service import Embedded, Scored
from services.runtime.errors import InvalidRequest

__all__ = ["embedding_inputs", "embeddings", "purpose", "ranking", "timing", "usage"]

_PURPOSES: Mapping[int, Purpose] = MappingProxyType(
    {
        pb.EMBEDDING_PURPOSE_UNSPECIFIED: Purpose.NONE,
        pb.EMBEDDING_PURPOSE_QUERY: Purpose.QUERY,
        pb.EMBEDDING_PURPOSE_PASSAGE: Purpose.PASSAGE,
    }
)


_LENGTH_DELIMITED = 2  # wire type of packed fields
_VALUES_TAG = bytes([pb.Embedding.VALUES_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])


def purpose(value: int) -> Purpose:
    """Raises `InvalidRequest` for a number that the contract does not have."""
    if value not in _PURPOSES:
        raise InvalidRequest("purpose: expected QUERY, PASSAGE or none", field="purpose")
    return _PURPOSES[value]


def embedding_inputs(messages: Sequence[pb.EmbeddingInput]) -> list[Input]:
    """Each in whichever form it has. Raises `InvalidRequest` when one has none."""
    inputs: list[Input] = []
    for position, message in enumerate(messages):
        match message.WhichOneof("kind"):
            case "text":
                inputs.append(TextInput(message.text))
            case "token_ids":
                inputs.append(TokenInput(list(message.token_ids.ids)))
            case _:
                field = f"inputs[{position}]"
                raise InvalidRequest(f"{field}: expected text or token_ids", field=field)
    return inputs


def embeddings(embedded: Embedded, vectors: Vectors) -> list[pb.Embedding]:
    """One message for each row of `vectors`, which may have fewer dimensions than embedded."""
    # A packed field is its tag, its length and its little-endian values. Parsing that takes a ninth
    # of the time that handing over a list of Python's floats does: 6 ms for the largest call.
    rows = vectors.astype("<f4", copy=False)
    header = _VALUES_TAG + _varint(rows.shape[1] * rows.itemsize)
    messages = []
    for row, item, cached in zip(rows, embedded.inputs, embedded.cached, strict=True):
        message = pb.Embedding.FromString(header + row.tobytes())
        message.num_tokens = len(item.ids)
        message.truncated = item.truncated
        message.cached = cached
        messages.append(message)
    return messages


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first, the top bit set where more follow."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def ranking(scores: Sequence[float], top_n: int) -> list[pb.RerankResult]:
    """Best first; equal scores in the order of the passages."""
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    return [pb.RerankResult(index=index, score=scores[index]) for index in order[:top_n]]


def usage(embedded: Embedded) -> common_pb2.Usage:
    """Tokens read; those of vectors from the cache count as cached."""
    lengths = [len(item.ids) for item in embedded.inputs]
    cached = zip(lengths, embedded.cached, strict=True)
    return common_pb2.Usage(
        prompt_tokens=sum(lengths),
        cached_tokens=sum(length for length, is_cached in cached if is_cached),
    )


def timing(stages: Embedded | Scored, total_ns: int, *, rerank: bool = False) -> common_pb2.Timing:
    """Waiting and computing in nanoseconds, and the whole call's time."""
    compute_ns = int(stages.compute_s * 1e9)
    return common_pb2.Timing(
        queue_ns=int(stages.queue_s * 1e9),
        prefill_ns=0 if rerank else compute_ns,
        rerank_ns=compute_ns if rerank else 0,
        total_ns=total_ns,
    )

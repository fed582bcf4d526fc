"""Pieces of the contract's messages that many answers have, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from orrery.v1 import common_pb2, retrieval_pb2
from services.gateway.errors import error_body
from services.gateway.field_names import as_client_wrote
from services.gateway.upstream import error_of_item

__all__ = [
    "decimal",
    "item_error",
    "metadata",
    "seconds",
    "timeline",
    "timing",
    "usage",
]


def seconds(time: Timestamp) -> int:
    """Since the Unix epoch."""
    return time.seconds


def decimal(value: float) -> float:
    """What was written before 32 bits held it: 0.8, which they make 0.800000012."""
    return float(str(np.float32(value)))


def metadata(values: Mapping[str, retrieval_pb2.MetadataValue]) -> dict[str, Any]:
    """Plain values; numbers that are whole without a fraction."""
    return {key: _value(values[key]) for key in sorted(values)}


def _value(value: retrieval_pb2.MetadataValue) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_list":
        return list(value.string_list.values)
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= 2**53 else number
    return None if kind is None else getattr(value, kind)


def usage(tokens: common_pb2.Usage) -> dict[str, int]:
    """Tokens, by what they were spent on."""
    return {
        "prompt_tokens": tokens.prompt_tokens,
        "completion_tokens": tokens.completion_tokens,
        "total_tokens": tokens.prompt_tokens + tokens.completion_tokens,
        "cached_tokens": tokens.cached_tokens,
    }


def timing(spent: common_pb2.Timing) -> dict[str, int]:
    """Nanoseconds by stage."""
    return {
        "queue_ns": spent.queue_ns,
        "prefill_ns": spent.prefill_ns,
        "decode_ns": spent.decode_ns,
        "retrieval_ns": spent.retrieval_ns,
        "rerank_ns": spent.rerank_ns,
        "total_ns": spent.total_ns,
    }


def timeline(stages: Iterable[common_pb2.StageTiming]) -> list[dict[str, Any]]:
    """Stages in their order."""
    return [
        {
            "stage": stage.stage,
            "start_ns": stage.start_ns,
            "duration_ns": stage.duration_ns,
            "detail": stage.detail,
        }
        for stage in stages
    ]


def item_error(error: retrieval_pb2.ItemError, names: Mapping[str, str]) -> dict[str, Any]:
    """Why one of many failed, as an error of its own would say it."""
    body = error_body(as_client_wrote(error_of_item(error), names))["error"]
    return {key: body[key] for key in ("code", "message", "param")}

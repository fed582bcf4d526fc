"""Protobuf messages of `expert_shard.proto` to and from the domain, checked against the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orrery.v1 import expert_shard_pb2 as pb
from orrery.v1 import retrieval_pb2
from services.moe.expert_key import ExpertKey
from services.moe.model_facts import ModelFacts
from services.moe.shard_work import ShardWork
from services.moe.tensors import RowsFormat, check_finite, read_rows
from services.runtime.errors import InvalidRequest, OrreryError, kind_of

__all__ = ["check_weight_hash", "expert_ids", "expert_keys", "expert_rows", "item_error"]


def check_weight_hash(weight_hash: str, model: ModelFacts, field: str = "weight_hash") -> None:
    """Raises `InvalidRequest` where the caller means other weights."""
    if weight_hash != model.weight_hash:
        raise _invalid(
            field, f"this shard's experts are of {model.weight_hash}, not of {weight_hash[:64]!r}"
        )


def expert_rows(request: pb.ComputeRequest, model: ModelFacts) -> ShardWork:
    """The work that a message asks for. Raises `InvalidRequest` naming the field."""
    if not request.HasField("work"):
        raise InvalidRequest("action: expected work, or a cancel", field="action")
    work = request.work
    check_weight_hash(work.weight_hash, model, "work.weight_hash")
    _check_layer(work.layer, model, "work.layer")
    ids, counts = list(work.expert_ids), list(work.num_rows)
    if len(ids) != len(counts):
        raise _invalid(
            "work.num_rows",
            f"expected {len(ids)} numbers, one for each of expert_ids, got {len(counts)}",
        )
    if len(set(ids)) != len(ids):
        raise _invalid("work.expert_ids", "expected each expert once")
    for expert in ids:
        _check_expert(expert, model, "work.expert_ids")
    if 0 in counts:
        raise _invalid("work.num_rows", "expected 1 or more for each expert")
    if work.HasField("timeout_ms") and not work.timeout_ms:
        raise _invalid("work.timeout_ms", "expected 1 or more milliseconds")
    expected = RowsFormat(model.hidden_size, model.dtype, model.max_message_rows)
    rows = read_rows(work.rows, expected, "work.rows")
    check_finite(rows, "work.rows")
    if sum(counts) != len(rows):
        raise _invalid(
            "work.num_rows", f"expected to sum to the {len(rows)} rows, got {sum(counts)}"
        )
    return ShardWork(work.layer, ids, counts, rows)


def item_error(error: OrreryError) -> retrieval_pb2.ItemError:
    """Said as the status of a call of its own would say it."""
    return retrieval_pb2.ItemError(
        reason=kind_of(error).reason, message=error.message, field=error.field or ""
    )


def expert_keys(experts: Sequence[pb.ExpertId], model: ModelFacts) -> list[ExpertKey]:
    """Raises `InvalidRequest` for an expert that the model does not have."""
    if not experts:
        raise _invalid("experts", "expected at least one")
    for position, expert in enumerate(experts):
        _check_layer(expert.layer, model, f"experts[{position}].layer")
        _check_expert(expert.expert, model, f"experts[{position}].expert")
    return [ExpertKey(expert.layer, expert.expert) for expert in experts]


def expert_ids(keys: Iterable[ExpertKey]) -> list[pb.ExpertId]:
    """As messages."""
    return [pb.ExpertId(layer=key.layer, expert=key.expert) for key in keys]


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}", field=field)


def _check_layer(layer: int, model: ModelFacts, field: str) -> None:
    if layer not in model.layers:
        raise _invalid(
            field, f"expected a sparse layer of the model, one of {list(model.layers)}, got {layer}"
        )


def _check_expert(expert: int, model: ModelFacts, field: str) -> None:
    if expert >= model.num_experts:
        raise _invalid(field, f"expected numbers from 0 to {model.num_experts - 1}, got {expert}")

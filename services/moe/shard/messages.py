"""Protobuf messages of `expert_shard.proto` to and from the domain, checked against the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orrery.v1 import expert_shard_pb2 as pb
from services.moe.expert_key import ExpertKey
from services.moe.model_facts import ModelFacts
from services.moe.shard.expert_store import ExpertRows
from services.moe.tensors import RowsFormat, check_finite, read_rows
from services.runtime.errors import InvalidRequest

__all__ = ["check_weight_hash", "expert_ids", "expert_keys", "expert_rows"]


def check_weight_hash(weight_hash: str, model: ModelFacts) -> None:
    """Raises `InvalidRequest` where the caller means other weights."""
    if weight_hash != model.weight_hash:
        raise InvalidRequest(
            f"weight_hash: this shard's experts are of {model.weight_hash}, "
            f"not of {weight_hash[:64]!r}",
            field="weight_hash",
        )


def expert_rows(request: pb.ComputeRequest, model: ModelFacts) -> ExpertRows:
    """The work that a request asks for. Raises `InvalidRequest` naming the field."""
    check_weight_hash(request.weight_hash, model)
    _check_layer(request.layer, model, "layer")
    ids, counts = list(request.expert_ids), list(request.num_rows)
    if len(ids) != len(counts):
        raise InvalidRequest(
            f"num_rows: expected {len(ids)} numbers, one for each of expert_ids, got {len(counts)}",
            field="num_rows",
        )
    if len(set(ids)) != len(ids):
        raise InvalidRequest("expert_ids: expected each expert once", field="expert_ids")
    for expert in ids:
        _check_expert(expert, model, "expert_ids")
    if 0 in counts:
        raise InvalidRequest("num_rows: expected 1 or more for each expert", field="num_rows")
    expected = RowsFormat(model.hidden_size, model.dtype, model.max_message_rows)
    rows = read_rows(request.rows, expected, "rows")
    check_finite(rows, "rows")
    if sum(counts) != len(rows):
        raise InvalidRequest(
            f"num_rows: expected to sum to the {len(rows)} rows, got {sum(counts)}",
            field="num_rows",
        )
    return ExpertRows(request.layer, ids, counts, rows)


def expert_keys(experts: Sequence[pb.ExpertId], model: ModelFacts) -> list[ExpertKey]:
    """Raises `InvalidRequest` for an expert that the model does not have."""
    if not experts:
        raise InvalidRequest("experts: expected at least one", field="experts")
    for position, expert in enumerate(experts):
        _check_layer(expert.layer, model, f"experts[{position}].layer")
        _check_expert(expert.expert, model, f"experts[{position}].expert")
    return [ExpertKey(expert.layer, expert.expert) for expert in experts]


def expert_ids(keys: Iterable[ExpertKey]) -> list[pb.ExpertId]:
    """As messages."""
    return [pb.ExpertId(layer=key.layer, expert=key.expert) for key in keys]


def _check_layer(layer: int, model: ModelFacts, field: str) -> None:
    if layer not in model.layers:
        raise InvalidRequest(
            f"{field}: expected a sparse layer of the model, one of {list(model.layers)}, "
            f"got {layer}",
            field=field,
        )


def _check_expert(expert: int, model: ModelFacts, field: str) -> None:
    if expert >= model.num_experts:
        raise InvalidRequest(
            f"{field}: expected numbers from 0 to {model.num_experts - 1}, got {expert}",
            field=field,
        )

from orrery.v1 import common_pb2 as _common_pb2
from orrery.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CapacityPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAPACITY_POLICY_UNSPECIFIED: _ClassVar[CapacityPolicy]
    CAPACITY_POLICY_DROP: _ClassVar[CapacityPolicy]
    CAPACITY_POLICY_REROUTE: _ClassVar[CapacityPolicy]
CAPACITY_POLICY_UNSPECIFIED: CapacityPolicy
CAPACITY_POLICY_DROP: CapacityPolicy
CAPACITY_POLICY_REROUTE: CapacityPolicy

class LayerInput(_message.Message):
    __slots__ = ("layer", "hidden")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    layer: int
    hidden: _tensor_pb2.Tensor
    def __init__(self, layer: _Optional[int] = ..., hidden: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class RouteRequest(_message.Message):
    __slots__ = ("model", "hidden", "text", "token_ids")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    hidden: LayerInput
    text: str
    token_ids: _common_pb2.TokenIds
    def __init__(self, model: _Optional[str] = ..., hidden: _Optional[_Union[LayerInput, _Mapping]] = ..., text: _Optional[str] = ..., token_ids: _Optional[_Union[_common_pb2.TokenIds, _Mapping]] = ...) -> None: ...

class LayerRouting(_message.Message):
    __slots__ = ("layer", "expert_ids", "weights", "entropies")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    EXPERT_IDS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    ENTROPIES_FIELD_NUMBER: _ClassVar[int]
    layer: int
    expert_ids: _containers.RepeatedScalarFieldContainer[int]
    weights: _containers.RepeatedScalarFieldContainer[float]
    entropies: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, layer: _Optional[int] = ..., expert_ids: _Optional[_Iterable[int]] = ..., weights: _Optional[_Iterable[float]] = ..., entropies: _Optional[_Iterable[float]] = ...) -> None: ...

class RouteResponse(_message.Message):
    __slots__ = ("request_id", "model", "num_experts_per_token", "layers", "token_ids", "timing")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    num_experts_per_token: int
    layers: _containers.RepeatedCompositeFieldContainer[LayerRouting]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    timing: _common_pb2.Timing
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., num_experts_per_token: _Optional[int] = ..., layers: _Optional[_Iterable[_Union[LayerRouting, _Mapping]]] = ..., token_ids: _Optional[_Iterable[int]] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class DispatchRequest(_message.Message):
    __slots__ = ("model", "input")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    model: str
    input: LayerInput
    def __init__(self, model: _Optional[str] = ..., input: _Optional[_Union[LayerInput, _Mapping]] = ...) -> None: ...

class DispatchResponse(_message.Message):
    __slots__ = ("request_id", "model", "hidden", "placement_version", "num_dropped", "timing")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    NUM_DROPPED_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    hidden: _tensor_pb2.Tensor
    placement_version: int
    num_dropped: int
    timing: _common_pb2.Timing
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., hidden: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., placement_version: _Optional[int] = ..., num_dropped: _Optional[int] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class DispatchStreamRequest(_message.Message):
    __slots__ = ("model", "sequence", "input", "timeout_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    sequence: int
    input: LayerInput
    timeout_ms: int
    def __init__(self, model: _Optional[str] = ..., sequence: _Optional[int] = ..., input: _Optional[_Union[LayerInput, _Mapping]] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class DispatchStreamResponse(_message.Message):
    __slots__ = ("sequence", "hidden", "placement_version", "num_dropped")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    NUM_DROPPED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    hidden: _tensor_pb2.Tensor
    placement_version: int
    num_dropped: int
    def __init__(self, sequence: _Optional[int] = ..., hidden: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., placement_version: _Optional[int] = ..., num_dropped: _Optional[int] = ...) -> None: ...

class GetPlacementRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ExpertPlacement(_message.Message):
    __slots__ = ("layer", "expert", "shards")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    EXPERT_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    layer: int
    expert: int
    shards: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, layer: _Optional[int] = ..., expert: _Optional[int] = ..., shards: _Optional[_Iterable[str]] = ...) -> None: ...

class ShardStatus(_message.Message):
    __slots__ = ("shard", "reachable", "num_experts", "expert_bytes", "max_expert_bytes", "num_rows")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    EXPERT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_EXPERT_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_FIELD_NUMBER: _ClassVar[int]
    shard: str
    reachable: bool
    num_experts: int
    expert_bytes: int
    max_expert_bytes: int
    num_rows: int
    def __init__(self, shard: _Optional[str] = ..., reachable: _Optional[bool] = ..., num_experts: _Optional[int] = ..., expert_bytes: _Optional[int] = ..., max_expert_bytes: _Optional[int] = ..., num_rows: _Optional[int] = ...) -> None: ...

class GetPlacementResponse(_message.Message):
    __slots__ = ("request_id", "model", "version", "experts", "shards")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    version: int
    experts: _containers.RepeatedCompositeFieldContainer[ExpertPlacement]
    shards: _containers.RepeatedCompositeFieldContainer[ShardStatus]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., experts: _Optional[_Iterable[_Union[ExpertPlacement, _Mapping]]] = ..., shards: _Optional[_Iterable[_Union[ShardStatus, _Mapping]]] = ...) -> None: ...

class GetExpertLoadRequest(_message.Message):
    __slots__ = ("model", "window_s")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    window_s: int
    def __init__(self, model: _Optional[str] = ..., window_s: _Optional[int] = ...) -> None: ...

class LayerLoad(_message.Message):
    __slots__ = ("layer", "num_tokens", "max_over_mean", "mean_entropy", "num_dropped")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_OVER_MEAN_FIELD_NUMBER: _ClassVar[int]
    MEAN_ENTROPY_FIELD_NUMBER: _ClassVar[int]
    NUM_DROPPED_FIELD_NUMBER: _ClassVar[int]
    layer: int
    num_tokens: _containers.RepeatedScalarFieldContainer[int]
    max_over_mean: float
    mean_entropy: float
    num_dropped: int
    def __init__(self, layer: _Optional[int] = ..., num_tokens: _Optional[_Iterable[int]] = ..., max_over_mean: _Optional[float] = ..., mean_entropy: _Optional[float] = ..., num_dropped: _Optional[int] = ...) -> None: ...

class GetExpertLoadResponse(_message.Message):
    __slots__ = ("request_id", "model", "layers", "shards", "window_s")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    layers: _containers.RepeatedCompositeFieldContainer[LayerLoad]
    shards: _containers.RepeatedCompositeFieldContainer[ShardStatus]
    window_s: float
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., layers: _Optional[_Iterable[_Union[LayerLoad, _Mapping]]] = ..., shards: _Optional[_Iterable[_Union[ShardStatus, _Mapping]]] = ..., window_s: _Optional[float] = ...) -> None: ...

class RebalanceRequest(_message.Message):
    __slots__ = ("model", "dry_run", "max_shard_bytes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    MAX_SHARD_BYTES_FIELD_NUMBER: _ClassVar[int]
    model: str
    dry_run: bool
    max_shard_bytes: int
    def __init__(self, model: _Optional[str] = ..., dry_run: _Optional[bool] = ..., max_shard_bytes: _Optional[int] = ...) -> None: ...

class ExpertMove(_message.Message):
    __slots__ = ("layer", "expert", "shard", "added")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    EXPERT_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    layer: int
    expert: int
    shard: str
    added: bool
    def __init__(self, layer: _Optional[int] = ..., expert: _Optional[int] = ..., shard: _Optional[str] = ..., added: _Optional[bool] = ...) -> None: ...

class ShardBalance(_message.Message):
    __slots__ = ("max_over_mean", "num_rows", "layers_max_over_mean")
    MAX_OVER_MEAN_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_MAX_OVER_MEAN_FIELD_NUMBER: _ClassVar[int]
    max_over_mean: float
    num_rows: _containers.RepeatedScalarFieldContainer[int]
    layers_max_over_mean: float
    def __init__(self, max_over_mean: _Optional[float] = ..., num_rows: _Optional[_Iterable[int]] = ..., layers_max_over_mean: _Optional[float] = ...) -> None: ...

class RebalanceResponse(_message.Message):
    __slots__ = ("request_id", "model", "version", "applied", "before", "after", "moves")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    version: int
    applied: bool
    before: ShardBalance
    after: ShardBalance
    moves: _containers.RepeatedCompositeFieldContainer[ExpertMove]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., applied: _Optional[bool] = ..., before: _Optional[_Union[ShardBalance, _Mapping]] = ..., after: _Optional[_Union[ShardBalance, _Mapping]] = ..., moves: _Optional[_Iterable[_Union[ExpertMove, _Mapping]]] = ...) -> None: ...

class AnalyzeRequest(_message.Message):
    __slots__ = ("model", "text")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    model: str
    text: str
    def __init__(self, model: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class LayerAnalysis(_message.Message):
    __slots__ = ("routing", "load_balancing_loss", "z_loss", "shares")
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    LOAD_BALANCING_LOSS_FIELD_NUMBER: _ClassVar[int]
    Z_LOSS_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    routing: LayerRouting
    load_balancing_loss: float
    z_loss: float
    shares: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, routing: _Optional[_Union[LayerRouting, _Mapping]] = ..., load_balancing_loss: _Optional[float] = ..., z_loss: _Optional[float] = ..., shares: _Optional[_Iterable[float]] = ...) -> None: ...

class TokenClassRouting(_message.Message):
    __slots__ = ("token_class", "num_tokens", "layer", "shares")
    TOKEN_CLASS_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    token_class: str
    num_tokens: int
    layer: int
    shares: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, token_class: _Optional[str] = ..., num_tokens: _Optional[int] = ..., layer: _Optional[int] = ..., shares: _Optional[_Iterable[float]] = ...) -> None: ...

class AnalyzeResponse(_message.Message):
    __slots__ = ("request_id", "model", "num_experts", "num_experts_per_token", "token_ids", "tokens", "layers", "token_classes", "timing")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_CLASSES_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    num_experts: int
    num_experts_per_token: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    layers: _containers.RepeatedCompositeFieldContainer[LayerAnalysis]
    token_classes: _containers.RepeatedCompositeFieldContainer[TokenClassRouting]
    timing: _common_pb2.Timing
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., num_experts: _Optional[int] = ..., num_experts_per_token: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., tokens: _Optional[_Iterable[str]] = ..., layers: _Optional[_Iterable[_Union[LayerAnalysis, _Mapping]]] = ..., token_classes: _Optional[_Iterable[_Union[TokenClassRouting, _Mapping]]] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class GetMoeModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetMoeModelResponse(_message.Message):
    __slots__ = ("request_id", "model", "weight_hash", "hidden_size", "num_experts", "num_experts_per_token", "layers", "dtype", "bytes_per_expert", "max_tokens", "max_text_bytes", "capacity_factor", "capacity_policy", "aliases")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_HASH_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_EXPERT_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FACTOR_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_POLICY_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    weight_hash: str
    hidden_size: int
    num_experts: int
    num_experts_per_token: int
    layers: _containers.RepeatedScalarFieldContainer[int]
    dtype: _tensor_pb2.TensorDtype
    bytes_per_expert: int
    max_tokens: int
    max_text_bytes: int
    capacity_factor: float
    capacity_policy: CapacityPolicy
    aliases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., weight_hash: _Optional[str] = ..., hidden_size: _Optional[int] = ..., num_experts: _Optional[int] = ..., num_experts_per_token: _Optional[int] = ..., layers: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[_tensor_pb2.TensorDtype, str]] = ..., bytes_per_expert: _Optional[int] = ..., max_tokens: _Optional[int] = ..., max_text_bytes: _Optional[int] = ..., capacity_factor: _Optional[float] = ..., capacity_policy: _Optional[_Union[CapacityPolicy, str]] = ..., aliases: _Optional[_Iterable[str]] = ...) -> None: ...

class MoeRouterServiceGetLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MoeRouterServiceGetLoadResponse(_message.Message):
    __slots__ = ("request_id", "model", "num_running", "num_waiting_tokens", "num_tokens_done", "num_dispatching", "resident_bytes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    NUM_WAITING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_DONE_FIELD_NUMBER: _ClassVar[int]
    NUM_DISPATCHING_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    num_running: int
    num_waiting_tokens: int
    num_tokens_done: int
    num_dispatching: int
    resident_bytes: int
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., num_running: _Optional[int] = ..., num_waiting_tokens: _Optional[int] = ..., num_tokens_done: _Optional[int] = ..., num_dispatching: _Optional[int] = ..., resident_bytes: _Optional[int] = ...) -> None: ...

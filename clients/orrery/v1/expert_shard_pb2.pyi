from orrery.v1 import common_pb2 as _common_pb2
from orrery.v1 import retrieval_pb2 as _retrieval_pb2
from orrery.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExpertId(_message.Message):
    __slots__ = ("layer", "expert")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    EXPERT_FIELD_NUMBER: _ClassVar[int]
    layer: int
    expert: int
    def __init__(self, layer: _Optional[int] = ..., expert: _Optional[int] = ...) -> None: ...

class ComputeRequest(_message.Message):
    __slots__ = ("sequence", "work", "cancel")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    work: ExpertWork
    cancel: CancelWork
    def __init__(self, sequence: _Optional[int] = ..., work: _Optional[_Union[ExpertWork, _Mapping]] = ..., cancel: _Optional[_Union[CancelWork, _Mapping]] = ...) -> None: ...

class ExpertWork(_message.Message):
    __slots__ = ("weight_hash", "layer", "expert_ids", "num_rows", "rows", "timeout_ms")
    WEIGHT_HASH_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    EXPERT_IDS_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    weight_hash: str
    layer: int
    expert_ids: _containers.RepeatedScalarFieldContainer[int]
    num_rows: _containers.RepeatedScalarFieldContainer[int]
    rows: _tensor_pb2.Tensor
    timeout_ms: int
    def __init__(self, weight_hash: _Optional[str] = ..., layer: _Optional[int] = ..., expert_ids: _Optional[_Iterable[int]] = ..., num_rows: _Optional[_Iterable[int]] = ..., rows: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class CancelWork(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ComputeResponse(_message.Message):
    __slots__ = ("sequence", "rows", "timing", "error")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    rows: _tensor_pb2.Tensor
    timing: _common_pb2.Timing
    error: _retrieval_pb2.ItemError
    def __init__(self, sequence: _Optional[int] = ..., rows: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ..., error: _Optional[_Union[_retrieval_pb2.ItemError, _Mapping]] = ...) -> None: ...

class LoadExpertsRequest(_message.Message):
    __slots__ = ("weight_hash", "experts")
    WEIGHT_HASH_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    weight_hash: str
    experts: _containers.RepeatedCompositeFieldContainer[ExpertId]
    def __init__(self, weight_hash: _Optional[str] = ..., experts: _Optional[_Iterable[_Union[ExpertId, _Mapping]]] = ...) -> None: ...

class LoadExpertsResponse(_message.Message):
    __slots__ = ("request_id", "expert_bytes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERT_BYTES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    expert_bytes: int
    def __init__(self, request_id: _Optional[str] = ..., expert_bytes: _Optional[int] = ...) -> None: ...

class DropExpertsRequest(_message.Message):
    __slots__ = ("weight_hash", "experts")
    WEIGHT_HASH_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    weight_hash: str
    experts: _containers.RepeatedCompositeFieldContainer[ExpertId]
    def __init__(self, weight_hash: _Optional[str] = ..., experts: _Optional[_Iterable[_Union[ExpertId, _Mapping]]] = ...) -> None: ...

class DropExpertsResponse(_message.Message):
    __slots__ = ("request_id", "expert_bytes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERT_BYTES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    expert_bytes: int
    def __init__(self, request_id: _Optional[str] = ..., expert_bytes: _Optional[int] = ...) -> None: ...

class GetShardRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetShardResponse(_message.Message):
    __slots__ = ("request_id", "weight_hash", "experts", "expert_bytes", "max_expert_bytes", "num_rows_done", "num_running", "resident_bytes", "dtype")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_HASH_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    EXPERT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_EXPERT_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_DONE_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    weight_hash: str
    experts: _containers.RepeatedCompositeFieldContainer[ExpertId]
    expert_bytes: int
    max_expert_bytes: int
    num_rows_done: int
    num_running: int
    resident_bytes: int
    dtype: _tensor_pb2.TensorDtype
    def __init__(self, request_id: _Optional[str] = ..., weight_hash: _Optional[str] = ..., experts: _Optional[_Iterable[_Union[ExpertId, _Mapping]]] = ..., expert_bytes: _Optional[int] = ..., max_expert_bytes: _Optional[int] = ..., num_rows_done: _Optional[int] = ..., num_running: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., dtype: _Optional[_Union[_tensor_pb2.TensorDtype, str]] = ...) -> None: ...

from orrery.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmbeddingPurpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMBEDDING_PURPOSE_UNSPECIFIED: _ClassVar[EmbeddingPurpose]
    EMBEDDING_PURPOSE_QUERY: _ClassVar[EmbeddingPurpose]
    EMBEDDING_PURPOSE_PASSAGE: _ClassVar[EmbeddingPurpose]

class RerankMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RERANK_METHOD_UNSPECIFIED: _ClassVar[RerankMethod]
    RERANK_METHOD_CROSS_ENCODER: _ClassVar[RerankMethod]
    RERANK_METHOD_BI_ENCODER: _ClassVar[RerankMethod]

class Modality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODALITY_UNSPECIFIED: _ClassVar[Modality]
    MODALITY_TEXT: _ClassVar[Modality]
    MODALITY_IMAGE: _ClassVar[Modality]
EMBEDDING_PURPOSE_UNSPECIFIED: EmbeddingPurpose
EMBEDDING_PURPOSE_QUERY: EmbeddingPurpose
EMBEDDING_PURPOSE_PASSAGE: EmbeddingPurpose
RERANK_METHOD_UNSPECIFIED: RerankMethod
RERANK_METHOD_CROSS_ENCODER: RerankMethod
RERANK_METHOD_BI_ENCODER: RerankMethod
MODALITY_UNSPECIFIED: Modality
MODALITY_TEXT: Modality
MODALITY_IMAGE: Modality

class EmbeddingInput(_message.Message):
    __slots__ = ("text", "token_ids")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_ids: _common_pb2.TokenIds
    def __init__(self, text: _Optional[str] = ..., token_ids: _Optional[_Union[_common_pb2.TokenIds, _Mapping]] = ...) -> None: ...

class EmbedTextRequest(_message.Message):
    __slots__ = ("model", "inputs", "purpose", "dimensions", "truncate")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[EmbeddingInput]
    purpose: EmbeddingPurpose
    dimensions: int
    truncate: bool
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[EmbeddingInput, _Mapping]]] = ..., purpose: _Optional[_Union[EmbeddingPurpose, str]] = ..., dimensions: _Optional[int] = ..., truncate: _Optional[bool] = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("values", "num_tokens", "truncated", "cached")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    num_tokens: int
    truncated: bool
    cached: bool
    def __init__(self, values: _Optional[_Iterable[float]] = ..., num_tokens: _Optional[int] = ..., truncated: _Optional[bool] = ..., cached: _Optional[bool] = ...) -> None: ...

class EmbedTextResponse(_message.Message):
    __slots__ = ("request_id", "model", "embeddings", "usage", "timing")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    usage: _common_pb2.Usage
    timing: _common_pb2.Timing
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class EmbedImageRequest(_message.Message):
    __slots__ = ("model", "images", "dimensions")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    images: _containers.RepeatedCompositeFieldContainer[_common_pb2.ImageContent]
    dimensions: int
    def __init__(self, model: _Optional[str] = ..., images: _Optional[_Iterable[_Union[_common_pb2.ImageContent, _Mapping]]] = ..., dimensions: _Optional[int] = ...) -> None: ...

class EmbedImageResponse(_message.Message):
    __slots__ = ("request_id", "model", "embeddings", "timing")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    timing: _common_pb2.Timing
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("model", "images", "labels", "templates", "top_n")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    model: str
    images: _containers.RepeatedCompositeFieldContainer[_common_pb2.ImageContent]
    labels: _containers.RepeatedScalarFieldContainer[str]
    templates: _containers.RepeatedScalarFieldContainer[str]
    top_n: int
    def __init__(self, model: _Optional[str] = ..., images: _Optional[_Iterable[_Union[_common_pb2.ImageContent, _Mapping]]] = ..., labels: _Optional[_Iterable[str]] = ..., templates: _Optional[_Iterable[str]] = ..., top_n: _Optional[int] = ...) -> None: ...

class LabelScore(_message.Message):
    __slots__ = ("index", "label", "probability", "similarity")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    index: int
    label: str
    probability: float
    similarity: float
    def __init__(self, index: _Optional[int] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ..., similarity: _Optional[float] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("scores",)
    SCORES_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[LabelScore]
    def __init__(self, scores: _Optional[_Iterable[_Union[LabelScore, _Mapping]]] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("request_id", "model", "results", "usage", "timing")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    results: _containers.RepeatedCompositeFieldContainer[Classification]
    usage: _common_pb2.Usage
    timing: _common_pb2.Timing
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., results: _Optional[_Iterable[_Union[Classification, _Mapping]]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class SimilarityInput(_message.Message):
    __slots__ = ("text", "image")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    image: _common_pb2.ImageContent
    def __init__(self, text: _Optional[str] = ..., image: _Optional[_Union[_common_pb2.ImageContent, _Mapping]] = ...) -> None: ...

class SimilarityRequest(_message.Message):
    __slots__ = ("model", "left", "right")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    model: str
    left: _containers.RepeatedCompositeFieldContainer[SimilarityInput]
    right: _containers.RepeatedCompositeFieldContainer[SimilarityInput]
    def __init__(self, model: _Optional[str] = ..., left: _Optional[_Iterable[_Union[SimilarityInput, _Mapping]]] = ..., right: _Optional[_Iterable[_Union[SimilarityInput, _Mapping]]] = ...) -> None: ...

class SimilarityRow(_message.Message):
    __slots__ = ("cosines",)
    COSINES_FIELD_NUMBER: _ClassVar[int]
    cosines: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, cosines: _Optional[_Iterable[float]] = ...) -> None: ...

class SimilarityResponse(_message.Message):
    __slots__ = ("request_id", "model", "rows", "usage", "timing")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    rows: _containers.RepeatedCompositeFieldContainer[SimilarityRow]
    usage: _common_pb2.Usage
    timing: _common_pb2.Timing
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[SimilarityRow, _Mapping]]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("model", "query", "passages", "top_n", "method")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    model: str
    query: str
    passages: _containers.RepeatedScalarFieldContainer[str]
    top_n: int
    method: RerankMethod
    def __init__(self, model: _Optional[str] = ..., query: _Optional[str] = ..., passages: _Optional[_Iterable[str]] = ..., top_n: _Optional[int] = ..., method: _Optional[_Union[RerankMethod, str]] = ...) -> None: ...

class RerankResult(_message.Message):
    __slots__ = ("index", "score")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    index: int
    score: float
    def __init__(self, index: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("request_id", "model", "results", "method", "usage", "timing")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    results: _containers.RepeatedCompositeFieldContainer[RerankResult]
    method: RerankMethod
    usage: _common_pb2.Usage
    timing: _common_pb2.Timing
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., results: _Optional[_Iterable[_Union[RerankResult, _Mapping]]] = ..., method: _Optional[_Union[RerankMethod, str]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class GetEmbeddingModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetEmbeddingModelResponse(_message.Message):
    __slots__ = ("model", "dimensions", "max_input_tokens", "max_batch_inputs", "max_input_bytes", "normalized", "dtype", "weight_hash", "aliases", "reranker", "created_s", "modalities", "max_image_bytes", "max_image_pixels", "max_batch_images", "label_templates", "max_labels")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_INPUTS_FIELD_NUMBER: _ClassVar[int]
    MAX_INPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_HASH_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    RERANKER_FIELD_NUMBER: _ClassVar[int]
    CREATED_S_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    LABEL_TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    MAX_LABELS_FIELD_NUMBER: _ClassVar[int]
    model: str
    dimensions: int
    max_input_tokens: int
    max_batch_inputs: int
    max_input_bytes: int
    normalized: bool
    dtype: str
    weight_hash: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    reranker: str
    created_s: int
    modalities: _containers.RepeatedScalarFieldContainer[Modality]
    max_image_bytes: int
    max_image_pixels: int
    max_batch_images: int
    label_templates: _containers.RepeatedScalarFieldContainer[str]
    max_labels: int
    def __init__(self, model: _Optional[str] = ..., dimensions: _Optional[int] = ..., max_input_tokens: _Optional[int] = ..., max_batch_inputs: _Optional[int] = ..., max_input_bytes: _Optional[int] = ..., normalized: _Optional[bool] = ..., dtype: _Optional[str] = ..., weight_hash: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., reranker: _Optional[str] = ..., created_s: _Optional[int] = ..., modalities: _Optional[_Iterable[_Union[Modality, str]]] = ..., max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_batch_images: _Optional[int] = ..., label_templates: _Optional[_Iterable[str]] = ..., max_labels: _Optional[int] = ...) -> None: ...

class EmbeddingServiceGetLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EmbeddingServiceGetLoadResponse(_message.Message):
    __slots__ = ("num_running", "num_waiting_inputs", "num_running_inputs", "cache_hits", "cache_misses", "cache_available", "resident_bytes", "process_id", "num_inputs_done", "num_tokens_done")
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    NUM_WAITING_INPUTS_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_INPUTS_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    CACHE_MISSES_FIELD_NUMBER: _ClassVar[int]
    CACHE_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_INPUTS_DONE_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_DONE_FIELD_NUMBER: _ClassVar[int]
    num_running: int
    num_waiting_inputs: int
    num_running_inputs: int
    cache_hits: int
    cache_misses: int
    cache_available: bool
    resident_bytes: int
    process_id: int
    num_inputs_done: int
    num_tokens_done: int
    def __init__(self, num_running: _Optional[int] = ..., num_waiting_inputs: _Optional[int] = ..., num_running_inputs: _Optional[int] = ..., cache_hits: _Optional[int] = ..., cache_misses: _Optional[int] = ..., cache_available: _Optional[bool] = ..., resident_bytes: _Optional[int] = ..., process_id: _Optional[int] = ..., num_inputs_done: _Optional[int] = ..., num_tokens_done: _Optional[int] = ...) -> None: ...

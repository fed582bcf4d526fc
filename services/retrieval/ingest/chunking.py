"""Cuts a parsed document into chunks: by structure first, then by tokens with overlap."""

from __future__ import annotations

from tokenizers import Tokenizer

from services.retrieval.ingest.document import ParsedDocument
from services.retrieval.types import Chunk, ChunkingConfig

__all__ = ["chunk"]


def chunk(parsed: ParsedDocument, config: ChunkingConfig, tokenizer: Tokenizer) -> list[Chunk]:
    """The chunks of a document, by where they begin; `chunk.text == parsed.text[start:end]`.

    No chunk has more than `config.max_tokens` tokens. `tokenizer` is the embedding model's, without
    truncation (`tokens.load_tokenizer`); it may be shared by threads. Raises `InvalidRequest` when
    the overlap is more than half of a chunk.
    """
    raise NotImplementedError

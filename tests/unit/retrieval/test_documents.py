"""Documents: what makes two of them the same, and what they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieval.config import RequestLimits
from services.retrieval.documents import DocumentPipeline
from services.retrieval.embedder import Embedded, EmbeddingModel, Purpose, RerankBy, Reranked
from services.retrieval.raw_documents import (
    OwnChunk,
    RawDocument,
    RawFile,
    check_document,
    content_hash,
)
from services.retrieval.readers import ReadDocument, ReadJob
from services.retrieval.types import Chunk, CollectionConfig, Metric, Vectors
from services.runtime.errors import InvalidRequest
from services.runtime.peer import Caller
from tests.fakes.hash_embedding import hash_vector

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.one_of(
    TEXTS, st.booleans(), st.floats(allow_nan=False), st.lists(TEXTS, max_size=3).map(tuple)
)
METADATA = st.dictionaries(TEXTS, VALUES, max_size=3)
CHUNKS = st.lists(
    st.builds(OwnChunk, text=TEXTS, start=st.none() | st.integers(0, 9), metadata=METADATA),
    min_size=1,
    max_size=3,
).map(tuple)
CONTENTS = st.one_of(
    TEXTS, st.builds(RawFile, data=st.binary(max_size=8), name=TEXTS, media_type=TEXTS), CHUNKS
)
DOCUMENTS = st.builds(
    RawDocument, id=st.just("a"), title=TEXTS, content=CONTENTS, metadata=METADATA
)
CALLER = Caller("test", None, float("inf"))


def known(raw: RawDocument) -> object:
    """Everything that a document is known by, told apart by type."""
    content: object = raw.content
    if isinstance(raw.content, RawFile):
        content = ("file", raw.content.data, raw.content.name, raw.content.media_type)
    elif isinstance(raw.content, tuple):
        content = [(one.text, one.start, _typed(one.metadata)) for one in raw.content]
    return raw.title, _typed(raw.metadata), content


def _typed(metadata: object) -> list[tuple[str, str, object]]:
    assert isinstance(metadata, dict)
    return [(name, type(value).__name__, repr(value)) for name, value in sorted(metadata.items())]


@given(DOCUMENTS, DOCUMENTS)
def test_hashes_are_equal_only_where_documents_are(one: RawDocument, other: RawDocument) -> None:
    assert (content_hash(one) == content_hash(other)) == (known(one) == known(other))


@given(DOCUMENTS)
def test_hash_does_not_depend_on_the_order_of_metadata(raw: RawDocument) -> None:
    turned = dict(reversed(list(raw.metadata.items())))
    assert content_hash(replace(raw, metadata=turned)) == content_hash(raw)


def test_hash_sees_vectors() -> None:
    def hashed(*values: float) -> str:
        chunk = OwnChunk("a", np.array(values, np.float32))
        return content_hash(RawDocument("a", "", (chunk,), {}))

    assert hashed(1, 2) == hashed(1, 2)
    assert hashed(1, 2) != hashed(2, 1)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("x" * 101, "document.text"),
        ("", "document.text"),
        (RawFile(bytes(101)), "document.file"),
        (RawFile(b"a", "../b"), "document.file.name"),
        (RawFile(b"a", "b", "\n"), "document.file.media_type"),
        ((), "document.chunks"),
        ((OwnChunk(""),), "document.chunks"),
        ((OwnChunk("a"),) * 4, "document.chunks"),
        ((OwnChunk("a", metadata={"a b": 1.0}),), "document.chunks[0].metadata"),
        ((OwnChunk("a"), OwnChunk("b" * 51)), "document.chunks[1].text"),
        ((OwnChunk("ab", start=2**32 - 2),), "document.chunks[0].start"),
        ((OwnChunk("a", start=2**32 - 2), OwnChunk("b")), "document.chunks[1].start"),
    ],
)
def test_document_beyond_the_limits_is_refused(content: object, field: str) -> None:
    limits = RequestLimits(max_document_bytes=100, max_chunks=3, max_chunk_bytes=50)
    with pytest.raises(InvalidRequest) as caught:
        check_document(RawDocument("a", "", content, {}), limits)  # type: ignore[arg-type]
    assert caught.value.field == field


class HashEmbedder:
    """Embeds by hashes, as `hash_embedding.py`, and keeps what it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def model(self, application: str, caller: Caller) -> EmbeddingModel:
        raise NotImplementedError

    async def embed(
        self,
        application: str,
        texts: Sequence[str],
        purpose: Purpose,
        dimensions: int,
        caller: Caller,
    ) -> Embedded:
        assert (application, purpose) == ("embedding", Purpose.PASSAGE)
        self.texts += texts
        vectors = 2 * np.stack([hash_vector(text, dimensions) for text in texts])
        return Embedded(vectors, (3,) * len(texts), 0)

    async def embed_pictures(
        self,
        application: str,
        pictures: Sequence[bytes],
        dimensions: int,
        caller: Caller,
        *,
        patiently: bool,
    ) -> Vectors:
        raise NotImplementedError

    async def rerank(
        self, application: str, query: str, passages: Sequence[str], by: RerankBy, caller: Caller
    ) -> Reranked:
        raise NotImplementedError


class TwoChunks:
    """Reads every file as two chunks under a heading."""

    async def read(self, job: ReadJob) -> ReadDocument:
        chunks = (
            Chunk("one", 0, 3, ("Heading",)),
            Chunk("two", 4, 7, metadata={"row": 2.0}),
        )
        return ReadDocument("Its title", "text/x", {"own": "file's", "year": 1.0}, chunks)


def pipeline(embedder: HashEmbedder) -> DocumentPipeline:
    return DocumentPipeline(TwoChunks(), embedder, {"embedding": "folder"}, RequestLimits())


async def test_read_document_gets_title_metadata_and_unit_vectors() -> None:
    embedder = HashEmbedder()
    config = CollectionConfig(dimensions=8, embedding_application="embedding")
    raw = RawDocument("a", "", RawFile(b"data", "a.x"), {"year": 2.0})
    prepared = await pipeline(embedder).prepare(raw, "hash", config, CALLER)
    info = prepared.document.info
    assert (info.title, info.file_name, info.media_type) == ("Its title", "a.x", "text/x")
    assert (info.content_hash, info.num_bytes) == ("hash", 4)
    assert info.metadata == {"own": "file's", "year": 2.0}  # the sender's word counts
    assert embedder.texts == ["Heading\none", "Its title\ntwo"]
    assert prepared.num_tokens == 6
    np.testing.assert_allclose(np.linalg.norm(prepared.document.vectors, axis=1), 1, rtol=1e-6)


async def test_vectors_keep_their_length_where_the_metric_is_dot() -> None:
    config = CollectionConfig(dimensions=8, embedding_application="embedding", metric=Metric.DOT)
    raw = RawDocument("a", "", "words", {})
    prepared = await pipeline(HashEmbedder()).prepare(raw, "", config, CALLER)
    np.testing.assert_allclose(np.linalg.norm(prepared.document.vectors, axis=1), 2, rtol=1e-6)


async def test_chunk_without_words_is_refused_where_they_make_its_vector() -> None:
    config = CollectionConfig(dimensions=8, embedding_application="embedding")
    raw = RawDocument("a", "", (OwnChunk("words"), OwnChunk(" \n")), {})
    with pytest.raises(InvalidRequest) as caught:
        await pipeline(HashEmbedder()).prepare(raw, "", config, CALLER)
    assert caught.value.field == "document.chunks[1].text"


async def test_application_that_is_no_longer_known_is_named() -> None:
    config = CollectionConfig(dimensions=8, embedding_application="gone")
    with pytest.raises(InvalidRequest, match="gone"):
        await pipeline(HashEmbedder()).prepare(
            RawDocument("a", "", "words", {}), "", config, CALLER
        )

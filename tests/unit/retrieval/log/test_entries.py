"""The codec of the log: whatever goes in comes out, and what is damaged is called so."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieval.log.entries import (
    CollectionCreated,
    CollectionDeleted,
    CollectionUpdated,
    DocumentPut,
    DocumentsRemoved,
    Encoded,
    Kind,
    UnreadableEntry,
    decode,
    encode,
)
from services.retrieval.types import Chunk, CollectionConfig, DocumentInfo, IndexedDocument
from services.runtime.errors import InvalidRequest
from tests.fakes.replicas import config, document

# Lone surrogates included: broken files hold them.
texts = st.text(st.characters(), max_size=20)
metadata = st.dictionaries(
    texts,
    st.one_of(
        texts,
        st.booleans(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.lists(texts, max_size=3).map(tuple),
    ),
    max_size=4,
)
chunks = st.builds(
    Chunk,
    texts,
    st.integers(0, 2**31),
    st.integers(0, 2**31),
    st.lists(texts, max_size=3).map(tuple),
    st.integers(0, 2**31),
    st.integers(0, 2**31),
    st.integers(0, 2**31),
    metadata,
)
infos = st.builds(
    DocumentInfo,
    *(texts,) * 5,
    num_bytes=st.integers(0, 2**53),
    written_at_ms=st.integers(0, 2**53),
    metadata=metadata,
)


@settings(deadline=None)
@given(infos, st.lists(chunks, max_size=4), st.integers(1, 8), st.integers(0, 2**32))
def test_a_document_survives_the_log(
    info: DocumentInfo, parts: list[Chunk], dimensions: int, seed: int
) -> None:
    vectors = np.random.default_rng(seed).standard_normal((len(parts), dimensions))
    before = IndexedDocument(info, tuple(parts), vectors.astype(np.float32))
    change = decode(encode(DocumentPut(before)))
    assert isinstance(change, DocumentPut)
    after = change.document
    assert (after.info, after.chunks) == (before.info, before.chunks)
    assert after.vectors.dtype == np.float32
    assert np.array_equal(after.vectors, before.vectors)
    assert all(type(v) is not int for v in after.info.metadata.values())


@pytest.mark.parametrize(
    "change",
    [
        CollectionCreated("docs", "Title \ud800", config(), {"a": "b"}),
        CollectionUpdated(None, {"a": "b"}),
        CollectionUpdated("title", None),
        CollectionDeleted(),
        DocumentsRemoved(("a", "b\udfff")),
        DocumentsRemoved(()),
    ],
)
def test_other_changes_survive_the_log(change: object) -> None:
    assert decode(encode(change)) == change  # type: ignore[arg-type]


def test_whole_numbers_in_metadata_come_back_as_numbers() -> None:
    given_ = document("a", 1)
    made = replace(given_, info=replace(given_.info, metadata={"year": 2024}))
    change = decode(encode(DocumentPut(made)))
    assert isinstance(change, DocumentPut)
    assert change.document.info.metadata == {"year": 2024.0}
    assert isinstance(change.document.info.metadata["year"], float)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_by_name(value: float) -> None:
    good = document("a", 1)
    with pytest.raises(InvalidRequest) as refused:
        encode(DocumentPut(replace(good, info=replace(good.info, metadata={"x": value}))))
    assert refused.value.field == "metadata"
    vectors = good.vectors.copy()
    vectors[0, 0] = value
    with pytest.raises(InvalidRequest) as refused:
        encode(DocumentPut(replace(good, vectors=vectors)))
    assert refused.value.field == "vector"


def test_vectors_that_are_not_one_for_each_chunk_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequest) as refused:
        encode(DocumentPut(replace(document("a", 1), vectors=np.zeros((2, 4), np.float32))))
    assert refused.value.field == "vector"


def test_a_damaged_entry_is_called_unreadable() -> None:
    good = encode(DocumentPut(document("a", 1)))
    damaged = [
        replace(good, header=good.header[:-1]),
        replace(good, header=b"[]"),
        replace(good, header=b"{}"),
        replace(good, header=b"\xff"),
        replace(good, body=good.body[:-1]),
        replace(good, body=b""),
        Encoded(Kind.CREATE, b'{"name":"a","title":"","config":{"newer":1},"metadata":{}}'),
        Encoded(Kind.REMOVE, b'{"ids":1}'),
    ]
    for encoded in damaged:
        with pytest.raises(UnreadableEntry):
            decode(encoded)


def test_a_config_keeps_every_setting() -> None:
    made = CollectionConfig.model_validate(
        {
            "dimensions": 7,
            "embedding_application": "embedding",
            "metric": "dot",
            "index": {"type": "ivf_pq", "num_lists": 3, "pq_num_subvectors": 7},
            "chunking": {"max_tokens": 99},
            "sparse": {"k1": 0.5, "language": "german"},
        }
    )
    change = decode(encode(CollectionCreated("docs", "", made, {})))
    assert isinstance(change, CollectionCreated)
    assert change.config == made

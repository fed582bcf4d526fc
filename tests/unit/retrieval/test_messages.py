"""Messages to the domain and back: nothing is lost, nothing is made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.v1 import embedding_pb2
from orrery.v1 import retrieval_pb2 as pb
from services.retrieval import messages, search_messages
from services.retrieval.asked_searches import AskedSearch
from services.retrieval.embedder import RerankBy
from services.retrieval.types import (
    AllOf,
    AnyOf,
    Chunk,
    Comparison,
    DocumentInfo,
    Filter,
    Hit,
    Metadata,
    Not,
    Operator,
    SearchMode,
)
from services.runtime.errors import InvalidRequest

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.one_of(
    TEXTS, st.booleans(), st.floats(allow_nan=False), st.lists(TEXTS, max_size=3).map(tuple)
)
FILTERS = st.recursive(
    st.builds(
        Comparison, TEXTS, st.sampled_from(Operator), st.lists(VALUES, max_size=3).map(tuple)
    ),
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)


def filter_message(condition: Filter) -> pb.Filter:
    match condition:
        case Comparison(name, operator, values):
            message = pb.Comparison(field=name, operator=f"FILTER_OPERATOR_{operator.name}")
            for value in values:
                carrier = pb.StoredDocument()
                messages.put_metadata(carrier.metadata, {"v": value})
                message.values.append(carrier.metadata["v"])
            return pb.Filter(comparison=message)
        case AllOf(filters):
            return pb.Filter(all_of=pb.Filters(filters=map(filter_message, filters)))
        case AnyOf(filters):
            return pb.Filter(any_of=pb.Filters(filters=map(filter_message, filters)))
        case Not(inner):
            return pb.Filter(**{"not": filter_message(inner)})


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_metadata_comes_back(metadata: dict[str, Any]) -> None:
    carrier = pb.StoredDocument()
    messages.put_metadata(carrier.metadata, metadata)
    parsed = pb.StoredDocument.FromString(carrier.SerializeToString())
    found = messages.metadata_of(parsed.metadata, "metadata")
    assert found == metadata
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in metadata.items()
    }


@given(FILTERS)
def test_filter_comes_back(condition: Filter) -> None:
    assert search_messages.filter_of(filter_message(condition)) == condition


def test_unset_options_are_the_defaults() -> None:
    assert search_messages.asked_search(pb.SearchOptions()) == AskedSearch()


def test_set_options_are_taken_as_they_are() -> None:
    asked = search_messages.asked_search(
        pb.SearchOptions(
            k=0,
            mode=pb.SEARCH_MODE_HYBRID,
            fusion=pb.FusionOptions(dense_weight=0, rrf_k=7),
            num_candidates=9,
            min_score=0,
            diversity=pb.DiversityOptions(),
            rerank=embedding_pb2.RERANK_METHOD_CROSS_ENCODER,
            max_per_document=2,
        )
    )
    assert asked == AskedSearch(
        k=0,
        mode=SearchMode.HYBRID,
        dense_weight=0.0,
        rrf_k=7,
        num_candidates=9,
        min_score=0.0,
        mmr_lambda=0.5,
        rerank=RerankBy.CROSS_ENCODER,
        max_per_document=2,
    )


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (pb.SearchOptions(mode=9), "options.mode"),
        (pb.SearchOptions(rerank=9), "options.rerank"),
        (
            pb.SearchOptions(mode=pb.SEARCH_MODE_DENSE, fusion=pb.FusionOptions(rrf_k=5)),
            "options.fusion",
        ),
        (pb.SearchOptions(filter=pb.Filter()), "options.filter"),
    ],
)
def test_values_that_the_contract_does_not_have_are_refused(
    options: pb.SearchOptions, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        search_messages.asked_search(options)
    assert caught.value.field == field


def hit(metadata: Metadata, chunk_metadata: Metadata) -> Hit:
    info = DocumentInfo("d", "Title", "f.md", "text/markdown", "hash", 10, 5, metadata)
    chunk = Chunk("words", 3, 8, ("A", "B"), 2, 4, 1, chunk_metadata)
    vector = np.array([1, 2], np.float32)
    return Hit(info, chunk, 7, 0.5, dense_score=0.25, dense_rank=1, vector=vector)


def test_hit_carries_its_chunk_and_only_the_scores_it_has() -> None:
    response = pb.SearchResponse()
    found = hit({"a": 1.0, "b": "x"}, {"a": True})
    search_messages.put_hit(response.hits, found, with_text=True, with_vectors=True)
    [message] = response.hits
    assert message.chunk == pb.Chunk(
        id="d#7",
        document_id="d",
        document_title="Title",
        file_name="f.md",
        media_type="text/markdown",
        ordinal=7,
        text="words",
        title_path=["A", "B"],
        start=3,
        end=8,
        line_start=2,
        line_end=4,
        page=1,
        metadata={
            "a": pb.MetadataValue(bool_value=True),
            "b": pb.MetadataValue(string_value="x"),
        },
        vector=[1, 2],
    )
    assert (message.score, message.dense_score, message.dense_rank) == (0.5, 0.25, 1)
    assert not message.HasField("sparse_score")
    assert not message.HasField("sparse_rank")
    assert not message.HasField("rerank_score")


def test_upsert_without_content_keeps_its_error_for_the_answer() -> None:
    item = messages.upsert_item(pb.UpsertRequest(document=pb.Document(id="a")))
    assert item.document_id == "a"
    assert isinstance(item.document, InvalidRequest)
    assert item.document.field == "document"

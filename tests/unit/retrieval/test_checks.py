"""Names, ids, metadata and filters: what is refused, and by which field."""

from __future__ import annotations

import pytest

from services.retrieval.checks import (
    MAX_FILTER_DEPTH,
    check_collection_name,
    check_document_id,
    check_filter_form,
    check_label,
    check_metadata,
)
from services.retrieval.types import AllOf, Comparison, Filter, Metadata, Not, Operator
from services.runtime.errors import InvalidRequest


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "0", "x" * 64, "vs_0123456789abcdef01234567"])
def test_collection_name_of_the_form_is_taken(name: str) -> None:
    check_collection_name(name)


@pytest.mark.parametrize("name", ["", "../../etc", "a/b", "a..b", ".a", "_a", "a\x00", "x" * 65])
def test_collection_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_collection_name(name)
    assert caught.value.field == "collection"


@pytest.mark.parametrize("name", ["docs/a.md", "/home/me/a.md", "a..b", "C:\\a.md", "日本語"])
def test_document_id_that_names_is_taken(name: str) -> None:
    check_document_id(name, "document.id")


@pytest.mark.parametrize(
    "name", ["", "..", "../a", "a/../b", "a\\..\\b", "a/..", "a\x1fb", "a\x85b", "x" * 513]
)
def test_document_id_that_climbs_or_hides_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_document_id(name, "document.id")
    assert caught.value.field == "document.id"


def test_label_is_limited_in_bytes_not_characters() -> None:
    check_label("ä" * 512, "title")
    with pytest.raises(InvalidRequest):
        check_label("ä" * 513, "title")


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"a b": "x"}, "metadata"),
        ({"1a": "x"}, "metadata"),
        ({"": "x"}, "metadata"),
        ({"x" * 65: "x"}, "metadata"),
        ({"file_name": "x"}, "metadata.file_name"),
        ({"document_id": "x"}, "metadata.document_id"),
        ({"a": "x" * 4097}, "metadata.a"),
        ({"a": float("nan")}, "metadata.a"),
        ({"a": float("-inf")}, "metadata.a"),
        ({"a": ("x" * 4097,)}, "metadata.a"),
        ({"a": ("x",) * 257}, "metadata.a"),
        ({f"f{number}": 1.0 for number in range(65)}, "metadata"),
        ({f"f{number}": "x" * 4096 for number in range(16)}, "metadata"),
        ({"a": ("x" * 300,) * 256}, "metadata"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(metadata: Metadata, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_metadata(metadata, "metadata")
    assert caught.value.field == field


def test_metadata_of_every_type_is_taken() -> None:
    check_metadata({"a": "x", "_b.c-d": 1.5, "e": True, "f": ("x", "y"), "g": ()}, "metadata")


@pytest.mark.parametrize(
    "filter_",
    [
        Comparison("a", Operator.EQ),
        Comparison("a", Operator.EQ, (1.0, 2.0)),
        Comparison("a", Operator.IN),
        Comparison("a", Operator.EXISTS, (1.0,)),
        Comparison("a", Operator.IN, (1.0, "x")),
        Comparison("a", Operator.IN, (1.0, True)),
        Comparison("a", Operator.EQ, (("x",),)),
        Comparison("a", Operator.GT, (True,)),
        Comparison("a", Operator.EQ, (float("nan"),)),
        Comparison("a b", Operator.EQ, (1.0,)),
        AllOf(()),
        AllOf(tuple(Comparison("a", Operator.EQ, (1.0,)) for _ in range(300))),
        Comparison("a", Operator.IN, tuple(float(number) for number in range(5000))),
    ],
)
def test_filter_that_cannot_be_evaluated_is_refused(filter_: Filter) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_filter_form(filter_)
    assert (caught.value.field or "").startswith("filter")


def test_filter_may_be_nested_so_deep_and_no_deeper() -> None:
    filter_: Filter = Comparison("a", Operator.EXISTS)
    for _ in range(MAX_FILTER_DEPTH - 1):
        filter_ = Not(filter_)
    check_filter_form(filter_)
    with pytest.raises(InvalidRequest):
        check_filter_form(Not(filter_))

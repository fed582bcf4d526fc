"""Filters built from Python and read from a text."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orrery
from orrery import Filter, parse_filter, where
from orrery.filters import Combination, Comparison
from orrery.requests.filters import build_filter
from orrery.v1 import retrieval_pb2 as pb

VALUES = st.one_of(
    st.text(max_size=8),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
)
NAMES = st.one_of(
    st.sampled_from(["year", "kind", "and", "a-b.c", "not"]), st.text(min_size=1, max_size=6)
)
LEAVES = st.one_of(
    st.builds(
        lambda name, operator, value: Filter(Comparison(name, operator, (value,))),
        NAMES,
        st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]),
        VALUES,
    ),
    st.builds(lambda name, values: where(name).in_(values), NAMES, st.lists(VALUES, min_size=1)),
    st.builds(lambda name, values: where(name).not_in(values), NAMES, st.lists(VALUES, min_size=1)),
    st.builds(lambda name: where(name).exists(), NAMES),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(FILTERS)
def test_filter_as_a_text_reads_back_as_itself(condition: Filter) -> None:
    assert parse_filter(str(condition)) == condition


@settings(deadline=None)
@given(st.text(alphabet="ab1 =<>!()[],'\"`andornotinexists.5-\\", max_size=30))
def test_any_text_is_a_filter_or_refused_by_name(text: str) -> None:
    refusal: orrery.InvalidRequestError | None = None
    try:
        parse_filter(text)
    except orrery.InvalidRequestError as error:
        refusal = error
    assert refusal is None or refusal.field == "filter"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year >= 1900", where("year") >= 1900),
        ("year=1.5e3", where("year") == 1500.0),
        ("a == 'it''s'", None),
        (r"a = 'it\'s'", where("a") == "it's"),
        ('a <> "x\\n"', where("a") != "x\n"),
        ("a IN ['x', true]", where("a").in_(["x", True])),
        ("a not in (1)", where("a").not_in([1])),
        ("not a exists", ~where("a").exists()),
        ("`with space` < -3", where("with space") < -3),
        (
            "a = 1 or b = 2 and not (c > 3 or d <= 4)",
            (where("a") == 1) | ((where("b") == 2) & ~((where("c") > 3) | (where("d") <= 4))),
        ),
        ("a = 1 and b = 2 and c = 3", (where("a") == 1) & (where("b") == 2) & (where("c") == 3)),
    ],
)
def test_text_is_read_with_the_usual_precedence(text: str, expected: Filter | None) -> None:
    if expected is None:
        with pytest.raises(orrery.InvalidRequestError):
            parse_filter(text)
    else:
        assert parse_filter(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the name of a field at character 1"),
        ("year >= ", "a value at character 8"),
        ("year >= ship", 'a text stands in quotes: "ship"'),
        ("year", "after 'year'"),
        ("a = 1 b = 2", "and, or, or the end at character 7"),
        ("a in 3", "'(' and values"),
        ("a in (1 2)", "',' or ')'"),
        ("a ~ 1", "an operator at character 3"),
        ("and = 1", "the name of a field"),
        ('a = "\\q"', "escapes of JSON"),
        ("a = 1e400", "a finite number"),
        ("a = " + "9" * 400, "a finite number"),
        ("a = -" + "9" * 5000, "a finite number"),
        ("(" * 200 + "a = 1" + ")" * 200, "inside one another"),
        ("not " * 200 + "a = 1", "inside one another"),
    ],
)
def test_text_that_is_no_filter_is_refused_with_the_place(text: str, told: str) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        parse_filter(text)
    assert told in caught.value.message
    assert caught.value.field == "filter"


def test_filter_has_no_truth() -> None:
    one, other = where("a") > 1, where("b") > 2
    with pytest.raises(TypeError, match="&"):
        bool(one and other)
    with pytest.raises(TypeError, match="chain"):
        bool(1 < where("a") < 3)


def test_and_of_ands_is_flat() -> None:
    node = ((where("a") == 1) & (where("b") == 2) & (where("c") == 3)).node
    assert isinstance(node, Combination)
    assert len(node.parts) == 3


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: where(""), orrery.InvalidRequestError),
        (lambda: where(3), TypeError),
        (lambda: where("a") == None, TypeError),  # noqa: E711
        (lambda: where("a") == [1], TypeError),
        (lambda: where("a") > math.nan, orrery.InvalidRequestError),
        (lambda: where("a") == 10**400, orrery.InvalidRequestError),
        (lambda: where("a").in_([]), orrery.InvalidRequestError),
        (lambda: where("a").in_("abc"), TypeError),
        (lambda: (where("a") == 1) & "b = 2", TypeError),
        (lambda: build_filter(where("\ud800") == 1), orrery.InvalidRequestError),
    ],
)
def test_comparison_that_cannot_be_is_refused(make: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        make()


def test_filter_becomes_the_contracts() -> None:
    message = build_filter(~((where("a") == "x") | where("b").in_([1, 2])) & where("c").exists())
    negated, exists = message.all_of.filters
    either = getattr(negated, "not").any_of.filters
    assert either[0].comparison.values == [pb.MetadataValue(string_value="x")]
    assert either[1].comparison.operator == pb.FILTER_OPERATOR_IN
    assert [value.number_value for value in either[1].comparison.values] == [1, 2]
    assert exists.comparison == pb.Comparison(field="c", operator=pb.FILTER_OPERATOR_EXISTS)

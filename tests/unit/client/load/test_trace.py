"""Traces: read, refused by line and field, made up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.load.asks import Size
from orrery.load.trace import COLUMNS, TraceError, TraceRow, read_trace, synthesize, write_trace
from tests.conftest import REPOSITORY

HEADER = ",".join(COLUMNS)
COMMITTED = REPOSITORY / "tests/load/traces/synthetic.csv"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return path


def test_a_trace_is_read_as_it_is_written(tmp_path: Path) -> None:
    rows = [TraceRow(0.0, Size(5, 7)), TraceRow(0.25, Size(1, 1)), TraceRow(0.25, Size(9, 2))]
    path = tmp_path / "trace.csv"
    write_trace(path, rows)
    assert read_trace(path) == rows


@pytest.mark.parametrize(
    ("line", "field", "text"),
    [
        (1, "", ""),
        (1, "", "0,1,1\n"),
        (1, "", f"{HEADER}\n"),
        (2, "", f"{HEADER}\n0,1\n"),
        (2, "", f"{HEADER}\n0,1,1,1\n"),
        (2, "timestamp", f"{HEADER}\nsoon,1,1\n"),
        (2, "timestamp", f"{HEADER}\n-1,1,1\n"),
        (2, "timestamp", f"{HEADER}\nnan,1,1\n"),
        (2, "timestamp", f"{HEADER}\ninf,1,1\n"),
        (4, "timestamp", f"{HEADER}\n0,1,1\n2,1,1\n1,1,1\n"),
        (3, "prompt_tokens", f"{HEADER}\n0,1,1\n1,0,1\n"),
        (3, "prompt_tokens", f"{HEADER}\n0,1,1\n1,1.5,1\n"),
        (2, "output_tokens", f"{HEADER}\n0,1,-4\n"),
        (2, "output_tokens", f"{HEADER}\n0,1,\n"),
        (2, "output_tokens", f"{HEADER}\n0,1,99999999\n"),
        (2, "output_tokens", f"{HEADER}\n0,90,11\n"),
        (2, "", f'{HEADER}\n0,1,"1\n'),
    ],
)
def test_a_bad_trace_is_refused_by_line_and_field(
    tmp_path: Path, line: int, field: str, text: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError, match=rf"trace\.csv:{line}.*expected") as refused:
        read_trace(path, max_total_tokens=100)
    assert (refused.value.line, refused.value.field) == (line, field)


@settings(deadline=None, max_examples=30)
@given(st.floats(1, 50), st.integers(0, 1 << 32), st.integers(8, 4096))
def test_a_made_up_trace_fits_the_context_and_is_that_of_its_seed(
    rate: float, seed: int, context: int
) -> None:
    rows = synthesize(rate, 30, seed, context)
    assert rows == synthesize(rate, 30, seed, context)
    assert [row.timestamp_s for row in rows] == sorted(row.timestamp_s for row in rows)
    for row in rows:
        assert row.size.prompt_tokens + row.size.output_tokens <= context
        assert min(row.size.prompt_tokens, row.size.output_tokens) >= 1


def test_the_committed_trace_is_what_its_recipe_makes() -> None:
    assert read_trace(COMMITTED, max_total_tokens=512) == synthesize(rate=5, duration_s=60, seed=0)

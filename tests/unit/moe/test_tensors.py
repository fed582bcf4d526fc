from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orrery.v1 import tensor_pb2 as pb
from services.moe.tensors import RowsFormat, check_finite, read_rows, to_message
from services.runtime.errors import InvalidRequest

FLOAT32 = RowsFormat(4, torch.float32, 8)


def message(**changes: object) -> pb.Tensor:
    whole = {
        "dtype": pb.TENSOR_DTYPE_FLOAT32,
        "shape": [2, 4],
        "data": np.arange(8, dtype="<f4").tobytes(),
    }
    return pb.Tensor(**{**whole, **changes})


@given(
    st.integers(1, 8),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 1000),
    st.booleans(),
)
def test_rows_survive_the_wire_to_the_bit(
    num_rows: int, dtype: torch.dtype, seed: int, strided: bool
) -> None:
    rows = torch.randn(num_rows, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)
    rows = rows[:, ::2] if strided else rows[:, :4]
    sent = pb.Tensor.FromString(to_message(rows).SerializeToString())
    assert torch.equal(read_rows(sent, RowsFormat(4, dtype, 8), "hidden"), rows)


def test_rows_are_read_as_the_shape_says() -> None:
    rows = read_rows(message(), FLOAT32, "hidden")
    assert rows.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"dtype": pb.TENSOR_DTYPE_BFLOAT16}, "x.dtype", "expected TENSOR_DTYPE_FLOAT32"),
        ({"dtype": 0}, "x.dtype", "expected TENSOR_DTYPE_FLOAT32"),
        ({"dtype": 77}, "x.dtype", "expected TENSOR_DTYPE_FLOAT32"),
        ({"shape": []}, "x.shape", r"expected \[tokens, 4\], got \[\]"),
        ({"shape": [8]}, "x.shape", r"expected \[tokens, 4\]"),
        ({"shape": [4, 2]}, "x.shape", r"expected \[tokens, 4\]"),
        ({"shape": [1, 2, 4]}, "x.shape", r"expected \[tokens, 4\]"),
        ({"shape": [0, 4], "data": b""}, "x.shape", "expected 1 to 8 tokens, got 0"),
        ({"shape": [9, 4], "data": bytes(144)}, "x.shape", "expected 1 to 8 tokens, got 9"),
        ({"data": bytes(31)}, "x.data", "expected 32 bytes, as the shape says, got 31"),
        ({"data": bytes(36)}, "x.data", "expected 32 bytes, as the shape says, got 36"),
        ({"data": b""}, "x.data", "expected 32 bytes, as the shape says, got 0"),
    ],
)
def test_what_is_no_such_tensor_is_refused_by_field(
    changes: dict[str, object], field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        read_rows(message(**changes), FLOAT32, "x")
    assert caught.value.field == field


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("position", [0, 70, 12_345, -1])  # of vectors, and of what is left over
def test_what_is_not_finite_is_refused(value: float, dtype: torch.dtype, position: int) -> None:
    rows = torch.randn(137, 101, generator=torch.Generator().manual_seed(0)).to(dtype)
    check_finite(rows, "x")
    rows.view(-1)[position] = value
    with pytest.raises(InvalidRequest, match="expected finite numbers") as caught:
        check_finite(rows, "x")
    assert caught.value.field == "x.data"

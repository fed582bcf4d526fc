"""The packed linear layer: the same as torch's, and the same for a row whatever is around it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from services.engine.layers.linear import Linear, _computed_rows, row_counts

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def random_layer(
    dtype: torch.dtype, bias: bool
) -> tuple[Linear, torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(192, 320, generator=generator) / 18).to(dtype)
    offset = torch.randn(192, generator=generator).to(dtype) if bias else None
    return Linear(weight, offset), weight, offset


@dtypes
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_rows", [1, 7, 300])
def test_linear_equals_torch(dtype: torch.dtype, bias: bool, num_rows: int) -> None:
    layer, weight, offset = random_layer(dtype, bias)
    x = torch.randn(num_rows, 320, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = F.linear(x.float(), weight.float(), None if offset is None else offset.float())
    rtol, atol = (1e-5, 1e-5) if dtype is torch.float32 else (2**-7, 1e-3)
    got = layer(x)
    assert got.dtype is dtype
    torch.testing.assert_close(got.float(), expected, rtol=rtol, atol=atol)


@dtypes
def test_a_rows_result_does_not_depend_on_the_rows_around_it(dtype: torch.dtype) -> None:
    layer, _, _ = random_layer(dtype, bias=False)
    if layer.is_packed:
        x = torch.randn(200, 320, generator=torch.Generator().manual_seed(1)).to(dtype)
        whole = layer(x)
        for num_rows in (1, 2, 5, 16, 33, 150):
            assert torch.equal(layer(x[:num_rows]), whole[:num_rows])
            assert torch.equal(layer(x[-num_rows:]), whole[-num_rows:])
    else:
        pytest.skip("this CPU has no packed product for the dtype")


@dtypes
@pytest.mark.parametrize("num_rows", [1, 33, 48, 513])
def test_a_residual_is_added_row_by_row(dtype: torch.dtype, num_rows: int) -> None:
    layer, _, _ = random_layer(dtype, bias=True)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(num_rows, 320, generator=generator).to(dtype)
    residual = torch.randn(num_rows, 192, generator=generator).to(dtype)
    got = layer(x, residual)
    rtol, atol = (1e-5, 1e-5) if dtype is torch.float32 else (2**-6, 2**-6)
    torch.testing.assert_close(got, layer(x) + residual, rtol=rtol, atol=atol)


def test_kernels_are_compiled_for_few_numbers_of_rows() -> None:
    compiled = {_computed_rows(num_rows) for num_rows in range(1, 2049)}
    assert len(compiled) <= 96
    assert row_counts(2048) == sorted(compiled)
    assert row_counts(40) == list(range(1, 33))
    assert all(_computed_rows(num_rows) >= num_rows for num_rows in range(1, 2049))

"""The compiled row-wise layers against the same in plain torch, on random inputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from services.engine.cpu_kernels import rows

# One rounding to bfloat16, of a result that torch's float32 gives to more digits.
TOLERANCE = {torch.float32: (1e-6, 1e-5), torch.bfloat16: (1e-6, 2**-8)}

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def assert_close(got: torch.Tensor, expected: torch.Tensor) -> None:
    atol, rtol = TOLERANCE[got.dtype]
    torch.testing.assert_close(got.float(), expected, atol=atol, rtol=rtol)


def randn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


@dtypes
@settings(max_examples=50, deadline=None)
@given(num_rows=st.integers(1, 80), width=st.integers(1, 900), seed=st.integers(0, 1000))
def test_rms_norm_equals_torch(dtype: torch.dtype, num_rows: int, width: int, seed: int) -> None:
    x, weight = randn(seed, num_rows, width).to(dtype), randn(seed + 1, width).to(dtype)
    expected = F.rms_norm(x.float(), (width,), weight.float(), 1e-5)
    assert_close(rows.rms_norm(x, weight, 1e-5), expected)


@dtypes
def test_rms_norm_takes_views_that_are_not_contiguous(dtype: torch.dtype) -> None:
    qkv = randn(0, 5, 6, 16).to(dtype)
    weight = randn(1, 16).to(dtype)
    q = qkv[:, :4]
    expected = F.rms_norm(q.float(), (16,), weight.float(), 1e-6)
    assert_close(rows.rms_norm(q, weight, 1e-6), expected)


@dtypes
@settings(max_examples=50, deadline=None)
@given(num_rows=st.integers(1, 80), width=st.integers(1, 900), seed=st.integers(0, 1000))
def test_silu_mul_equals_torch(dtype: torch.dtype, num_rows: int, width: int, seed: int) -> None:
    gate_up = (randn(seed, num_rows, 2 * width) * 5).to(dtype)
    gate, up = gate_up.float().chunk(2, dim=-1)
    assert_close(rows.silu_mul(gate_up), F.silu(gate) * up)


@dtypes
def test_silu_mul_stays_finite_for_large_gates(dtype: torch.dtype) -> None:
    gate_up = torch.tensor([[-1e30, -200.0, -90.0, 0.0, 90.0, 200.0, 1e30] + [1.0] * 7]).to(dtype)
    out = rows.silu_mul(gate_up).float()
    torch.testing.assert_close(out, F.silu(gate_up[:, :7].float()), atol=1e-6, rtol=2**-8)


@dtypes
@settings(max_examples=50, deadline=None)
@given(
    num_tokens=st.integers(1, 60),
    num_heads=st.integers(1, 6),
    half=st.integers(1, 70),
    seed=st.integers(0, 1000),
)
def test_rotate_equals_torch_in_place_inside_a_wider_buffer(
    dtype: torch.dtype, num_tokens: int, num_heads: int, half: int, seed: int
) -> None:
    qkv = randn(seed, num_tokens, num_heads + 2, 2 * half).to(dtype)
    before = qkv.clone()
    angles = randn(seed + 1, num_tokens, 1, half)
    cos = torch.cat((angles.cos(), angles.cos()), -1).to(dtype)
    sin = torch.cat((-angles.sin(), angles.sin()), -1).to(dtype)
    x = before[:, :num_heads].float()
    expected = x * cos.float() + x.roll(half, -1) * sin.float()
    rows.rotate_(qkv[:, :num_heads], cos, sin)
    atol = 1e-5 if dtype is torch.float32 else 1e-2  # the two terms may cancel
    torch.testing.assert_close(qkv[:, :num_heads].float(), expected, atol=atol, rtol=2**-8)
    assert torch.equal(qkv[:, num_heads:], before[:, num_heads:])


@dtypes
@settings(max_examples=50, deadline=None)
@given(
    num_rows=st.integers(1, 30),
    num_tokens=st.integers(1, 60),
    k=st.integers(1, 9),
    width=st.integers(1, 700),
    seed=st.integers(0, 1000),
)
def test_weighted_sum_equals_torch(
    dtype: torch.dtype, num_rows: int, num_tokens: int, k: int, width: int, seed: int
) -> None:
    x, weights = randn(seed, num_rows, width).to(dtype), randn(seed + 1, num_tokens, k)
    rng = torch.Generator().manual_seed(seed)
    positions = torch.randint(num_rows, (num_tokens, k), generator=rng)
    expected = (x[positions].double() * weights.double().unsqueeze(-1)).sum(1)
    got = rows.weighted_sum(x, positions, weights)
    torch.testing.assert_close(got, expected.float(), atol=1e-4, rtol=1e-5)


def test_only_dtypes_and_devices_that_kernels_know_are_supported() -> None:
    assert rows.supported(torch.ones(1))
    assert rows.supported(torch.ones(1, dtype=torch.bfloat16))
    assert not rows.supported(torch.ones(1, dtype=torch.float16))
    assert not rows.supported(torch.ones(1, device="meta"))


@dtypes
def test_what_is_not_a_number_stays_so(dtype: torch.dtype) -> None:
    bad = torch.full((2, 8), torch.nan).to(dtype)
    one = torch.ones(2, 1, 4, dtype=dtype)
    assert rows.rms_norm(bad, torch.ones(8, dtype=dtype), 1e-5).isnan().all()
    assert rows.silu_mul(bad).isnan().all()
    first = torch.zeros(2, 1, dtype=torch.int64)
    assert rows.weighted_sum(bad, first, torch.zeros(2, 1)).isnan().all()
    assert rows.rotate_(bad.view(2, 2, 4), one, one).isnan().all()

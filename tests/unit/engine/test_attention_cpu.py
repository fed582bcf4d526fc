"""The CPU backend against the reference, over the same random schedules, in both dtypes."""

from __future__ import annotations

import threading

import psutil
import pytest
import torch
from hypothesis import given, settings

from services.engine.attention import get_backend
from services.engine.attention.cpu import CPUAttention
from services.engine.padding import padded
from tests.unit.engine.attention_cases import (
    AttentionCase,
    attention_cases,
    dense_attention,
    make_tensors,
    run_in_chunks,
)

# bfloat16 keeps 8 bits: a result of magnitude up to 4 is rounded by up to 2^-7; torch's flash
# attention also rounds the probabilities.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@settings(max_examples=100, deadline=None)
@given(case=attention_cases())
def test_cpu_equals_reference_over_random_schedules(
    dtype: torch.dtype, case: AttentionCase
) -> None:
    data = make_tensors(case, dtype)
    ours = run_in_chunks(case, data, get_backend("cpu"))
    reference = run_in_chunks(case, data, get_backend("reference"))
    for got, expected in zip(ours, reference, strict=True):
        assert got.dtype is dtype
        assert got.is_contiguous()
        torch.testing.assert_close(got, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def long_decode(seed: int) -> AttentionCase:
    """Enough work for several threads: five sequences of 400 to 900 tokens, then decodes."""
    return AttentionCase(
        steps=((900, 400, 500, 600, 700), (1, 1, 3, 1, 1), (1, 1, 1, 1, 4)),
        num_kv_heads=3,
        group_size=4,
        head_dim=64,
        block_size=16,
        window=None,
        seed=seed,
    )


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_cpu_equals_dense_attention_with_any_number_of_threads(num_threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        case = long_decode(seed=0)
        data = make_tensors(case, torch.float32)
        ours = run_in_chunks(case, data, CPUAttention())
    finally:
        torch.set_num_threads(before)
    for got, expected in zip(ours, dense_attention(case, data), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_two_engines_attend_at_the_same_time_in_one_process() -> None:
    failures: list[str] = []

    def work(seed: int) -> None:
        case = long_decode(seed)
        data = make_tensors(case, torch.float32)
        for _ in range(3):
            ours = run_in_chunks(case, data, CPUAttention())
            for got, expected in zip(ours, dense_attention(case, data), strict=True):
                if not torch.allclose(got, expected, atol=1e-5):
                    failures.append(f"seed {seed}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_heads_that_are_views_with_any_stride_are_accepted() -> None:
    case = AttentionCase(((7, 1), (1, 2)), 2, 2, 32, 4, None, seed=1)
    data = make_tensors(case, torch.float32)
    expected = run_in_chunks(case, data, get_backend("reference"))
    cpu = CPUAttention()

    def attend(q, k, v, *args, **kwargs):  # type: ignore[no-untyped-def]
        fused = torch.cat((q, k, v), dim=1)  # as a fused projection gives them
        q, k, v = fused.split([q.shape[1], k.shape[1], v.shape[1]], dim=1)
        return cpu(q, k.transpose(1, 2).contiguous().transpose(1, 2), v, *args, **kwargs)

    for got, want in zip(run_in_chunks(case, data, attend), expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_not_a_number_stays_so(dtype: torch.dtype) -> None:
    case = AttentionCase(((20, 30), (1, 1)), 2, 2, 64, 16, None, seed=1)
    data = make_tensors(case, dtype)
    data.k[0][5, 1] = torch.nan  # key/value head 1, so query heads 2 and 3, from position 5 on
    broken, whole = run_in_chunks(case, data, CPUAttention())
    assert broken[5:, 2:].isnan().all()
    assert broken[:, :2].isfinite().all()
    assert broken[:5].isfinite().all()
    assert whole.isfinite().all()


def test_prompts_of_ever_new_lengths_leave_nothing_behind() -> None:
    process = psutil.Process()

    def attend(seq_len: int) -> None:
        case = AttentionCase(((seq_len,),), 2, 2, 32, 16, None, seed=seq_len)
        run_in_chunks(case, make_tensors(case, torch.bfloat16), cpu)

    cpu = CPUAttention()
    for seq_len in sorted({padded(seq_len) for seq_len in range(8, 640)}):
        attend(seq_len)
    before = process.memory_info().rss
    for seq_len in range(8, 640, 2):
        attend(seq_len)
    assert process.memory_info().rss - before < 8 << 20  # a kernel for each length: 140 MiB

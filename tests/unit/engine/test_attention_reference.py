"""The reference backend against torch's dense attention, and the metadata it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from services.engine.attention import get_backend, make_metadata
from services.engine.errors import ConfigError
from tests.unit.engine.attention_cases import (
    AttentionCase,
    attention_cases,
    dense_attention,
    make_tensors,
    run_in_chunks,
)


@settings(max_examples=60, deadline=None)
@given(case=attention_cases())
def test_reference_equals_dense_attention_over_random_schedules(case: AttentionCase) -> None:
    data = make_tensors(case, torch.float32)
    got = run_in_chunks(case, data, get_backend("reference"))
    for ours, dense in zip(got, dense_attention(case, data), strict=True):
        torch.testing.assert_close(ours, dense, atol=1e-5, rtol=1e-5)


def test_metadata_places_each_token_in_its_block() -> None:
    meta = make_metadata(
        num_computed_tokens=np.array([0, 5, 3]),
        num_new_tokens=np.array([3, 1, 2]),
        block_tables=np.array([[7, 0], [2, 9], [4, 1]]),
        block_size=4,
    )
    assert meta.positions.tolist() == [0, 1, 2, 5, 3, 4]
    assert meta.slot_mapping.tolist() == [28, 29, 30, 37, 19, 4]
    assert meta.query_start_loc.tolist() == [0, 3, 4, 6]
    assert meta.seq_lens.tolist() == [3, 6, 5]
    assert (meta.num_seqs, meta.num_tokens, meta.num_decodes) == (3, 6, 1)
    assert (meta.max_query_len, meta.max_seq_len) == (3, 6)


def test_get_backend_refuses_an_unknown_name_by_key() -> None:
    with pytest.raises(ConfigError) as error:
        get_backend("flash")
    assert error.value.key == "attention_backend"

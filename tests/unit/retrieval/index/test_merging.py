from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.retrieval.index.merging import SegmentPolicy, Size, choose, choose_inline

POLICY = SegmentPolicy(inline_rows=64, fanout=4, max_segment_rows=10_000)


def sizes(*living: int) -> list[Size]:
    return [Size(number, number) for number in living]


def test_segments_of_one_size_are_merged_once_there_are_enough() -> None:
    assert choose(sizes(50, 60, 40), POLICY) == []
    assert sorted(choose(sizes(50, 900, 60, 40, 41), POLICY)) == [0, 2, 3, 4]


def test_small_segments_that_apply_merges_itself_do_not_count() -> None:
    assert choose(sizes(1, 2, 4, 8, 16, 32), POLICY) == []


def test_large_segments_are_left_alone() -> None:
    assert choose(sizes(*[6_000] * 8), POLICY) == []


def test_merged_segment_stays_within_the_limit() -> None:
    chosen = choose(sizes(*[4_000] * 6), POLICY)
    assert len(chosen) == 2


def test_segment_is_rewritten_once_much_of_it_is_gone() -> None:
    assert choose([Size(1000, 750)], POLICY) == []
    assert choose([Size(1000, 1000), Size(1000, 650)], POLICY) == [1]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=400))
def test_rows_are_copied_a_logarithmic_number_of_times(batches: list[int]) -> None:
    segments: list[int] = []
    copied = 0
    for batch in batches:
        chosen = choose_inline(segments, batch, POLICY)
        copied += sum(segments[at] for at in chosen)
        merged = batch + sum(segments[at] for at in chosen)
        segments = [size for at, size in enumerate(segments) if at not in chosen] + [merged]
        while chosen := choose(sizes(*segments), POLICY):
            copied += sum(segments[at] for at in chosen)
            merged = sum(segments[at] for at in chosen)
            segments = [size for at, size in enumerate(segments) if at not in chosen] + [merged]
    assert sum(segments) == sum(batches)
    assert copied <= 14 * sum(batches)
    assert len(segments) <= 6 + 4 * 4

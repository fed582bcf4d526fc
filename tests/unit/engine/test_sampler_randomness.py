"""The counter-based numbers: SplitMix64 itself, independence of streams, uniformity."""

from __future__ import annotations

import numpy as np

from services.engine.sampler.randomness import stream_keys, uniforms


def u64(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def splitmix64(state: int, count: int) -> list[int]:
    """The generator as published, with a mutable state and Python integers."""
    outputs = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        outputs.append(z ^ (z >> 31))
    return outputs


def test_uniforms_are_splitmix64_addressed_by_position() -> None:
    # The first outputs for this seed are the generator's published test vector.
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]
    for key in (0, 1234567, 2**64 - 1):
        expected = [(bits >> 11) * 2.0**-53 for bits in splitmix64(key, 6)]
        assert uniforms(np.full(6, key, dtype=np.uint64), u64(*range(6))).tolist() == expected


def test_a_number_depends_on_its_own_seed_completion_and_position_only() -> None:
    keys = stream_keys(u64(7, 7, 8, 7), u64(0, 1, 0, 0))
    together = uniforms(keys, u64(3, 3, 3, 4))
    alone = [
        uniforms(stream_keys(u64(seed), u64(completion)), u64(position))[0]
        for seed, completion, position in [(7, 0, 3), (7, 1, 3), (8, 0, 3), (7, 0, 4)]
    ]
    assert together.tolist() == alone
    assert len(set(alone)) == 4


def test_streams_of_small_seeds_and_completions_do_not_meet() -> None:
    seeds, completions = np.meshgrid(np.arange(200), np.arange(32))
    keys = stream_keys(seeds.ravel().astype(np.uint64), completions.ravel().astype(np.uint64))
    assert len(set(keys.tolist())) == 200 * 32
    first = uniforms(keys, np.zeros(len(keys), dtype=np.uint64))
    assert len(set(first.tolist())) == len(keys)


def test_numbers_are_uniform_over_seeds_and_over_positions() -> None:
    num_bins, count = 20, 20_000
    counter = np.arange(count, dtype=np.uint64)
    zeros = np.zeros(count, dtype=np.uint64)
    over_seeds = uniforms(stream_keys(counter, zeros), zeros)
    over_positions = uniforms(stream_keys(zeros, zeros), counter)
    for numbers in (over_seeds, over_positions):
        assert numbers.min() >= 0.0
        assert numbers.max() < 1.0
        counts = np.bincount((numbers * num_bins).astype(int), minlength=num_bins)
        statistic = ((counts - count / num_bins) ** 2 / (count / num_bins)).sum()
        assert statistic < (num_bins - 1) + 4 * (2 * (num_bins - 1)) ** 0.5
    neighbours = np.corrcoef(over_positions[:-1], over_positions[1:])[0, 1]
    assert abs(neighbours) < 4 / count**0.5

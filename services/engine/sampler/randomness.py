"""Uniform numbers that depend on a request alone. Knows nothing of logits, batches or torch.

A stateful generator would make a token depend on what else was sampled before it. Here the number
for output position `t` of completion `c` is a pure function of `(seed, c, t)`, so it is the same
whatever the batch around it, after a preemption, and when one completion of several is asked for
alone. The idea is that of counter-based generators (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011); the function is SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014, figures 16 and 17 with Stafford's mix 13), whose
state is itself a counter: output `t` of a stream is `mix(key + (t + 1) * golden_gamma)`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["UInt64Array", "stream_keys", "uniforms"]

UInt64Array = NDArray[np.uint64]

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(z: UInt64Array) -> UInt64Array:
    """SplitMix64's finaliser: a bijection of 64-bit integers in which every bit affects all."""
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def stream_keys(seeds: UInt64Array, completions: UInt64Array) -> UInt64Array:
    """The key of each completion's stream: uint64 [N] from the seeds and completion indices [N]."""
    return _mix(_mix(seeds + _GOLDEN_GAMMA) ^ _mix(completions * _GOLDEN_GAMMA))


def uniforms(keys: UInt64Array, positions: UInt64Array) -> NDArray[np.float64]:
    """float64 [N] in [0, 1): number `positions[i]` of stream `keys[i]`, 53 random bits each."""
    bits = _mix(keys + (positions + np.uint64(1)) * _GOLDEN_GAMMA)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53

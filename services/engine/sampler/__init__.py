"""Sampling: from the logits of a step to the next token of every sequence.

`sampler.py` is the whole in order; `constraints.py` and `penalties.py` edit logits,
`truncation.py` filters and draws, `randomness.py` gives the uniform numbers.
"""

from __future__ import annotations

from services.engine.sampler.constraints import check_token_constraints
from services.engine.sampler.sampler import Sampler, SampleResult, SampleRow

__all__ = ["SampleResult", "SampleRow", "Sampler", "check_token_constraints"]

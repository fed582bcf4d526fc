"""What the service knows of the model it serves, beside the engine that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ServedModel"]


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """Facts for callers and for the checks."""

    prediction_type: str  # "epsilon" or "v_prediction"
    dtype: str  # "float32", "float16" or "bfloat16"
    weight_hash: str
    max_prompt_tokens: int  # with special tokens
    size_multiple: int  # of width and height
    default_width: int  # where a request says nothing
    default_height: int
    default_karras_sigmas: bool  # where the scheduler has them
    count_tokens: Callable[[str], int]  # with special tokens; safe in any thread

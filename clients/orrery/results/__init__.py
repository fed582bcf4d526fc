"""What calls return: frozen dataclasses, one per kind of answer. No protobuf.

Times are in nanoseconds where the name ends in `_ns`, sizes are in tokens unless it says bytes.
One module for each service, and `common` for what all share.
"""

from __future__ import annotations

from orrery.results.common import StageTiming, Timing, Usage
from orrery.results.generation import (
    Application,
    BatchResult,
    CacheGeometry,
    Choice,
    DetokenizeResult,
    FinishReason,
    GenerationResult,
    Load,
    ModelInfo,
    PositionLogprobs,
    RequestLimits,
    ScoreResult,
    StreamEvent,
    TokenizeResult,
    TokenLogprob,
)

__all__ = [
    "Application",
    "BatchResult",
    "CacheGeometry",
    "Choice",
    "DetokenizeResult",
    "FinishReason",
    "GenerationResult",
    "Load",
    "ModelInfo",
    "PositionLogprobs",
    "RequestLimits",
    "ScoreResult",
    "StageTiming",
    "StreamEvent",
    "Timing",
    "TokenLogprob",
    "TokenizeResult",
    "Usage",
]

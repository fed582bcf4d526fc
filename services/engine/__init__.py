"""From-scratch GPT and LLaMA decoders: paged KV cache, continuous batching, streaming.

    from services.engine import LLM, SamplingParams

    llm = LLM("models/orrery-llama")
    [result] = llm.generate("The observatory of", SamplingParams(max_tokens=32, temperature=0.0))
    print(result.outputs[0].text)

Knows nothing of Ray, gRPC or HTTP. Names are loaded when they are first used, so that importing
the pure-Python parts (`request`, `scheduler`, `block_pool`) does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.engine.async_engine import AsyncEngine
    from services.engine.config import EngineConfig, ModelConfig
    from services.engine.engine import LLMEngine
    from services.engine.llm import LLM, Score
    from services.engine.request import (
        CompletionOutput,
        FinishReason,
        PositionLogprobs,
        Request,
        RequestOutput,
        SamplingParams,
        TokenLogprob,
    )
    from services.engine.stats import EngineLoad, RequestStats, StatsSink, StepStats
    from services.engine.tokenizer import Tokenizer

_HOMES = {
    "LLM": "llm",
    "AsyncEngine": "async_engine",
    "CompletionOutput": "request",
    "EngineConfig": "config",
    "EngineLoad": "stats",
    "FinishReason": "request",
    "LLMEngine": "engine",
    "ModelConfig": "config",
    "PositionLogprobs": "request",
    "Request": "request",
    "RequestOutput": "request",
    "RequestStats": "stats",
    "SamplingParams": "request",
    "Score": "llm",
    "StatsSink": "stats",
    "StepStats": "stats",
    "TokenLogprob": "request",
    "Tokenizer": "tokenizer",
}

__all__ = [
    "LLM",
    "AsyncEngine",
    "CompletionOutput",
    "EngineConfig",
    "EngineLoad",
    "FinishReason",
    "LLMEngine",
    "ModelConfig",
    "PositionLogprobs",
    "Request",
    "RequestOutput",
    "RequestStats",
    "SamplingParams",
    "Score",
    "StatsSink",
    "StepStats",
    "TokenLogprob",
    "Tokenizer",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)

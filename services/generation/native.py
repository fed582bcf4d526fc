"""The backend that is Orrery's own engine. Knows nothing of gRPC, protobuf or Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence

from services.engine.async_engine import AsyncEngine
from services.engine.engine import LLMEngine
from services.engine.kv_cache import bytes_per_block
from services.engine.layers.linear import row_counts
from services.engine.request import Request, RequestOutput, SamplingParams
from services.engine.tokenizer import Tokenizer
from services.engine.weights import load_model
from services.generation.backend import BackendLoad, CacheGeometry, Experts, ModelInfo
from services.generation.config import GenerationConfig
from services.generation.engine_metrics import EngineMetrics
from services.runtime.metrics import MetricsRegistry

__all__ = ["NativeBackend"]

_WARM_UP_S = 4.0


class NativeBackend:
    """A `services.generation.backend.Backend` over an `LLMEngine`, which it then owns."""

    def __init__(self, engine: LLMEngine, experts: Experts | None = None) -> None:
        self._experts = experts
        assert engine.tokenizer is not None
        self._tokenizer: Tokenizer = engine.tokenizer
        self._info = _model_info(engine)
        self._engine = AsyncEngine(engine)

    @classmethod
    async def start(
        cls,
        config: GenerationConfig,
        model_folder: str,
        registry: MetricsRegistry,
        experts: Experts | None = None,
    ) -> NativeBackend:
        """Loads and warms up a model in a thread. `experts` are this backend's to close.

        Raises `CheckpointError` or `ConfigError`, or `ExpertsUnavailableError`.
        """
        metrics = EngineMetrics(registry)

        def load() -> LLMEngine:
            if experts is not None:
                experts.wait_until_ready()
            settings = config.engine
            model = load_model(model_folder, settings.dtype, settings.device, sparse_layer=experts)
            if experts is not None:  # before they are asked to compute
                experts.check(model.weight_hash, model.dtype)
            tokenizer = Tokenizer.from_folder(model.path)
            engine = LLMEngine(model, tokenizer, settings, stats=metrics)
            _warm_up(engine)
            return engine

        engine = await asyncio.to_thread(load)
        metrics.begin(engine.load())
        return cls(engine, experts)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def failure(self) -> str | None:
        return self._engine.failure

    def generate(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        return self._engine.generate(request)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens)

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool
    ) -> list[int]:
        return self._tokenizer.encode_chat(messages, add_generation_prompt)

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens)

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        return [self._tokenizer.token_text(token_id) for token_id in token_ids]

    def load(self) -> BackendLoad:
        load = self._engine.load()
        return BackendLoad(
            num_running=load.num_running,
            num_waiting=load.num_waiting,
            num_blocks=load.num_blocks,
            num_free_blocks=load.num_free_blocks,
            prefix_queries=load.prefix_queries,
            prefix_hits=load.prefix_hits,
            num_preemptions=load.num_preemptions,
            num_finished=load.num_finished,
            num_prompt_tokens=load.num_prompt_tokens,
            num_cached_tokens=load.num_cached_tokens,
            num_output_tokens=load.num_output_tokens,
        )

    async def close(self) -> None:
        await self._engine.close()
        if self._experts is not None:
            self._experts.close()


def _warm_up(engine: LLMEngine) -> None:
    """Touches the weights and compiles the kernels, so that no client's first token waits.

    On a CPU, kernels are compiled for each number of tokens that a step may have; those of a large
    model, beside which compiling takes no time, when they are needed. On a GPU the longest step
    shows at the start whether there is memory for it.
    """
    config = engine.config
    most = min(config.max_num_batched_tokens, engine.max_model_len - 2)
    give_up_s = time.monotonic() + _WARM_UP_S
    for length in row_counts(most) if config.device == "cpu" else [most]:
        prompt = [length % engine.model.config.vocab_size] * length
        params = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
        engine.add_request(Request("warm-up", prompt, params))
        while engine.has_unfinished():
            for output in engine.step():
                if output.error is not None:
                    raise output.error
        if time.monotonic() > give_up_s:
            return


def _model_info(engine: LLMEngine) -> ModelInfo:
    model, config = engine.model, engine.config
    shape = model.config
    return ModelInfo(
        family=shape.family,
        backend="native",
        num_parameters=model.num_parameters,
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        dtype=str(model.dtype).removeprefix("torch."),
        max_model_len=engine.max_model_len,
        weight_hash=model.weight_hash,
        has_chat_template=engine.tokenizer is not None and engine.tokenizer.has_chat_template,
        cache=CacheGeometry(
            block_size=config.block_size,
            num_blocks=engine.load().num_blocks,
            bytes_per_block=bytes_per_block(shape, config, model.dtype),
            prefix_caching=config.enable_prefix_caching,
        ),
        max_running=config.max_num_seqs,
        max_waiting=config.max_num_waiting,
        max_tokens_per_step=config.max_num_batched_tokens,
    )

"""The backend that is vLLM's `AsyncLLM`: a user's big models on GPUs, behind the same servicer.

Prompts are tokenized by the same code as for the native engine; vLLM gets token ids. Imported only
when the config asks for it: vLLM has an environment of its own. Knows nothing of gRPC or Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import vllm
from safetensors import safe_open
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError as VLLMEngineDeadError

from services.engine.errors import EngineDeadError, InvalidRequestError, QueueFullError
from services.engine.request import Request, RequestOutput
from services.engine.tokenizer import Tokenizer
from services.engine.validation import RequestValidator
from services.engine.weights import resolve_model
from services.generation.backend import BackendLoad, CacheGeometry, ModelInfo
from services.generation.config import GenerationConfig, VLLMConfig
from services.generation.engine_metrics import EngineMetrics
from services.generation.vllm_stats import VLLMStats
from services.generation.vllm_translation import OutputTranslator, to_vllm_params
from services.runtime.metrics import MetricsRegistry

__all__ = ["VLLMBackend"]


class VLLMBackend:
    """A `services.generation.backend.Backend` over an `AsyncLLM`, which it then owns."""

    def __init__(
        self, engine: AsyncLLM, tokenizer: Tokenizer, info: ModelInfo, stats: VLLMStats
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._info = info
        self._stats = stats
        self._closed = False
        self._validator = RequestValidator(
            vocab_size=info.vocab_size,
            eos_token_ids=tokenizer.eos_token_ids,
            max_model_len=info.max_model_len,
            max_num_seqs=info.max_running,
            has_tokenizer=True,
        )

    @classmethod
    async def start(
        cls, config: GenerationConfig, model_folder: str, registry: MetricsRegistry
    ) -> VLLMBackend:
        """Starts vLLM's engine process. Raises `CheckpointError` or `ConfigError`, or vLLM's own
        error when it does not like its settings.
        """
        settings = config.vllm or VLLMConfig()
        folder = await asyncio.to_thread(resolve_model, model_folder)
        tokenizer = await asyncio.to_thread(Tokenizer.from_folder, folder)
        metrics = EngineMetrics(registry)
        stats = VLLMStats(metrics)
        engine_config = await asyncio.to_thread(_engine_args(folder, settings).create_engine_config)
        # On the event loop: the engine ties its output task to the loop it is made on.
        engine = AsyncLLM.from_vllm_config(
            engine_config, stat_loggers=[stats], disable_log_stats=True
        )
        metrics.begin(stats.load)
        return cls(engine, tokenizer, _model_info(engine, tokenizer, folder, settings), stats)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def failure(self) -> str | None:
        return "the engine has stopped" if self._closed or self._engine.errored else None

    async def generate(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        if self._closed:
            raise EngineDeadError("the engine has been closed")
        max_num_tokens = self._validator.check(request)
        prompt = request.prompt_token_ids
        params = to_vllm_params(request.params, max_num_tokens - len(prompt))
        translator = OutputTranslator(request, self._tokenizer)
        with _engine_errors():
            stream = self._engine.generate(
                vllm.TokensPrompt(prompt_token_ids=list(prompt)),
                params,
                request.request_id,
                priority=request.priority,
            )
            async with aclosing(stream):
                while True:
                    try:
                        output = await _next_before(stream, request.deadline_s)
                    except StopAsyncIteration:
                        return
                    except TimeoutError:
                        yield translator.at_deadline()
                        return
                    yield translator.translate(output)

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
        load = self._stats.load
        # vLLM reports after steps only: once nothing is left, no step says so.
        idle = self._engine.output_processor.get_num_unfinished_requests() == 0
        return BackendLoad(
            num_running=0 if idle else load.num_running,
            num_waiting=0 if idle else load.num_waiting,
            num_blocks=self._info.cache.num_blocks,
            num_free_blocks=self._info.cache.num_blocks if idle else load.num_free_blocks,
            prefix_queries=load.prefix_queries,
            prefix_hits=load.prefix_hits,
            num_preemptions=load.num_preemptions,
            num_finished=load.num_finished,
            num_prompt_tokens=load.num_prompt_tokens,
            num_cached_tokens=load.num_cached_tokens,
            num_output_tokens=load.num_output_tokens,
        )

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._engine.shutdown)


async def _next_before(stream: AsyncIterator[Any], deadline_s: float | None) -> Any:
    """The stream's next item. Raises `TimeoutError` at the deadline (`time.monotonic`)."""
    left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
    async with asyncio.timeout(left_s):
        return await anext(stream)


@contextlib.contextmanager
def _engine_errors() -> Iterator[None]:
    """vLLM's errors as the engine's. What it does not foresee stays as it is."""
    try:
        yield
    except VLLMEngineDeadError as error:
        raise EngineDeadError("vLLM's engine process has stopped") from error
    except GracefulHTTPError as error:
        raise QueueFullError("the queue is full") from error
    except VLLMClientError as error:
        field = getattr(error, "parameter", None) or "request"
        raise InvalidRequestError(field, str(error)) from error


def _engine_args(folder: Path, settings: VLLMConfig) -> AsyncEngineArgs:
    optional = {
        name: value
        for name in ("max_num_batched_tokens", "block_size", "kv_cache_memory_bytes")
        if (value := getattr(settings, name)) is not None
    }
    return AsyncEngineArgs(
        model=str(folder),
        load_format="safetensors",  # a pickle can run code when loaded
        trust_remote_code=False,
        dtype=settings.dtype,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        max_num_queued_reqs=settings.max_num_seqs + settings.max_num_waiting,
        scheduling_policy="priority",
        gpu_memory_utilization=settings.gpu_memory_utilization,
        tensor_parallel_size=settings.tensor_parallel_size,
        pipeline_parallel_size=settings.pipeline_parallel_size,
        quantization=settings.quantization,
        enable_prefix_caching=settings.enable_prefix_caching,
        enforce_eager=settings.enforce_eager,
        **optional,
    )


def _model_info(
    engine: AsyncLLM, tokenizer: Tokenizer, folder: Path, settings: VLLMConfig
) -> ModelInfo:
    model, cache = engine.model_config, engine.vllm_config.cache_config
    shape, scheduler = model.hf_text_config, engine.vllm_config.scheduler_config
    num_heads: int = shape.num_attention_heads
    num_kv_heads: int = getattr(shape, "num_key_value_heads", None) or num_heads
    head_dim: int = model.get_head_size()
    per_token = 2 * shape.num_hidden_layers * num_kv_heads * head_dim * model.dtype.itemsize
    return ModelInfo(
        family=shape.model_type,
        backend="vllm",
        num_parameters=_num_parameters(folder),
        hidden_size=model.get_hidden_size(),
        num_layers=shape.num_hidden_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        vocab_size=model.get_vocab_size(),
        dtype=str(model.dtype).removeprefix("torch."),
        max_model_len=model.max_model_len,
        weight_hash="",  # reading a big checkpoint once more would double the start
        has_chat_template=tokenizer.has_chat_template,
        cache=CacheGeometry(
            block_size=cache.block_size,
            num_blocks=cache.num_gpu_blocks or 0,
            bytes_per_block=per_token * cache.block_size,
            prefix_caching=settings.enable_prefix_caching,
        ),
        max_running=settings.max_num_seqs,
        max_waiting=settings.max_num_waiting,
        max_tokens_per_step=scheduler.max_num_batched_tokens,
    )


def _num_parameters(folder: Path) -> int:
    """From the headers of the checkpoint's files."""
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                size = 1
                for length in tensors.get_slice(name).get_shape():
                    size *= length
                total += size
    return total

"""`GenerationService` over a backend: protobuf in, protobuf out.

The same servicer runs under a plain `grpc.aio` server and inside Ray Serve. Knows nothing of Ray,
nor of which backend decodes. Each accepted call ends in one finish reason per choice, or in one
error status; a call that is cancelled closes its backend stream, which frees what it held.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from services.engine.request import (
    MAX_LOGPROBS,
    MAX_N,
    MAX_STOP_STRINGS,
    Request,
    RequestOutput,
    SamplingParams,
)
from services.generation import messages, scoring
from services.generation.backend import Backend
from services.generation.collect import collect
from services.generation.config import GenerationConfig
from services.generation.outcomes import raise_failure
from services.generation.places import Places
from services.generation.prompts import PromptEncoder
from services.runtime.errors import InvalidRequest, ModelNotFound
from services.runtime.offload import offload_if_large
from services.runtime.process import resident_bytes
from services.runtime.rpc import Call, RpcPolicy, server_stream, unary

__all__ = ["GenerationServicer"]


class GenerationServicer:
    """The RPCs of one application: one model."""

    def __init__(self, config: GenerationConfig, backend: Backend, rpc: RpcPolicy) -> None:
        self._config = config
        self._backend = backend
        self._rpc = rpc
        self._encoder = PromptEncoder(backend, config.limits)
        self._created_s = int(time.time())
        self._sequence = itertools.count()

    @property
    def rpc(self) -> RpcPolicy:
        """What every call goes through."""
        return self._rpc

    async def close(self) -> None:
        """Drains: refuses new calls, lets running ones finish in time, frees the model."""
        await self._rpc.lifecycle.drain(self._config.drain_timeout_s)
        await self._backend.close()

    @server_stream()
    async def Generate(
        self, request: pb.GenerateRequest, call: Call
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Streams one prompt's completions; the first message leaves with the first token."""
        self._check_model(request.model)
        params = messages.sampling_params(request.sampling)
        prompt = messages.prompt_input(request.prompt)
        token_ids: Sequence[int] = await self._encoder.encode(prompt)
        engine_request = self._request(call, list(token_ids), params, request.priority)
        async with aclosing(self._backend.generate(engine_request)) as outputs:
            async for output in outputs:
                raise_failure(output.outputs, output.error)
                yield self._response(call, output, token_ids)
                token_ids = ()  # only the first message repeats the prompt

    @unary(pb.GenerateBatchResponse)
    async def GenerateBatch(
        self, request: pb.GenerateBatchRequest, call: Call
    ) -> pb.GenerateBatchResponse:
        """Runs many prompts, so many at a time; one that fails has its error in its result."""
        self._check_model(request.model)
        params = messages.sampling_params(request.sampling)
        limits = self._config.limits
        if not 1 <= len(request.prompts) <= limits.max_batch_prompts:
            raise InvalidRequest(
                f"prompts: expected 1 to {limits.max_batch_prompts}, got {len(request.prompts)}",
                field="prompts",
            )
        # More than can run at a time would only take places that other callers could have.
        places = Places(min(limits.max_batch_concurrency, self._backend.info.max_running))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    self._batch_result(call, prompt, params, request.priority, places)
                )
                for prompt in request.prompts
            ]
        results = [task.result() for task in tasks]
        return pb.GenerateBatchResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            results=results,
            usage=_sum_usage([result.usage for result in results]),
            timing=_longest_stages([result.timing for result in results], call.total_ns),
        )

    @unary(pb.ScoreResponse)
    async def Score(self, request: pb.ScoreRequest, call: Call) -> pb.ScoreResponse:
        """Log-probability of each token of the target, after the context."""
        self._check_model(request.model)
        top = request.top_logprobs if request.HasField("top_logprobs") else None
        params = scoring.score_params(top)
        context_ids, target_ids = await self._score_ids(request)
        scoring.check_scorable(len(context_ids), len(target_ids))
        engine_request = self._request(call, context_ids + target_ids, params, priority=0)
        collected = await collect(self._backend, engine_request)
        raise_failure(collected.completions.values(), collected.error)
        scored = scoring.scored_text(collected, len(target_ids))
        return pb.ScoreResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            tokens=messages.position_logprobs(scored.positions),
            total_logprob=scored.total_logprob,
            num_scored_tokens=scored.num_scored,
            perplexity=scored.perplexity,
            usage=messages.usage(collected),
            timing=messages.timing(collected.timing, call.total_ns),
        )

    @unary(pb.TokenizeResponse)
    async def Tokenize(self, request: pb.TokenizeRequest, call: Call) -> pb.TokenizeResponse:
        """Token ids of a prompt, and each token's text."""
        self._check_model(request.model)
        special = request.add_special_tokens if request.HasField("add_special_tokens") else True
        prompt = messages.prompt_input(request.prompt)
        token_ids = await self._encoder.encode(prompt, add_special_tokens=special)
        texts = await offload_if_large(len(token_ids), lambda: self._backend.token_texts(token_ids))
        return pb.TokenizeResponse(
            token_ids=token_ids,
            tokens=texts,
            max_model_len=self._backend.info.max_model_len,
            usage=common_pb2.Usage(prompt_tokens=len(token_ids)),
            timing=common_pb2.Timing(total_ns=call.total_ns),
        )

    @unary(pb.DetokenizeResponse)
    async def Detokenize(self, request: pb.DetokenizeRequest, call: Call) -> pb.DetokenizeResponse:
        """The text of token ids."""
        self._check_model(request.model)
        limit = self._config.limits.max_detokenize_ids
        if len(request.token_ids) > limit:
            raise InvalidRequest(
                f"token_ids: expected at most {limit}, got {len(request.token_ids)}",
                field="token_ids",
            )
        token_ids = list(request.token_ids)
        self._encoder.check_token_ids(token_ids, "token_ids")
        text = await offload_if_large(
            len(token_ids), lambda: self._backend.decode(token_ids, request.skip_special_tokens)
        )
        return pb.DetokenizeResponse(
            text=text,
            usage=common_pb2.Usage(prompt_tokens=len(token_ids)),
            timing=common_pb2.Timing(total_ns=call.total_ns),
        )

    @unary(pb.GetModelResponse)
    async def GetModel(self, request: pb.GetModelRequest, _call: Call) -> pb.GetModelResponse:
        """What is served, and within which limits."""
        self._check_model(request.model)
        info = self._backend.info
        return pb.GetModelResponse(
            model=self._config.model_name,
            limits=pb.RequestLimits(
                max_running=info.max_running,
                max_waiting=info.max_waiting,
                max_tokens_per_step=info.max_tokens_per_step,
                max_n=min(MAX_N, info.max_running),
                max_stop_strings=MAX_STOP_STRINGS,
                max_logprobs=MAX_LOGPROBS,
                max_batch_prompts=self._config.limits.max_batch_prompts,
            ),
            created=self._created_s,
            **messages.model_fields(info),
        )

    @unary(pb.GetLoadResponse)
    async def GetLoad(self, request: pb.GetLoadRequest, _call: Call) -> pb.GetLoadResponse:
        """What the engine is doing right now."""
        self._check_model(request.model)
        load = self._backend.load()
        return pb.GetLoadResponse(
            model=self._config.model_name,
            num_running=load.num_running,
            num_waiting=load.num_waiting,
            num_blocks=load.num_blocks,
            num_free_blocks=load.num_free_blocks,
            prefix_cache_hit_rate=load.prefix_cache_hit_rate,
            num_preemptions=load.num_preemptions,
            num_finished=load.num_finished,
            resident_bytes=resident_bytes(),
            process_id=os.getpid(),
            num_prompt_tokens=load.num_prompt_tokens,
            num_cached_tokens=load.num_cached_tokens,
            num_completion_tokens=load.num_output_tokens,
        )

    def _check_model(self, model: str) -> None:
        if not self._config.serves(model):
            raise ModelNotFound(
                f"model: this application serves {self._config.model_name!r}, not {model[:128]!r}",
                field="model",
            )

    def _request(
        self, call: Call, token_ids: list[int], params: SamplingParams, priority: int
    ) -> Request:
        # Two calls may carry the same request id; within the engine each is its own request.
        default_s = call.arrival_s + self._config.limits.default_timeout_s
        return Request(
            request_id=f"{call.request_id}#{next(self._sequence)}",
            prompt_token_ids=token_ids,
            params=params,
            priority=priority,
            deadline_s=default_s if call.deadline_s is None else call.deadline_s,
            arrival_s=call.arrival_s,
        )

    def _response(
        self, call: Call, output: RequestOutput, prompt_token_ids: Sequence[int]
    ) -> pb.GenerateResponse:
        return pb.GenerateResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            choices=[messages.completion_delta(delta) for delta in output.outputs],
            prompt_token_ids=prompt_token_ids,
            prompt_logprobs=messages.position_logprobs(output.prompt_logprobs or ()),
            usage=messages.usage(output),
            timing=messages.timing(output.timing, call.total_ns),
        )

    async def _batch_result(
        self,
        call: Call,
        prompt: common_pb2.Prompt,
        params: SamplingParams,
        priority: int,
        places: Places,
    ) -> pb.BatchResult:
        started_ns = call.total_ns

        async def run() -> pb.BatchResult:
            nonlocal started_ns
            started_ns = call.total_ns
            token_ids = await self._encoder.encode(messages.prompt_input(prompt))
            request = self._request(call, token_ids, params, priority)
            collected = await collect(self._backend, request)
            if not collected.is_partial_at_deadline:
                raise_failure(collected.completions.values(), collected.error)
            return messages.batch_result(token_ids, collected, call.total_ns - started_ns)

        try:
            return await places.run(run)
        except Exception as exc:  # noqa: BLE001 - one prompt's failure must not end the others
            error = self._rpc.taxonomic(exc, call.method, call.request_id)
            return messages.failed_result(error, call.total_ns - started_ns)

    async def _score_ids(self, request: pb.ScoreRequest) -> tuple[list[int], list[int]]:
        """Token ids of context and target. Only what comes first gets the special tokens."""
        context_ids: list[int] = []
        if request.HasField("context"):
            context = messages.prompt_input(request.context, "context")
            context_ids = await self._encoder.encode(context, field="context")
        target = messages.prompt_input(request.target, "target")
        if request.target.WhichOneof("kind") == "chat":
            raise InvalidRequest("target: expected text or token_ids", field="target")
        target_ids = await self._encoder.encode(
            target, field="target", add_special_tokens=not context_ids
        )
        return context_ids, target_ids


def _sum_usage(usages: Sequence[common_pb2.Usage]) -> common_pb2.Usage:
    return common_pb2.Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
    )


def _longest_stages(timings: Sequence[common_pb2.Timing], total_ns: int) -> common_pb2.Timing:
    """Prompts of a batch run side by side, so their stages do not add up: the longest of each."""
    return common_pb2.Timing(
        queue_ns=max(timing.queue_ns for timing in timings),
        prefill_ns=max(timing.prefill_ns for timing in timings),
        decode_ns=max(timing.decode_ns for timing in timings),
        total_ns=total_ns,
    )

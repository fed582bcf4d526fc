"""Carries out a generation: one job, its prompts, the answer whole or as it comes.

Knows nothing of HTTP or of OpenAI's shapes. Leaving a generator or cancelling a task cancels every
call that it made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from orrery import methods
from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from services.gateway.catalog import ServedModel
from services.gateway.field_names import as_client_wrote
from services.gateway.upstream import Caller, Upstream, error_of_item
from services.runtime.errors import Internal, InvalidRequest, OrreryError

__all__ = ["Job", "complete", "stream"]

# Prompts of one streamed request that are with the service at the same time: at most so many, and
# at most as many as it runs.
_MAX_STREAMS = 32


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked of one model, and by whom.

    `field_names` says what the client called a field that the service calls otherwise.
    """

    model: ServedModel[pb.GetModelResponse]
    prompts: Sequence[common_pb2.Prompt]
    sampling: pb.SamplingParams
    caller: Caller
    priority: int = 0
    field_names: Mapping[str, str] = field(default_factory=dict)

    def check_size(self) -> None:
        """Raises `InvalidRequest` when there are more prompts than the model's service takes."""
        limit = self.model.info.limits.max_batch_prompts
        if len(self.prompts) > limit:
            raise InvalidRequest(
                f"prompt: expected at most {limit} prompts, got {len(self.prompts)}", field="prompt"
            )


async def complete(upstream: Upstream, job: Job) -> Sequence[pb.BatchResult]:
    """All prompts to their end, in one call. Raises the first prompt's error, if one failed."""
    request = pb.GenerateBatchRequest(
        model=job.model.name, prompts=job.prompts, sampling=job.sampling, priority=job.priority
    )
    try:
        response = await upstream.unary(
            job.model.application, methods.GENERATE_BATCH, request, job.caller
        )
        for result in response.results:
            if result.HasField("error"):
                raise error_of_item(result.error)
    except OrreryError as error:
        raise as_client_wrote(error, job.field_names) from error.__cause__
    return response.results


async def stream(
    upstream: Upstream, job: Job
) -> AsyncGenerator[tuple[int, pb.GenerateResponse], None]:
    """Messages as they come, each with the number of its prompt."""
    messages = _one(upstream, job, 0) if len(job.prompts) == 1 else _merged(upstream, job)
    try:
        async with aclosing(messages):
            async for message in messages:
                yield message
    except OrreryError as error:
        raise as_client_wrote(error, job.field_names) from error.__cause__


async def _one(
    upstream: Upstream, job: Job, index: int
) -> AsyncGenerator[tuple[int, pb.GenerateResponse], None]:
    request = pb.GenerateRequest(
        model=job.model.name,
        prompt=job.prompts[index],
        sampling=job.sampling,
        priority=job.priority,
    )
    caller = job.caller
    if len(job.prompts) > 1:
        caller = replace(caller, request_id=f"{caller.request_id}-{index}")
    responses = upstream.server_stream(job.model.application, methods.GENERATE, request, caller)
    async with aclosing(responses):
        async for response in responses:
            yield index, response


async def _merged(
    upstream: Upstream, job: Job
) -> AsyncGenerator[tuple[int, pb.GenerateResponse], None]:
    """The messages of all prompts in the order of their arrival; the first error ends them all."""
    num_streams = min(_MAX_STREAMS, job.model.info.limits.max_running)
    # Bounded: a slow reader holds the services back instead of filling this process.
    queue: asyncio.Queue[tuple[int, pb.GenerateResponse] | OrreryError | None] = asyncio.Queue(
        maxsize=num_streams
    )
    slots = asyncio.Semaphore(num_streams)

    async def pump(index: int) -> None:
        ending: OrreryError | None = None
        try:
            async with slots, aclosing(_one(upstream, job, index)) as messages:
                async for message in messages:
                    await queue.put(message)
        except OrreryError as error:
            ending = error
        except Exception as error:  # noqa: BLE001 - it must reach the reader, who waits for it
            ending = Internal("an internal error occurred; the log has it under the request id")
            ending.__cause__ = error
        await queue.put(ending)

    pumps = [asyncio.create_task(pump(index)) for index in range(len(job.prompts))]
    try:
        left = len(pumps)
        while left:
            item = await queue.get()
            if isinstance(item, OrreryError):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

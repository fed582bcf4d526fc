"""`RagService` over the pipeline: protobuf in, protobuf out.

The same servicer runs under a plain `grpc.aio` server and inside Ray Serve. Knows nothing of Ray,
nor of how a question is answered.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from orrery.v1 import common_pb2
from orrery.v1 import rag_pb2 as pb
from services.rag import messages
from services.rag.config import RagConfig
from services.rag.conversations import Conversations, check_conversation_id
from services.rag.pipeline import Pipeline
from services.rag.planning import make_plan
from services.rag.types import Answer, AnswerText, PassagesFound, Question
from services.runtime.errors import DeadlineExceeded, InvalidRequest
from services.runtime.peer import Caller
from services.runtime.process import resident_bytes
from services.runtime.rpc import Call, RpcPolicy, server_stream, unary

__all__ = ["RagServicer"]

T = TypeVar("T")


class RagServicer:
    """The RPCs of one application."""

    def __init__(
        self,
        config: RagConfig,
        pipeline: Pipeline,
        conversations: Conversations,
        rpc: RpcPolicy,
    ) -> None:
        self._config = config
        self._pipeline = pipeline
        self._conversations = conversations
        self._rpc = rpc

    @property
    def rpc(self) -> RpcPolicy:
        """What every call goes through."""
        return self._rpc

    async def close(self) -> None:
        """Drains: refuses new calls, lets running ones finish in time."""
        await self._rpc.lifecycle.drain(self._config.drain_timeout_s)
        await self._conversations.close()

    @server_stream()
    async def Ask(self, request: pb.AskRequest, call: Call) -> AsyncGenerator[pb.AskResponse, None]:
        """Passages, the answer as it is written, the result."""
        question = messages.question(request)
        events = self._pipeline.ask(
            question, self._caller(call), call.arrival_s, explain=request.explain
        )
        found: PassagesFound | None = None
        with self._pipeline.running.admitted():
            async with aclosing(events):
                async for event in events:
                    match event:
                        case PassagesFound():
                            found = event
                            yield pb.AskResponse(passages=messages.passages(event))
                        case AnswerText():
                            yield pb.AskResponse(delta=messages.delta(event))
                        case Answer():
                            assert found is not None
                            result = self._result(call, question, event, found, call.total_ns)
                            yield pb.AskResponse(result=result)

    @unary(pb.AskBatchResponse)
    async def AskBatch(self, request: pb.AskBatchRequest, call: Call) -> pb.AskBatchResponse:
        """Answers so many questions at a time; one that fails has its error in its item."""
        questions = messages.questions(request)
        limits = self._config.limits
        if not 1 <= len(questions) <= limits.max_batch_questions:
            raise InvalidRequest(
                f"questions: expected 1 to {limits.max_batch_questions}, got {len(questions)}",
                field="questions",
            )
        # What is wrong for every question is the call's error, not each item's.
        make_plan(self._config, replace(questions[0], text="?"))
        at_a_time = min(len(questions), limits.max_batch_concurrency, limits.max_running)
        slots = asyncio.Semaphore(at_a_time)

        async def run(question: Question) -> pb.AskBatchItem:
            async with slots:
                return await self._item(call, question)

        with self._pipeline.running.admitted(at_a_time):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run(question)) for question in questions]
        items = [task.result() for task in tasks]
        return pb.AskBatchResponse(
            request_id=call.request_id,
            items=items,
            usage=_sum_usage(items),
            timing=_longest_stages(items, call.total_ns),
        )

    @unary(pb.GetConversationResponse)
    async def GetConversation(
        self, request: pb.GetConversationRequest, call: Call
    ) -> pb.GetConversationResponse:
        """The turns of a conversation."""
        check_conversation_id(request.conversation_id)
        caller = self._caller(call)
        work = self._conversations.get(caller.api_key, request.conversation_id)
        found = await _in_time(caller, work)
        return messages.conversation(found, common_pb2.Timing(total_ns=call.total_ns))

    @unary(pb.DeleteConversationResponse)
    async def DeleteConversation(
        self, request: pb.DeleteConversationRequest, call: Call
    ) -> pb.DeleteConversationResponse:
        """Forgets a conversation."""
        check_conversation_id(request.conversation_id)
        caller = self._caller(call)
        work = self._conversations.delete(caller.api_key, request.conversation_id)
        await _in_time(caller, work)
        return pb.DeleteConversationResponse(timing=common_pb2.Timing(total_ns=call.total_ns))

    @unary(pb.RagServiceGetLoadResponse)
    async def GetLoad(
        self, _request: pb.RagServiceGetLoadRequest, _call: Call
    ) -> pb.RagServiceGetLoadResponse:
        """What is being answered right now."""
        running = self._pipeline.running
        return pb.RagServiceGetLoadResponse(
            num_running=running.num_running,
            num_running_by_stage=running.by_stage,
            conversations_available=self._conversations.available,
            resident_bytes=resident_bytes(),
            num_questions_done=running.num_done,
            process_id=os.getpid(),
        )

    def _caller(self, call: Call) -> Caller:
        return Caller.of(call, self._config.limits.default_timeout_s)

    def _result(
        self, call: Call, question: Question, answer: Answer, found: PassagesFound, total_ns: int
    ) -> pb.AskResult:
        return messages.result(
            answer,
            found,
            request_id=call.request_id,
            conversation_id=question.conversation_id,
            total_ns=total_ns,
        )

    async def _item(self, call: Call, question: Question) -> pb.AskBatchItem:
        started_ns = call.total_ns
        found: PassagesFound | None = None
        item = pb.AskBatchItem()
        try:
            events = self._pipeline.ask(question, self._caller(call), call.arrival_s)
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, PassagesFound):
                        found = event
                        item.passages.CopyFrom(messages.passages(event))
                    elif isinstance(event, Answer):
                        assert found is not None
                        total_ns = call.total_ns - started_ns
                        result = self._result(call, question, event, found, total_ns)
                        item.result.CopyFrom(result)
        except Exception as exc:  # noqa: BLE001 - one question's failure must not end the others
            return messages.failed(self._rpc.taxonomic(exc, call.method, call.request_id))
        return item


async def _in_time(caller: Caller, work: Awaitable[T]) -> T:
    """Awaits a store that may not answer, until the deadline. Raises `DeadlineExceeded`."""
    try:
        async with asyncio.timeout(caller.left_s()):
            return await work
    except TimeoutError as error:
        raise DeadlineExceeded(
            "the store did not answer before the time was up", stage="conversation"
        ) from error


def _sum_usage(items: list[pb.AskBatchItem]) -> common_pb2.Usage:
    usages = [item.result.usage for item in items]
    return common_pb2.Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
    )


def _longest_stages(items: list[pb.AskBatchItem], total_ns: int) -> common_pb2.Timing:
    """Questions of a batch are answered side by side: the longest of each stage."""
    timings = [item.result.timing for item in items]
    return common_pb2.Timing(
        queue_ns=max(timing.queue_ns for timing in timings),
        prefill_ns=max(timing.prefill_ns for timing in timings),
        decode_ns=max(timing.decode_ns for timing in timings),
        retrieval_ns=max(timing.retrieval_ns for timing in timings),
        rerank_ns=max(timing.rerank_ns for timing in timings),
        total_ns=total_ns,
    )

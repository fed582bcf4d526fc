"""Answers a question: find passages, put them before the model, let it answer, cite.

    conversation -> rewrite -> queries -> hyde -> embed -> search      finding.py
      -> pack                                                         packing.py
      -> generate -> vote                                             writing.py
      -> cite -> save                                                 citing.py, conversations.py

Stages that a question does not need are left out. Leaving the generator cancels whatever is under
way in any service. Knows nothing of protobuf, gRPC or Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from services.rag.abstention import after_citing, before_writing
from services.rag.citing import cite
from services.rag.config import RagConfig
from services.rag.conversations import Conversations
from services.rag.deadlines import Budget, end_before
from services.rag.finding import Finder, Findings
from services.rag.metrics import RagMetrics
from services.rag.packing import Packed, Packing, pack
from services.rag.planning import Plan, make_plan
from services.rag.prompts.style import REFUSAL
from services.rag.running import Running
from services.rag.sentences import names
from services.rag.services import Services, Tokenized
from services.rag.timeline import Timeline
from services.rag.types import (
    Answer,
    AnswerText,
    Citation,
    Event,
    Message,
    PassagesFound,
    Question,
    Turn,
)
from services.rag.writing import Writer
from services.runtime.errors import OrreryError, kind_of
from services.runtime.peer import Caller

__all__ = ["Pipeline"]

_LOG = logging.getLogger("orrery.rag")


class Pipeline:
    """Answers questions, many at a time."""

    def __init__(
        self,
        config: RagConfig,
        services: Services,
        conversations: Conversations,
        metrics: RagMetrics,
    ) -> None:
        self._config = config
        self._services = services
        self._conversations = conversations
        self._metrics = metrics
        self.running = Running(config.limits.max_running, metrics.running, metrics.usage)

    async def ask(
        self, question: Question, caller: Caller, arrival_s: float, *, explain: bool = False
    ) -> AsyncGenerator[Event, None]:
        """One `PassagesFound`, the answer as it is written, one `Answer`.

        The pieces of text, joined, are the answer; but one that was streamed as it was written may
        be withdrawn at its end, because nothing supports it or because it refuses in words of its
        own.

        Raises:
            InvalidRequest: An option is wrong, or the model cannot do it.
            DeadlineExceeded: `stage` says where the time was up.
        """
        plan = make_plan(self._config, question)
        budget = Budget(
            arrival_s,
            end_before(arrival_s, caller.deadline_s),
            self._config.shares.by_stage(),
            plan.stages(),
        )
        timeline = Timeline(caller, budget, self.running, self._metrics.stage)
        asking = _Asking(plan, caller, timeline, self._services, self._conversations)
        is_answered = False
        with self.running.question():
            try:
                async with aclosing(asking.events(self._config, explain=explain)) as events:
                    async for event in events:
                        if isinstance(event, Answer):
                            is_answered = True
                            self._metrics.answered(event)
                        yield event
            except Exception as error:
                self._metrics.failed(kind_of(error).reason)
                raise
            except (asyncio.CancelledError, GeneratorExit):
                if not is_answered:  # who has the answer may leave without waiting for the end
                    self._metrics.failed("cancelled")
                raise


class _Asking:
    """One question on its way through the stages."""

    def __init__(
        self,
        plan: Plan,
        caller: Caller,
        timeline: Timeline,
        services: Services,
        conversations: Conversations,
    ) -> None:
        self._plan = plan
        self._caller = caller
        self._timeline = timeline
        self._services = services
        self._conversations = conversations

    async def events(self, config: RagConfig, *, explain: bool) -> AsyncGenerator[Event, None]:
        history = await self._history()
        finder = Finder(
            self._plan,
            self._services,
            self._timeline,
            embedding_application=config.embedding_application,
        )
        found = await finder.find(history, explain=explain)
        packed = await self._pack(found, history)
        yield PassagesFound(
            found.passages,
            packed.used,
            found.index_generation,
            found.queries,
            found.notices + packed.notices,
        )
        writer = Writer(self._plan, self._services, self._timeline)
        abstention = before_writing(self._plan, packed.used)
        is_streamed = False
        if abstention is None:
            async with aclosing(self._deltas(writer, packed)) as deltas:
                async for delta in deltas:
                    is_streamed = is_streamed or bool(delta.text)
                    yield delta
        citations = await self._cite(writer, found, packed)
        answer = "" if writer.written is None else writer.written.text
        abstention = abstention or after_citing(self._plan, answer, citations)
        text = answer if abstention is None else REFUSAL
        if not is_streamed:
            yield AnswerText(text)
        saved = await self._save(Turn(self._plan.question.text, text, abstention))
        yield Answer(
            text=text,
            reasoning="" if writer.written is None else writer.written.reasoning,
            abstention=abstention,
            citations=tuple(citations) if abstention is None else (),
            model=writer.model,
            agreement=1.0 if writer.written is None else writer.written.agreement,
            index_generation=found.index_generation,
            usage=finder.usage + writer.usage,
            timing=writer.timing,
            retrieval_ns=max(0, self._timeline.duration_ns("search") - found.rerank_ns),
            rerank_ns=found.rerank_ns,
            timeline=self._timeline.stages if explain else (),
            turn_saved=saved,
            truncated=writer.written is not None and writer.written.truncated,
        )

    async def _history(self) -> list[Turn]:
        if not self._plan.remembers:
            return []
        with self._timeline.stage("conversation") as stage:
            turns = await stage.run(
                self._conversations.last_turns(
                    self._caller.api_key, self._plan.question.conversation_id
                )
            )
            stage.detail = f"{len(turns)} earlier turns"
        return turns

    async def _pack(self, found: Findings, history: Sequence[Turn]) -> Packed:
        """The prompt that fits."""
        plan = self._plan
        packing = Packing(
            style=plan.style,
            question=plan.question.text,
            passages=found.passages,
            history=history,
            max_passages=plan.max_passages,
            max_tokens=plan.sampling.max_tokens,
            mode=plan.options.mode,
            chain_of_thought=plan.options.chain_of_thought,
        )
        with self._timeline.stage("pack") as stage:

            async def count(chat: Sequence[Message]) -> Tokenized:
                return await self._services.tokenize(plan.application, chat, stage.caller)

            packed = await stage.run(pack(packing, count))
            stage.detail = (
                f"{len(packed.used)} of {len(found.passages)} passages, "
                f"{len(packed.token_ids)} prompt tokens"
            )
        return packed

    async def _deltas(self, writer: Writer, packed: Packed) -> AsyncGenerator[AnswerText, None]:
        """The answer as it is written, without what is held back."""
        async with aclosing(writer.write(packed.token_ids)) as deltas:
            async for delta in deltas:
                if not self._plan.holds_answer:
                    yield delta
                elif delta.reasoning:
                    yield AnswerText(reasoning=delta.reasoning)

    async def _cite(self, writer: Writer, found: Findings, packed: Packed) -> list[Citation]:
        written = writer.written
        if written is None or not written.text or self._plan.style.is_refusal(written.text):
            return []
        question = self._plan.question.text
        with self._timeline.stage("cite") as stage:
            finding = asyncio.to_thread(  # many long passages and a long answer take a while
                cite,
                written.text,
                # What a follow-up is about is in the questions before it.
                f"{found.queries[0]} {question}",
                found.passages,
                packed.used,
                written.markers,
                names(question) if self._plan.style.confuses_names else frozenset(),
            )
            citations = await stage.run(finding)
            stage.detail = f"{len(citations)} citations"
        return citations

    async def _save(self, turn: Turn) -> bool:
        """Whether the turn is remembered. An answer is not lost because the store is."""
        if not self._plan.remembers:
            return False
        conversation_id = self._plan.question.conversation_id
        try:
            with self._timeline.stage("save") as stage:
                await stage.run(
                    self._conversations.append(self._caller.api_key, conversation_id, turn)
                )
        except OrreryError as error:
            _LOG.warning(
                "turn_not_saved",
                extra={"request_id": self._caller.request_id, "reason": kind_of(error).reason},
            )
            return False
        return True
